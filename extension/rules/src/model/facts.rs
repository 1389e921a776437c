//! Everything that Stripe has sent, object by object. "Every Stripe object is kept as facts that only grow."

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::invoice::Invoice;
use super::json::{first_id, id, integer, interval, list, metadata, quantity, said_quantity};
use super::number::Span;
use super::reversals::{CreditNote, Dispute, Refund};
use super::subscription::{self, State};

#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) invoices: BTreeMap<String, Invoice>,
    pub(super) subscriptions: BTreeMap<String, Vec<State>>,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) intents: BTreeMap<String, Intent>,
    pub(super) charges: BTreeMap<String, Charge>,
    pub(super) refunds: BTreeMap<String, Refund>,
    pub(super) disputes: BTreeMap<String, Dispute>,
    pub(super) credit_notes: BTreeMap<String, CreditNote>,
    /// The interval of each price that some object carried.
    intervals: BTreeMap<String, Span>,
    /// The names of each payment.
    payments: Vec<BTreeSet<String>>,
}

/// A checkout session, or what a payment intent's metadata says was bought.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    pub(super) created: i64,
    pub(super) is_payment: bool,
    pub(super) status: String,
    pub(super) total: Option<i64>,
    pub(super) currency: Option<String>,
    /// Stripe's own lines.
    pub(super) lines: Option<Vec<SessionLine>>,
    pub(super) metadata_price: Option<String>,
    pub(super) metadata_pack: Option<String>,
    pub(super) metadata_quantity: i64,
}

#[derive(Debug, Clone)]
pub(super) struct SessionLine {
    pub(super) price: Option<String>,
    pub(super) product: Option<String>,
    pub(super) quantity: i64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Intent {
    pub(super) has_succeeded: bool,
    pub(super) received: Option<i64>,
    pub(super) bought: Session,
    pub(super) names_user: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Charge {
    pub(super) amount: Option<i64>,
    pub(super) currency: Option<String>,
    /// The highest cumulative refund, and when it was first known.
    pub(super) refunded: i64,
    pub(super) refunded_at: i64,
}

/// When what an event tells was so: an invoice says itself when it was paid.
pub(super) fn own_time(event: &Value) -> Option<i64> {
    integer(&event["data"]["object"]["status_transitions"]["paid_at"]).or(integer(&event["created"]))
}

impl Facts {
    /// Learns what an event says; what it says twice is known once.
    pub(super) fn learn(&mut self, event: &Value, now: i64) {
        let object = &event["data"]["object"];
        let as_of = integer(&event["created"]).unwrap_or(now);
        let Some(id) = id(&object["id"]) else { return };
        self.learn_intervals(object);
        self.learn_names(object);
        match object["object"].as_str().unwrap_or_default() {
            "invoice" => self.invoices.entry(id).or_default().learn(object, as_of),
            "subscription" => {
                subscription::learn(self.subscriptions.entry(id).or_default(), State::read(event, now));
            }
            "checkout.session" => self.sessions.entry(id).or_default().learn(object),
            "payment_intent" => self.intents.entry(id).or_default().learn(object),
            "charge" => self.charges.entry(id).or_default().learn(object, as_of),
            "refund" => self.refunds.entry(id).or_default().learn(object, as_of),
            "dispute" => self.disputes.entry(id).or_default().learn(event, as_of),
            "credit_note" => self.credit_notes.entry(id).or_default().learn(object, as_of),
            _ => {}
        }
    }

    /// The same facts without what is others': the lines of their subscriptions, and what they bought once by a session, a
    /// payment intent or an invoice of no subscription. What says what came back stays.
    pub(super) fn only(&self, has: &dyn Fn(&str) -> bool, is_others: &dyn Fn(&str) -> bool) -> Facts {
        let mut facts = self.clone();
        for (id, invoice) in &mut facts.invoices {
            invoice.lines.retain(|line| line.subscription.as_deref().map_or(!is_others(id), has));
        }
        facts.sessions.retain(|id, _| !is_others(id));
        facts.intents.retain(|id, _| !is_others(id));
        facts
    }

    /// "The interval is Stripe's (`price.recurring`, `plan.interval`, the item's price, the fetched price)."
    fn learn_intervals(&mut self, object: &Value) {
        for line in list(&object["items"]["data"]).iter().chain(list(&object["lines"]["data"])) {
            for price in [&line["price"], &line["plan"], &line["pricing"]["price_details"]["price"]] {
                if let (Some(id), Some(span)) = (id(price), interval(price)) {
                    self.intervals.insert(id, span);
                }
            }
        }
    }

    pub(super) fn interval(&self, price: &str) -> Option<Span> {
        self.intervals.get(price).copied()
    }

    /// "A payment has one row and many names: checkout session, invoice, payment intents, charges. Any event that
    /// carries two of its names joins them."
    fn learn_names(&mut self, object: &Value) {
        let payment = &object["payment"];
        let mut names: Vec<String> = [
            &object["payment_intent"],
            &object["charge"],
            &object["latest_charge"],
            &object["invoice"],
            &payment["payment_intent"],
            &payment["charge"],
        ]
        .into_iter()
        .filter_map(id)
        .collect();
        for payment in list(&object["payments"]["data"]) {
            names.extend(
                [&payment["payment"]["payment_intent"], &payment["payment"]["charge"]]
                    .into_iter()
                    .filter_map(id),
            );
        }
        names.extend(list(&object["charges"]["data"]).iter().filter_map(id));
        if ["invoice", "checkout.session", "payment_intent", "charge"]
            .contains(&object["object"].as_str().unwrap_or_default())
        {
            names.extend(id(&object["id"]));
        }
        let joined: BTreeSet<String> = names.into_iter().collect();
        if joined.is_empty() {
            return;
        }
        let (mut same, other): (Vec<_>, Vec<_>) =
            self.payments.drain(..).partition(|payment| !payment.is_disjoint(&joined));
        same.push(joined);
        self.payments = other;
        self.payments.push(same.into_iter().flatten().collect());
    }

    /// All names of the payment that has this one.
    pub(super) fn names(&self, name: &str) -> BTreeSet<String> {
        let known = self.payments.iter().find(|payment| payment.contains(name));
        known.cloned().unwrap_or_else(|| BTreeSet::from([name.to_owned()]))
    }

    pub(super) fn payments(&self) -> &[BTreeSet<String>] {
        &self.payments
    }

    /// Of each paid line of a subscription that names its item: the item, the line's start, whether it is a credit.
    pub(super) fn billed_items(&self, subscription: &str) -> Vec<(String, i64, bool)> {
        let paid = self.invoices.values().filter(|invoice| invoice.paid_at.is_some());
        let lines = paid.flat_map(|invoice| &invoice.lines);
        let its = lines.filter(|line| line.subscription.as_deref() == Some(subscription));
        its.filter_map(|line| {
            let is_credit = line.amount < 0 || line.names_credited_items && line.amount == 0;
            Some((line.item.clone()?, line.start, is_credit))
        })
        .collect()
    }
}

impl Session {
    fn learn(&mut self, object: &Value) {
        self.created = integer(&object["created"]).unwrap_or(self.created);
        self.is_payment |= object["mode"].as_str() == Some("payment");
        // A session that was paid in one event stays paid.
        if self.status != "paid" && self.status != "no_payment_required" {
            object["payment_status"].as_str().unwrap_or_default().clone_into(&mut self.status);
        }
        self.total = integer(&object["amount_total"]).or(self.total);
        self.currency = object["currency"].as_str().map(str::to_owned).or(self.currency.take());
        if object["line_items"]["data"].is_array() && object["line_items"]["has_more"].as_bool() != Some(true)
        {
            let lines = list(&object["line_items"]["data"]);
            self.lines = Some(lines.iter().map(SessionLine::read).collect());
        }
        self.learn_metadata(object);
    }

    fn learn_metadata(&mut self, object: &Value) {
        self.metadata_price = metadata(object, "price_id").or(self.metadata_price.take());
        self.metadata_pack = metadata(object, "pack").or(self.metadata_pack.take());
        let stated = metadata(object, "quantity");
        self.metadata_quantity = stated.and_then(|text| quantity(&text.into())).unwrap_or(1);
    }
}

impl SessionLine {
    fn read(line: &Value) -> SessionLine {
        SessionLine {
            price: first_id(&[&line["price"]]),
            product: first_id(&[&line["price"]["product"]]),
            quantity: said_quantity(line).and_then(quantity).unwrap_or(1),
        }
    }
}

impl Intent {
    fn learn(&mut self, object: &Value) {
        self.has_succeeded |= object["status"].as_str() == Some("succeeded");
        self.received = integer(&object["amount_received"]).or(self.received);
        self.bought.created = integer(&object["created"]).unwrap_or(self.bought.created);
        self.bought.currency = object["currency"].as_str().map(str::to_owned).or(self.bought.currency.take());
        self.bought.learn_metadata(object);
        self.names_user |=
            ["user_id", "userId", "supabase_user_id"].iter().any(|key| metadata(object, key).is_some());
    }
}

impl Charge {
    fn learn(&mut self, object: &Value, as_of: i64) {
        self.amount = integer(&object["amount"]).or(self.amount);
        self.currency = object["currency"].as_str().map(str::to_owned).or(self.currency.take());
        let refunded = integer(&object["amount_refunded"]).unwrap_or(0);
        if refunded > self.refunded {
            (self.refunded, self.refunded_at) = (refunded, as_of);
        } else if refunded == self.refunded {
            self.refunded_at = self.refunded_at.min(as_of);
        }
    }
}

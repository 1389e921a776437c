//! Stripe's events as facts: as much of their JSON as histories use. The product's own readers are tested elsewhere; this one
//! is short, so that a vector's numbers rest on the rules alone.

use std::collections::BTreeMap;

use serde_json::Value;
use stripe_credits_rules::amount::{Credits, MinorUnits};
use stripe_credits_rules::calendar::{Span, Time, from_unix};
use stripe_credits_rules::catalog::{NoPaymentRequired, PriceKind, ReversalPolicy};
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::streams::facts::{
    CameBack, Facts, ItemContent, ItemState, Line, Payment, Period, Single, SubscriptionState, Terms,
};

/// A catalog document, as far as plan credits depend on it.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    pub(crate) prices: BTreeMap<String, Terms>,
    pub(crate) reversal_policy: ReversalPolicy,
    pub(crate) no_payment_required: NoPaymentRequired,
}

/// The objects that events told so far, each with when it became known; nothing is judged before all of it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    invoices: BTreeMap<String, (Value, Time)>,
    sessions: BTreeMap<String, (Value, Time)>,
    /// Refunds, disputes and credit notes.
    reversals: BTreeMap<String, Reversal>,
    states: BTreeMap<(String, i64), (Value, Time)>,
}

/// Money back of a payment.
#[derive(Debug, Clone)]
struct Reversal {
    payment: String,
    cents: i64,
    /// Of a credit note: the refunds that are part of it.
    refunds: Vec<String>,
    /// A refund failed, a dispute was won. That is final.
    is_undone: bool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn time(value: &Value) -> Time {
    from_unix(number(value)).expect("a time")
}

fn first(values: [&Value; 2]) -> &Value {
    if values[0].is_null() { values[1] } else { values[0] }
}

impl Catalog {
    pub(crate) fn read(document: &Value) -> Catalog {
        let span = |value: &Value| value.as_str().map(|text| text.parse::<Span>().expect("a span"));
        let mut prices = BTreeMap::new();
        let all = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        for plan in all("plans") {
            let credits = |key: &str| Credits(plan[key].as_i64().unwrap_or(0));
            for price in plan["prices"].as_array().expect("prices") {
                let id = price.as_str().map_or_else(|| text(&price["id"]), str::to_owned);
                let terms = Terms {
                    kind: PriceKind::Plan,
                    credits: credits("credits"),
                    every: span(&price["every"]).unwrap_or(Span::Months(1)),
                    drip: span(&price["drip"]),
                    max_rollover: credits("max_rollover"),
                    keeps_on_change: plan["plan_change"] == "keep",
                    expires_when_canceled: plan["cancellation"] == "expire",
                    trial_credits: credits("trial_credits"),
                    first_purchase_bonus: credits("first_purchase_bonus"),
                    expires_after: None,
                };
                prices.insert(id, terms);
            }
        }
        for pack in all("packs") {
            for id in pack["prices"].as_array().expect("prices") {
                let terms = Terms {
                    kind: PriceKind::Pack,
                    credits: Credits(number(&pack["credits"])),
                    every: Span::Months(1),
                    drip: None,
                    max_rollover: Credits::ZERO,
                    keeps_on_change: false,
                    expires_when_canceled: false,
                    trial_credits: Credits::ZERO,
                    first_purchase_bonus: Credits::ZERO,
                    expires_after: span(&pack["expires_after"]),
                };
                prices.insert(text(id), terms);
            }
        }
        let word = |key: &str| document[key].as_str().unwrap_or_default();
        Catalog {
            prices,
            reversal_policy: ReversalPolicy::parse(word("reversal_policy")).unwrap_or_default(),
            no_payment_required: NoPaymentRequired::parse(word("no_payment_required")).unwrap_or_default(),
        }
    }
}

impl Told {
    /// Reads an event; one that is known already changes nothing.
    pub(crate) fn hear(&mut self, event: &Value, known_at: Time) {
        let object = &event["data"]["object"];
        let id = text(&object["id"]);
        match event["type"].as_str().expect("a type") {
            "invoice.paid" => {
                self.invoices.entry(id).or_insert_with(|| (object.clone(), known_at));
            }
            "checkout.session.completed" => {
                self.sessions.entry(id).or_insert_with(|| (object.clone(), known_at));
            }
            "credit_note.created" => {
                let newer =
                    object["refunds"].as_array().into_iter().flatten().map(|refund| &refund["refund"]);
                let refunds = newer.chain([&object["refund"]]).filter_map(Value::as_str).map(str::to_owned);
                let note = Reversal {
                    payment: text(&object["invoice"]),
                    cents: object["total"].as_i64().unwrap_or_else(|| number(&object["amount"])),
                    refunds: refunds.collect(),
                    is_undone: false,
                };
                self.reversals.entry(id).or_insert(note);
            }
            kind @ ("refund.created"
            | "refund.failed"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated") => {
                let told = Reversal {
                    payment: text(&object["payment_intent"]).trim_start_matches("pi_").to_owned(),
                    cents: number(&object["amount"]),
                    refunds: Vec::new(),
                    is_undone: kind.ends_with("failed") || kind.ends_with("reinstated"),
                };
                let is_undone = told.is_undone;
                self.reversals.entry(id).or_insert(told).is_undone |= is_undone;
            }
            kind if kind.starts_with("customer.subscription.") => {
                let at = number(&event["created"]);
                self.states.entry((id, at)).or_insert_with(|| (object.clone(), known_at));
            }
            _ => {}
        }
    }

    /// What all of it says.
    pub(crate) fn facts(&self, catalog: &Catalog) -> Facts {
        let intervals = self.intervals();
        let mut facts = Facts { no_payment_required: catalog.no_payment_required, ..Facts::default() };
        for (invoice, known_at) in self.invoices.values() {
            self.invoice(invoice, *known_at, catalog, &intervals, &mut facts);
        }
        for (session, _) in self.sessions.values() {
            facts.singles.push(self.session(session, catalog));
        }
        self.subscriptions(catalog, &intervals, &mut facts);
        facts
    }

    /// Stripe's interval of each price.
    fn intervals(&self) -> BTreeMap<String, Span> {
        let items = self.states.values().filter_map(|(state, _)| state["items"]["data"].as_array());
        let prices = items.flatten().map(|item| &item["price"]);
        prices
            .filter_map(|price| {
                let recurring = &price["recurring"];
                let count = u32::try_from(recurring["interval_count"].as_i64()?).expect("a count");
                let interval = format!("{count} {}s", recurring["interval"].as_str()?);
                Some((text(&price["id"]), interval.parse().expect("a span")))
            })
            .collect()
    }

    fn invoice(
        &self,
        invoice: &Value,
        known_at: Time,
        catalog: &Catalog,
        intervals: &BTreeMap<String, Span>,
        facts: &mut Facts,
    ) {
        let id = text(&invoice["id"]);
        let subscription =
            first([&invoice["subscription"], &invoice["parent"]["subscription_details"]["subscription"]]);
        let (mut credited, mut charged) = (0, 0);
        for line in invoice["lines"]["data"].as_array().expect("lines") {
            let newer = &line["parent"]["subscription_item_details"];
            let (newer, pending) = (newer, &line["parent"]["invoice_item_details"]);
            let details = first([first([newer, pending]), line]);
            let subscription = first([&details["subscription"], subscription]);
            let price = text(first([&line["price"]["id"], &line["pricing"]["price_details"]["price"]]));
            let discounts = line["discount_amounts"].as_array().expect("discounts");
            let discount = discounts.iter().map(|discount| number(&discount["amount"])).sum();
            let flag = details["proration"].as_bool().expect("a flag");
            let credited_items = &details["proration_details"]["credited_items"];
            let amount = number(&line["amount"]);
            let is_credit = amount < 0 || !credited_items.is_null();
            if catalog.prices.contains_key(&price) && is_credit {
                credited -= amount;
            } else {
                charged += amount - discount;
            }
            let Some(&terms) = catalog.prices.get(&price) else { continue };
            facts.lines.push(Line {
                payment: id.clone(),
                subscription: subscription.as_str().map(str::to_owned),
                item: details["subscription_item"].as_str().map(str::to_owned),
                interval: intervals.get(&price).copied(),
                price,
                terms,
                quantity: number(&line["quantity"]),
                amount: MinorUnits(amount),
                discount: MinorUnits(discount),
                is_discounted: invoice["discounts"].as_array().is_some_and(|all| !all.is_empty()),
                period: Period { start: time(&line["period"]["start"]), end: time(&line["period"]["end"]) },
                is_proration: flag,
                names_credited: !credited_items.is_null(),
            });
        }
        facts.payments.push(Payment {
            came_back: self.came_back(&id, number(&invoice["total"]), catalog),
            id,
            paid_at: time(&invoice["status_transitions"]["paid_at"]),
            credited: MinorUnits(credited),
            charged: MinorUnits(charged),
            direct: false,
            known_at,
        });
    }

    fn came_back(&self, id: &str, total: i64, catalog: &Catalog) -> CameBack {
        let own = || self.reversals.values().filter(|reversal| reversal.payment == id);
        let of_notes = own().flat_map(|note| &note.refunds).filter_map(|id| self.reversals.get(id));
        let all: i64 = own().filter(|reversal| !reversal.is_undone).map(|reversal| reversal.cents).sum();
        let twice: i64 = of_notes.map(|refund| refund.cents).sum();
        let (amount, of) = (MinorUnits(all - twice), MinorUnits(total));
        CameBack { amount, of, policy: catalog.reversal_policy }
    }

    fn session(&self, session: &Value, catalog: &Catalog) -> Single {
        let (id, price) = (text(&session["id"]), text(&session["metadata"]["price_id"]));
        let (terms, at) = (catalog.prices[&price], time(&session["created"]));
        let quantity: i64 = text(&session["metadata"]["quantity"]).parse().expect("a quantity");
        Single {
            came_back: self.came_back(&id, number(&session["amount_total"]), catalog),
            source_id: id,
            item: price,
            pool: Pool::Purchased,
            credits: Credits(terms.credits.0 * quantity),
            at,
            expires_at: terms.expires_after.map(|after| after.after(at).expect("a time")),
        }
    }

    fn subscriptions(&self, catalog: &Catalog, intervals: &BTreeMap<String, Span>, facts: &mut Facts) {
        let mut by_subscription: BTreeMap<&str, Vec<(Time, &Value, Time)>> = BTreeMap::new();
        for ((id, at), (state, known_at)) in &self.states {
            by_subscription.entry(id).or_default().push((from_unix(*at).expect("a time"), state, *known_at));
        }
        for (id, states) in by_subscription {
            let over =
                |state: &Value| matches!(state["status"].as_str(), Some("canceled" | "incomplete_expired"));
            let ended = states.iter().find(|(_, state, _)| over(state));
            let (as_of, newest, known_at) = *ended.or(states.last()).expect("a state");
            let item_ends = newest["items"]["data"].as_array().into_iter().flatten();
            let item_end = item_ends.filter_map(|item| item["current_period_end"].as_i64()).max();
            let at = |value: &Value| value.as_i64().map(|at| from_unix(at).expect("a time"));
            let period_end = at(&newest["current_period_end"]).or(item_end.and_then(from_unix));
            let with_period = newest["cancel_at_period_end"] == true || over(newest);
            facts.subscriptions.push(SubscriptionState {
                id: id.to_owned(),
                as_of,
                listed_since: states.first().map(|(at, ..)| *at),
                is_over: over(newest),
                ended_at: at(&newest["ended_at"]),
                ends_at: at(&newest["cancel_at"]).or(period_end.filter(|_| with_period)),
                first_period_start: None,
                known_at,
            });
            let mut items: Vec<String> = Vec::new();
            for (as_of, state, known_at) in states.iter().filter(|(at, ..)| *at <= as_of) {
                let listed = state["items"]["data"].as_array().expect("items");
                items.extend(listed.iter().map(|item| text(&item["id"])));
                items.sort();
                items.dedup();
                for item in &items {
                    let content =
                        listed.iter().find(|one| one["id"] == **item).map_or(ItemContent::Removed, |one| {
                            let price = text(&one["price"]["id"]);
                            ItemContent::Listed {
                                terms: catalog.prices.get(&price).copied(),
                                interval: intervals.get(&price).copied(),
                                price,
                                quantity: number(&one["quantity"]),
                            }
                        });
                    let (subscription, item) = (id.to_owned(), item.clone());
                    let (as_of, known_at) = (*as_of, *known_at);
                    facts.items.push(ItemState { subscription, item, as_of, content, known_at });
                }
            }
        }
    }
}

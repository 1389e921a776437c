//! What customers buy and get back, and the events that Stripe sends about it.

use serde_json::Value;
use uuid::Uuid;

use super::verdict::Payment;
use crate::payments::pack_invoice;
use crate::refunds::{dispute, refund};
use crate::seeds::Rng;
use crate::stripe::{CREATED, Event, paid_pack};
use crate::subscription::{PRO, invoice_payment, month, renewal, subscribing, subscription};

/// What a pack holds and costs, in credits and cents, in catalog.example.json.
const PACK_CREDITS: i64 = 500;
const PACK_CENTS: i64 = 1000;
/// Parts of a pack's price whose credits are a whole number, in cents.
const REFUNDS: [i64; 3] = [200, 400, PACK_CENTS];
/// The months that a subscription is paid for, at least and at most.
const MONTHS: (i64, i64) = (1, 4);

/// One sale with everything that follows from it.
pub(super) struct Sale {
    /// What it pays for.
    pub(super) payments: Vec<Payment>,
    /// What Stripe sends about it, in the order in which it happened.
    pub(super) events: Vec<Event>,
    /// What Stripe has of it, for whoever asks: a path of its API and the object.
    pub(super) objects: Vec<(String, Value)>,
    /// The session, if Stripe has to know it with its lines.
    pub(super) session: Option<Value>,
}

impl Sale {
    fn new() -> Sale {
        Sale { payments: Vec::new(), events: Vec::new(), objects: Vec::new(), session: None }
    }

    fn pays(&mut self, id: String, user: Uuid, credits: i64) {
        let payment =
            Payment { id, user, credits, kept: credits, was_reversed: false, is_acknowledged: false };
        self.payments.push(payment);
    }
}

/// The sale of this name to a user, as chance has it.
pub(super) fn sale(rng: &mut Rng, name: &str, user: Uuid) -> Sale {
    match rng.below(10) {
        0..=1 => months(rng, name, user),
        2 => invoiced_pack(name, user),
        _ => pack(rng, name, user),
    }
}

/// A pack by a checkout session, and perhaps a refund or a dispute.
fn pack(rng: &mut Rng, name: &str, user: Uuid) -> Sale {
    let mut sale = Sale::new();
    let mut session =
        paid_pack(&format!("cs_{name}"), user).with("customer", format!("cus_{}", user.simple()));
    if rng.once_in(4) {
        // Its lines are Stripe's to say, and have to be fetched.
        session = session.changeable();
    }
    sale.session = Some(session.json().clone());
    sale.events.push(session.completed(&format!("evt_{name}")));
    if rng.once_in(4) {
        // Another event of the same payment.
        sale.events
            .push(session.event(&format!("evt_{name}_async"), "checkout.session.async_payment_succeeded"));
    }
    sale.pays(session.id().to_owned(), user, PACK_CREDITS);
    let (intent, payment) = (format!("pi_{name}"), &mut sale.payments[0]);
    match rng.below(10) {
        0..=1 => {
            let cents = *rng.one_of(&REFUNDS);
            let refund = refund(&format!("re_{name}"), &intent, cents);
            sale.events.push(refund.event(&format!("evt_re_{name}"), "refund.created"));
            payment.kept = PACK_CREDITS * (PACK_CENTS - cents) / PACK_CENTS;
            payment.was_reversed = true;
        }
        2 => {
            let opened = dispute(&format!("dp_{name}"), &intent, PACK_CENTS, "needs_response");
            sale.events.push(opened.event(&format!("evt_dp_{name}"), "charge.dispute.created"));
            payment.was_reversed = true;
            if rng.once_in(2) {
                let won = dispute(&format!("dp_{name}"), &intent, PACK_CENTS, "won");
                let won = won.event(&format!("evt_dp_{name}_won"), "charge.dispute.funds_reinstated");
                sale.events.push(won.with("created", CREATED + 60));
            } else {
                payment.kept = 0;
            }
        }
        _ => {}
    }
    sale
}

/// A pack by an invoice without a subscription.
fn invoiced_pack(name: &str, user: Uuid) -> Sale {
    let mut sale = Sale::new();
    let id = format!("in_{name}");
    let invoice = pack_invoice(&id, &[("price_pack", 1)])
        .with("customer", format!("cus_{}", user.simple()))
        .with("metadata", serde_json::json!({ "user_id": user.to_string() }));
    sale.events.push(invoice.event(&format!("evt_{name}"), "invoice.paid"));
    sale.objects.push((format!("/v1/invoices/{id}"), invoice.json().clone()));
    sale.pays(id, user, PACK_CREDITS);
    sale
}

/// A subscription for some months, and perhaps a refund of the last one.
fn months(rng: &mut Rng, name: &str, user: Uuid) -> Sale {
    let mut sale = Sale::new();
    let (id, customer) = (format!("sub_{name}"), format!("cus_{name}"));
    let now = subscription(&id, PRO.0).with("customer", customer.clone());
    let session = subscribing(&format!("cs_{name}"), &id, &format!("in_{name}_0"));
    let session = session.with("customer", customer.clone()).of(user);
    sale.events.push(session.completed(&format!("evt_{name}")));
    sale.events.push(now.created(&format!("evt_{name}_created")));
    let count = u32::try_from(rng.between(MONTHS.0, MONTHS.1)).unwrap_or(1);
    for n in 0..count {
        let invoice = renewal(&format!("in_{name}_{n}"), &id, PRO, n).with("customer", customer.clone());
        sale.events.push(invoice.paid(&format!("evt_{name}_in_{n}")));
        sale.objects.push((format!("/v1/invoices/{}", invoice.id()), invoice.json().clone()));
        let month_of = now.clone().during((month(n), month(n + 1)));
        sale.events.push(month_of.updated(&format!("evt_{name}_up_{n}"), month(n) + 1));
        sale.objects.push((format!("/v1/subscriptions/{id}"), month_of.json().clone()));
        sale.pays(format!("{id}@{}", month(n)), user, PRO.1);
    }
    if rng.once_in(4) {
        let (last, intent) = (count - 1, format!("pi_{name}"));
        sale.events.push(invoice_payment(&format!("evt_{name}_pi"), &format!("in_{name}_{last}"), &intent));
        let half = refund(&format!("re_{name}"), &intent, PRO.1 / 2);
        sale.events.push(half.event(&format!("evt_re_{name}"), "refund.created"));
        if let Some(payment) = sale.payments.last_mut() {
            payment.kept = PRO.1 / 2;
            payment.was_reversed = true;
        }
    }
    sale
}

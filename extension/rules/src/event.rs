//! One delivered text becomes an [`Event`] with one [`Subject`], or is [`Malformed`]. Objects that were fetched or
//! listed are wrapped as events too, so that all of them are applied in one way.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::calendar::{self, Time};
use crate::invoice::{self, Invoice, InvoicePayment};
use crate::name::Name;
use crate::payment_intent::{self, PaymentIntent};
use crate::reversal::{self, Reversals};
use crate::session::{self, Mode, Session};
use crate::stripe::{self, check_id, parse};
use crate::subscription::{self, Subscription};
use crate::user::UserNames;

/// What is recorded of every event, and its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`; of a reconcile or a backfill, an id made from the object's.
    pub id: String,
    /// Stripe's event type.
    pub event_type: String,
    /// When Stripe created the event.
    pub created: Time,
    /// The API version of the object's shape.
    pub api_version: Option<String>,
    /// Stripe's live mode, or test mode.
    pub livemode: bool,
    /// The connected account.
    pub account: Option<String>,
    /// The id of the event's object.
    pub object_id: Option<String>,
    /// The object's customer: `cus_…`, or in Accounts v2 the account, `acct_…`, if it names that alone.
    pub customer_id: Option<String>,
    /// The customer's account, if the object names both.
    pub account_of_customer: Option<String>,
    /// What the rules read from the object.
    pub subject: Subject,
}

/// The facts of an event's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// From any of its events: its own status decides, not the event's type.
    CheckoutSession(Box<Session>),
    /// From any of its events.
    Subscription(Box<Subscription>),
    /// From any of its events.
    Invoice(Box<Invoice>),
    /// Which payment intent paid which invoice.
    InvoicePayment(InvoicePayment),
    /// From any of its events: its own status decides.
    PaymentIntent(Box<PaymentIntent>),
    /// Refunds, disputes or credit notes of one payment.
    Reversals(Reversals),
    /// Which time it is for the customers who live by a test clock (rule 16).
    TestClock {
        /// `clock_…`.
        id: String,
        /// While Stripe advances the clock, the time from which it does.
        frozen_time: Time,
    },
    /// Whom the server names as a customer's user, and what clock the customer lives by.
    Customer {
        /// `cus_…`.
        id: String,
        /// By its metadata.
        metadata_user: UserNames,
        /// The test clock that it lives by, if any.
        test_clock: Option<String>,
    },
    /// Something that the rules read nothing from.
    Other,
}

/// The ids of a subject: what has to be locked before anything is decided about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys<'a> {
    /// Sessions, invoices, subscriptions, test clocks.
    pub sources: Vec<&'a str>,
    /// Names of payments.
    pub names: Vec<&'a str>,
}

impl Event {
    /// Whether its object was listed by a backfill. Stripe has it at any time, so it need not be stored unless it had
    /// an effect.
    #[must_use]
    pub fn is_backfill(&self) -> bool {
        self.event_type.starts_with(BACKFILL)
    }
}

impl Subject {
    /// Whether it is something that a customer pays.
    #[must_use]
    pub fn is_payment(&self) -> bool {
        matches!(self, Subject::CheckoutSession(_) | Subject::Invoice(_) | Subject::PaymentIntent(_))
    }

    /// The state of a subscription that it is, or contains.
    #[must_use]
    pub fn subscription(&self) -> Option<&Subscription> {
        match self {
            Subject::Subscription(subscription) => Some(subscription),
            Subject::CheckoutSession(session) => session.subscription.as_deref(),
            _ => None,
        }
    }

    /// Its ids.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        let mut keys = Keys::default();
        match self {
            Subject::CheckoutSession(session) => {
                keys.sources.push(&session.id);
                keys.extend_by_names(&session.names());
                keys.sources
                    .extend(session.subscription.as_ref().map(|subscription| subscription.id.as_str()));
                session.invoice.iter().for_each(|invoice| keys.extend_by_invoice(invoice));
            }
            Subject::Subscription(subscription) => keys.sources.push(&subscription.id),
            Subject::Invoice(invoice) => keys.extend_by_invoice(invoice),
            Subject::InvoicePayment(payment) => {
                keys.sources.push(&payment.invoice_id);
                keys.extend_by_names(&payment.names());
            }
            Subject::PaymentIntent(payment_intent) => keys.extend_by_names(&payment_intent.names()),
            Subject::Reversals(reversals) => keys.extend_by_names(&reversals.names()),
            Subject::TestClock { id, .. } => keys.sources.push(id),
            Subject::Customer { .. } | Subject::Other => {}
        }
        keys
    }

    /// Whether its customer's link to a user is read or written.
    #[must_use]
    pub fn is_of_customer(&self) -> bool {
        match self {
            Subject::CheckoutSession(_)
            | Subject::Subscription(_)
            | Subject::Invoice(_)
            | Subject::PaymentIntent(_)
            | Subject::Customer { .. } => true,
            Subject::InvoicePayment(_)
            | Subject::Reversals(_)
            | Subject::TestClock { .. }
            | Subject::Other => false,
        }
    }
}

impl<'a> Keys<'a> {
    fn extend_by_invoice(&mut self, invoice: &'a Invoice) {
        self.sources.push(&invoice.id);
        self.sources.extend(invoice.subscription_ids());
        self.extend_by_names(&invoice.names());
    }

    fn extend_by_names(&mut self, names: &[Name<'a>]) {
        self.names.extend(names.iter().map(|name| name.id));
    }
}

/// Why a text is not an event that the rules can read. It keeps the event's id if that can be read, so that the
/// rejection can be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Malformed {
    /// If it can be read.
    pub event_id: Option<String>,
    /// If it can be read.
    pub event_type: Option<String>,
    /// What is wrong, as the parser says it.
    pub fault: String,
}

impl Malformed {
    /// A fault of an event, with its id and type if these can be read.
    fn of(text: &str, fault: String) -> Malformed {
        #[derive(Deserialize)]
        struct Named {
            id: String,
            #[serde(rename = "type", default)]
            event_type: Option<serde_json::Value>,
        }
        let named: Option<Named> =
            serde_json::from_str(text).ok().filter(|named: &Named| check_id("id", Some(&named.id)).is_ok());
        let (event_id, event_type) = named.map_or((None, None), |named| {
            let event_type = named.event_type.and_then(|event_type| event_type.as_str().map(str::to_owned));
            (Some(named.id), event_type)
        });
        Malformed { event_id, event_type, fault }
    }

    /// A fault of something that has no event id.
    #[expect(clippy::needless_pass_by_value, reason = "map_err passes by value")]
    pub(crate) fn unnamed(fault: impl ToString) -> Malformed {
        Malformed { event_id: None, event_type: None, fault: fault.to_string() }
    }
}

/// What an event's object is, as far as the rules read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectKind {
    CheckoutSession,
    Customer,
    Subscription,
    Invoice,
    InvoicePayment,
    PaymentIntent,
    Charge,
    Refund,
    Dispute,
    CreditNote,
    TestClock,
}

/// Stripe's event types that the rules read something from, and what their objects are.
const STRIPE_TYPES: [(&str, ObjectKind); 37] = [
    ("checkout.session.completed", ObjectKind::CheckoutSession),
    ("checkout.session.async_payment_succeeded", ObjectKind::CheckoutSession),
    ("checkout.session.async_payment_failed", ObjectKind::CheckoutSession),
    ("checkout.session.expired", ObjectKind::CheckoutSession),
    ("customer.created", ObjectKind::Customer),
    ("customer.updated", ObjectKind::Customer),
    ("customer.subscription.created", ObjectKind::Subscription),
    ("customer.subscription.updated", ObjectKind::Subscription),
    ("customer.subscription.deleted", ObjectKind::Subscription),
    ("customer.subscription.paused", ObjectKind::Subscription),
    ("customer.subscription.resumed", ObjectKind::Subscription),
    ("customer.subscription.trial_will_end", ObjectKind::Subscription),
    ("customer.subscription.pending_update_applied", ObjectKind::Subscription),
    ("customer.subscription.pending_update_expired", ObjectKind::Subscription),
    ("invoice.paid", ObjectKind::Invoice),
    ("invoice.payment_succeeded", ObjectKind::Invoice),
    ("invoice.payment_failed", ObjectKind::Invoice),
    ("invoice.voided", ObjectKind::Invoice),
    ("invoice.marked_uncollectible", ObjectKind::Invoice),
    ("invoice_payment.paid", ObjectKind::InvoicePayment),
    ("payment_intent.succeeded", ObjectKind::PaymentIntent),
    ("charge.refunded", ObjectKind::Charge),
    ("refund.created", ObjectKind::Refund),
    ("refund.updated", ObjectKind::Refund),
    ("refund.failed", ObjectKind::Refund),
    ("charge.refund.updated", ObjectKind::Refund),
    ("charge.dispute.created", ObjectKind::Dispute),
    ("charge.dispute.updated", ObjectKind::Dispute),
    ("charge.dispute.closed", ObjectKind::Dispute),
    ("charge.dispute.funds_withdrawn", ObjectKind::Dispute),
    ("charge.dispute.funds_reinstated", ObjectKind::Dispute),
    ("credit_note.created", ObjectKind::CreditNote),
    ("credit_note.updated", ObjectKind::CreditNote),
    ("credit_note.voided", ObjectKind::CreditNote),
    ("test_helpers.test_clock.created", ObjectKind::TestClock),
    ("test_helpers.test_clock.advancing", ObjectKind::TestClock),
    ("test_helpers.test_clock.ready", ObjectKind::TestClock),
];

/// The types of the events that [`reconciliation`] and [`backfill`] make, and what their objects are.
const SYNTHETIC_TYPES: [(&str, ObjectKind); 5] = [
    (RECONCILE_SESSION, ObjectKind::CheckoutSession),
    ("backfill.subscription", ObjectKind::Subscription),
    ("backfill.invoice", ObjectKind::Invoice),
    ("backfill.refund", ObjectKind::Refund),
    ("backfill.dispute", ObjectKind::Dispute),
];

/// Stripe's event types that the rules read something from: those that a webhook endpoint has to send and a sweep
/// lists.
pub const TYPES: [&str; STRIPE_TYPES.len()] = {
    let mut types = [""; STRIPE_TYPES.len()];
    let mut index = 0;
    while index < types.len() {
        types[index] = STRIPE_TYPES[index].0;
        index += 1;
    }
    types
};

/// The event type of a session that was fetched from Stripe.
pub const RECONCILE_SESSION: &str = "reconcile.checkout.session";

/// The prefix of the types of events whose objects a backfill listed.
const BACKFILL: &str = "backfill.";

/// What the object of an event of this type is; `None` if the rules read nothing from it.
fn object_kind(event_type: &str) -> Option<ObjectKind> {
    let mut types = STRIPE_TYPES.iter().chain(&SYNTHETIC_TYPES);
    types.find(|(known, _)| *known == event_type).map(|(_, kind)| *kind)
}

/// Reads an event from the text of its JSON.
///
/// # Errors
/// [`Malformed`] if it is not an object with Stripe's fields in Stripe's types.
pub fn read(text: &str) -> Result<Event, Malformed> {
    read_event(text).map_err(|fault| Malformed::of(text, fault))
}

fn read_event(text: &str) -> Result<Event, String> {
    let envelope: stripe::EventEnvelope = serde_json::from_str(text).map_err(|fault| fault.to_string())?;
    check_id("id", Some(&envelope.id))?;
    let created = calendar::from_unix(envelope.created).ok_or("created is not a time")?;
    let object = envelope.data.object;
    let any: stripe::AnyObject = parse(object)?;
    let [customer, account] =
        [any.customer, any.customer_account].map(|id| id.map(stripe::Expandable::into_id));
    check_id("data.object.id", any.id.as_deref())?;
    check_id("data.object.customer", customer.as_deref())?;
    check_id("data.object.customer_account", account.as_deref())?;
    let subject = read_subject(object, &envelope.event_type, created)?;
    let customer = match &subject {
        Subject::Customer { id, .. } => Some(id.clone()),
        _ => customer,
    };
    let (customer_id, account_of_customer) =
        if customer.is_some() { (customer, account) } else { (account, None) };
    Ok(Event {
        id: envelope.id,
        event_type: envelope.event_type,
        created,
        api_version: envelope.api_version,
        livemode: envelope.livemode,
        account: envelope.account,
        object_id: any.id,
        customer_id,
        account_of_customer,
        subject,
    })
}

fn read_subject(object: &RawValue, event_type: &str, created: Time) -> Result<Subject, String> {
    Ok(match object_kind(event_type) {
        Some(ObjectKind::CheckoutSession) => {
            Subject::CheckoutSession(Box::new(session::read(object, event_type, created)?))
        }
        Some(ObjectKind::Subscription) => {
            Subject::Subscription(Box::new(subscription::read(object, created)?))
        }
        Some(ObjectKind::Invoice) => Subject::Invoice(Box::new(invoice::read(object)?)),
        Some(ObjectKind::InvoicePayment) => {
            invoice::read_payment(object)?.map_or(Subject::Other, Subject::InvoicePayment)
        }
        Some(ObjectKind::PaymentIntent) => {
            Subject::PaymentIntent(Box::new(payment_intent::read(object, created)?))
        }
        Some(ObjectKind::Charge) => Subject::Reversals(reversal::read_charge(object, created)?),
        Some(ObjectKind::Refund) => Subject::Reversals(reversal::read_refund(object, event_type, created)?),
        Some(ObjectKind::Dispute) => Subject::Reversals(reversal::read_dispute(object, event_type, created)?),
        Some(ObjectKind::CreditNote) => {
            Subject::Reversals(reversal::read_credit_note(object, event_type, created)?)
        }
        Some(ObjectKind::TestClock) => read_test_clock(object)?,
        Some(ObjectKind::Customer) => {
            let customer: stripe::CustomerObject = parse(object)?;
            let metadata_user = stripe::metadata_user(&customer.metadata.unwrap_or_default());
            let test_clock = customer.test_clock.map(stripe::Expandable::into_id);
            stripe::check_id("data.object.test_clock", test_clock.as_deref())?;
            Subject::Customer { id: customer.id, metadata_user, test_clock }
        }
        None => Subject::Other,
    })
}

fn read_test_clock(object: &RawValue) -> Result<Subject, String> {
    let clock: stripe::TestClockObject = parse(object)?;
    check_id("data.object.id", Some(&clock.id))?;
    let frozen_time =
        calendar::from_unix(clock.frozen_time).ok_or("data.object: frozen_time is not a time")?;
    Ok(Subject::TestClock { id: clock.id, frozen_time })
}

/// The id of the event that a reconciled session amounts to.
#[must_use]
pub fn reconcile_id(mode: Mode, session_id: &str) -> String {
    match mode {
        Mode::Subscription => format!("reconcile:{session_id}"),
        Mode::Payment | Mode::Other => format!("reconcile_credit_pack:{session_id}"),
    }
}

/// Wraps a session that was fetched from Stripe as an event, as text: so that a reconcile is applied like every event,
/// is stored in the inbox under an id of its own, and can be parked and applied later.
///
/// # Errors
/// [`Malformed`] if `session` is not a checkout session's object.
pub fn reconciliation(session: &str, as_of: Time) -> Result<String, Malformed> {
    #[derive(Deserialize)]
    struct SessionHead {
        id: String,
        object: Option<String>,
        livemode: bool,
        mode: String,
    }
    let head: SessionHead = serde_json::from_str(session).map_err(Malformed::unnamed)?;
    if head.object.as_deref() != Some("checkout.session") {
        return Err(Malformed::unnamed("object is not checkout.session"));
    }
    let id = reconcile_id(Mode::of(&head.mode), &head.id);
    wrap(id, RECONCILE_SESSION.to_owned(), as_of, head.livemode, session)
}

/// Wraps an object from one of Stripe's lists as an event, as text: a subscription, an invoice, a refund or a dispute
/// in its current state. `livemode` is the API key's, because not each of these objects has it.
///
/// # Errors
/// [`Malformed`] if `object` is none of these.
pub fn backfill(object: &str, as_of: Time, livemode: bool) -> Result<String, Malformed> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        object: String,
    }
    let listed: Listed = serde_json::from_str(object).map_err(Malformed::unnamed)?;
    let event_type = format!("{BACKFILL}{}", listed.object);
    if object_kind(&event_type).is_none() {
        return Err(Malformed::unnamed("object is not a subscription, an invoice, a refund or a dispute"));
    }
    let id = format!("backfill:{}", listed.id);
    wrap(id, event_type, as_of, livemode, object)
}

/// Wraps an object as it will be after a change, as the event that will say so, to explain it before it happens.
///
/// # Errors
/// [`Malformed`] if `object` has no id.
pub fn preview(object: &str, event_type: &str, as_of: Time, livemode: bool) -> Result<String, Malformed> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let named: Named = serde_json::from_str(object).map_err(Malformed::unnamed)?;
    wrap(format!("preview:{}", named.id), event_type.to_owned(), as_of, livemode, object)
}

/// Wraps an object that Stripe returned as an event.
fn wrap(
    id: String,
    event_type: String,
    as_of: Time,
    livemode: bool,
    object: &str,
) -> Result<String, Malformed> {
    #[derive(serde::Serialize)]
    struct SyntheticEvent<'a> {
        id: String,
        object: &'static str,
        #[serde(rename = "type")]
        event_type: String,
        created: i64,
        livemode: bool,
        data: Data<'a>,
    }
    #[derive(serde::Serialize)]
    struct Data<'a> {
        object: &'a RawValue,
    }
    let object: &RawValue = serde_json::from_str(object).map_err(Malformed::unnamed)?;
    let event = SyntheticEvent {
        id,
        object: "event",
        event_type,
        created: as_of.timestamp(),
        livemode,
        data: Data { object },
    };
    serde_json::to_string(&event).map_err(Malformed::unnamed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::amount::Quantity;
    use crate::catalog::Item;
    use crate::session::{LineItem, PaymentStatus};
    use crate::stripe::MAX_ID_BYTES;
    use crate::user::UserNames;

    fn session_event(event_type: &str, session: &Value) -> String {
        let mut object = json!({
            "id": "cs_1", "object": "checkout.session", "mode": "payment", "payment_status": "paid",
            "livemode": false, "created": 1_700_000_000, "metadata": {},
        });
        merge(&mut object, session);
        json!({
            "id": "evt_1", "object": "event", "type": event_type, "created": 1_700_000_100, "livemode": false,
            "api_version": "2025-03-31.basil", "data": { "object": object },
        })
        .to_string()
    }

    fn merge(into: &mut Value, from: &Value) {
        for (key, value) in from.as_object().expect("an object") {
            into[key] = value.clone();
        }
    }

    fn read_session(event_type: &str, session: &Value) -> Session {
        match read(&session_event(event_type, session)).expect("an event").subject {
            Subject::CheckoutSession(session) => *session,
            _ => panic!("a session"),
        }
    }

    fn completed(session: impl std::borrow::Borrow<Value>) -> Session {
        read_session("checkout.session.completed", session.borrow())
    }

    #[test]
    fn a_reference_reads_the_same_as_id_and_expanded() {
        let id = completed(json!({ "customer": "cus_1", "payment_intent": "pi_1" }));
        let expanded = completed(
            json!({ "customer": { "id": "cus_1", "name": "n" }, "payment_intent": { "id": "pi_1" } }),
        );
        assert_eq!(id, expanded);
    }

    #[test]
    fn the_sessions_status_decides_and_the_events_type_only_explains() {
        let status = |event_type: &str, status: &str| {
            read_session(event_type, &json!({ "payment_status": status })).payment.expect("a status")
        };
        for name in ["completed", "async_payment_succeeded", "async_payment_failed", "expired"] {
            assert_eq!(status(&format!("checkout.session.{name}"), "paid"), PaymentStatus::Paid);
        }
        assert_eq!(status("checkout.session.completed", "unpaid"), PaymentStatus::Unpaid);
        assert_eq!(status("checkout.session.async_payment_failed", "unpaid"), PaymentStatus::Failed);
        assert_eq!(status("checkout.session.expired", "unpaid"), PaymentStatus::Expired);
        assert_eq!(status("checkout.session.expired", "no_payment_required"), PaymentStatus::Expired);
        assert_eq!(status("checkout.session.completed", "something_new"), PaymentStatus::Unpaid);
    }

    #[test]
    fn metadata_names_a_line_only_by_whole_positive_quantities() {
        let named = |metadata| completed(json!({ "metadata": metadata })).named;
        let price = |n| {
            Some(LineItem { item: Item::Price("price_1".into()), quantity: Quantity::new(n), named_as: None })
        };
        assert_eq!(named(json!({ "price_id": "price_1" })), price(1));
        assert_eq!(named(json!({ "price_id": "price_1", "quantity": "3", "pack": "p" })), price(3));
        for wrong in ["0", "-1", "1.5", "1e3", "", " 2", "+2", "1000001", "99999999999999999999999999"] {
            assert_eq!(named(json!({ "price_id": "price_1", "quantity": wrong })), None, "{wrong:?}");
        }
        assert_eq!(named(json!({ "price_id": " " })), None);
        assert_eq!(named(json!({ "price_id": 7 })), None);
    }

    #[test]
    fn any_of_three_metadata_keys_names_the_user() {
        for key in ["user_id", "userId", "supabase_user_id"] {
            let session = completed(json!({ "metadata": { key: "bob", "name": "ann" } }));
            assert_eq!(session.metadata_user, UserNames::from_iter(["bob"]));
        }
        let all = json!({ "supabase_user_id": "c", "userId": "b", "user_id": "a" });
        assert_eq!(
            completed(json!({ "metadata": all })).metadata_user,
            UserNames::from_iter(["a", "b", "c"])
        );
        let session = completed(json!({ "client_reference_id": "bob", "metadata": { "user_id": 7 } }));
        assert_eq!(
            (session.metadata_user, session.client_reference),
            (UserNames::default(), UserNames::from_iter(["bob"]))
        );
    }

    #[test]
    fn a_page_with_more_to_come_is_not_all_lines() {
        let lines = |has_more| {
            let data = json!([{ "price": { "id": "price_1" }, "quantity": 2 }, { "price": "price_2", "quantity": 0 }]);
            completed(json!({ "line_items": { "object": "list", "has_more": has_more, "data": data } })).lines
        };
        assert_eq!(lines(true), None);
        let quantity = Quantity::new(2);
        assert_eq!(
            lines(false),
            Some(vec![LineItem { item: Item::Price("price_1".into()), quantity, named_as: None }])
        );
    }

    #[test]
    fn a_session_without_created_counts_from_its_event() {
        let session = completed(json!({ "created": null }));
        assert_eq!(Some(session.created), calendar::from_unix(1_700_000_100));
    }

    #[test]
    fn a_reconciled_session_is_an_event_under_its_own_key() {
        let session = json!({
            "id": "cs_1", "object": "checkout.session", "mode": "payment", "payment_status": "paid",
            "livemode": true, "created": 5,
        });
        let as_of = calendar::from_unix(99).expect("a time");
        let event = read(&reconciliation(&session.to_string(), as_of).expect("a session")).expect("an event");
        assert_eq!((event.id.as_str(), event.livemode), ("reconcile_credit_pack:cs_1", true));
        assert_eq!(event.created, as_of);
        for wrong in [json!([]), json!({ "id": "cs_1" }), json!({ "object": "invoice", "id": "in_1" })] {
            assert!(reconciliation(&wrong.to_string(), as_of).is_err(), "{wrong}");
        }
    }

    #[test]
    fn something_is_read_from_every_type_that_is_requested() {
        for event_type in TYPES {
            let object = match event_type {
                "invoice_payment.paid" => {
                    json!({ "invoice": "in_1", "payment": { "payment_intent": "pi_1" } })
                }
                _ => json!({}),
            };
            let event = json!({ "id": "evt_1", "type": event_type, "created": 1, "livemode": false, "data": { "object": object } });
            let subject = read(&event.to_string()).map(|event| event.subject);
            assert_ne!(subject, Ok(Subject::Other), "{event_type}");
        }
    }

    #[test]
    fn an_object_of_a_list_is_an_event_under_its_own_key() {
        let as_of = calendar::from_unix(99).expect("a time");
        let event = |object: &Value| read(&backfill(&object.to_string(), as_of, true)?);
        let invoice =
            json!({ "id": "in_1", "object": "invoice", "status": "paid", "livemode": true, "created": 5 });
        let refund = json!({ "id": "re_1", "object": "refund", "amount": 5, "payment_intent": "pi_1" });
        let dispute = json!({ "id": "du_1", "object": "dispute", "amount": 5, "status": "lost" });
        for (object, id) in [(&invoice, "in_1"), (&refund, "re_1"), (&dispute, "du_1")] {
            let event = event(object).expect("an event");
            assert_eq!((event.id, event.created, event.livemode), (format!("backfill:{id}"), as_of, true));
            assert_ne!(event.subject, Subject::Other);
        }
        assert!(event(&invoice).expect("an event").is_backfill());
        for wrong in [json!([]), json!({ "id": "cs_1" }), json!({ "object": "charge", "id": "ch_1" })] {
            assert!(event(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn metadata_of_any_kind_is_read() {
        let user = "11111111-1111-4111-8111-111111111111";
        for metadata in
            [json!([]), json!([user]), json!("x"), json!(7), json!(null), json!({ "user_id": [user] })]
        {
            assert_eq!(
                completed(json!({ "metadata": metadata })).metadata_user,
                UserNames::default(),
                "{metadata}"
            );
        }
        let odd = completed(json!({ "metadata": { "user_id": user, "a": [1], "b": { "c": null }, "d": 7 } }));
        assert_eq!(odd.metadata_user, UserNames::from_iter([user]));
    }

    #[test]
    fn an_invoice_is_decided_under_the_locks_of_every_subscription_that_it_bills() {
        let line = |subscription: &str| json!({ "amount": 5, "subscription": subscription });
        let object = json!({ "id": "in_1", "object": "invoice", "status": "paid", "subscription": "sub_1",
                             "lines": { "data": [line("sub_3"), line("sub_2"), line("sub_3"), {}] } });
        let event = json!({ "id": "evt_1", "type": "invoice.paid", "created": 1, "livemode": false,
                            "data": { "object": object } });
        let event = read(&event.to_string()).expect("an event");
        assert_eq!(event.subject.keys().sources, ["in_1", "sub_1", "sub_2", "sub_3"]);
    }

    #[test]
    fn a_test_clock_says_its_time() {
        let clock = |happening: &str, frozen_time: Value| {
            let object =
                json!({ "id": "clock_1", "object": "test_helpers.test_clock", "frozen_time": frozen_time });
            let event_type = format!("test_helpers.test_clock.{happening}");
            let event = json!({ "id": "evt_1", "type": event_type, "created": 1, "livemode": false,
                                "data": { "object": object } });
            read(&event.to_string()).map(|event| event.subject)
        };
        for happening in ["created", "advancing", "ready"] {
            let subject = clock(happening, 1_700_000_000.into()).expect("a clock");
            assert_eq!(subject.keys().sources, ["clock_1"]);
            let frozen_time = calendar::from_unix(1_700_000_000).expect("a time");
            assert_eq!(subject, Subject::TestClock { id: "clock_1".into(), frozen_time });
        }
        assert_eq!(clock("deleted", 1_700_000_000.into()), Ok(Subject::Other));
        for time in [json!(null), json!("now"), json!(-1)] {
            assert!(clock("ready", time.clone()).is_err(), "{time}");
        }
    }

    #[test]
    fn a_malformed_event_keeps_the_id_it_can_be_recorded_under() {
        let id = |text: &str| read(text).expect_err("malformed").event_id;
        assert_eq!(id(r#"{"id": "evt_1"}"#), Some("evt_1".into()));
        assert_eq!(id(r#"{"id": "evt_1", "type": "x", "created": "yesterday"}"#), Some("evt_1".into()));
        for nameless in ["", "null", "[]", "7", r#"{"type": "x"}"#, r#"{"id": " "}"#, r#"{"id": 7}"#] {
            assert_eq!(id(nameless), None, "{nameless}");
        }
        assert_eq!(id(&json!({ "id": "e".repeat(MAX_ID_BYTES + 1) }).to_string()), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = read(&text);
        }

        #[test]
        fn no_field_of_another_type_makes_the_reader_panic(
            field in prop::sample::select(vec![
                "id", "mode", "payment_status", "created", "livemode", "customer", "payment_intent", "metadata",
                "client_reference_id", "amount_total", "currency", "line_items",
            ]),
            value in prop::sample::select(vec![
                "null", "true", "-1", "1.5", "1e400", "99999999999999999999999999", "\"\"", "\"x\"", "[]", "[[]]", "{}",
                "{\"id\":7}", "{\"data\":[7]}", "{\"data\":[{\"price\":7}]}", "-9223372036854775808",
            ]),
        ) {
            let text = session_event("checkout.session.completed", &json!({ field: "HERE" }));
            let _ = read(&text.replace("\"HERE\"", value));
        }
    }
}

//! A Stripe event in the shim: its text, as Postgres can store it, and the fields of its envelope that logs and metrics need. The
//! database interprets `data`. An event is authentic because its body was signed or because Stripe's API returned it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use stripe_credits_rules::calendar;
use stripe_credits_rules::event::{self as rules, Malformed};
use stripe_credits_rules::jsonb::storable;
use stripe_credits_rules::stripe::MAX_ID_BYTES;
use thiserror::Error;

use crate::config::StripeMode;
use crate::limits::Party;
use crate::signature::Verified;

/// An authentic event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    text: String,
    envelope: Envelope,
    ids: ObjectIds,
    parties: Vec<Party>,
}

/// The ids that the event's object has and names, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ObjectIds {
    pub(crate) session: Option<String>,
    pub(crate) payment_intent: Option<String>,
    pub(crate) customer: Option<String>,
    pub(crate) subscription: Option<String>,
    pub(crate) invoice: Option<String>,
}

/// The event without its data.
#[derive(Debug, Clone, Serialize)]
struct Envelope {
    id: String,
    object: &'static str,
    #[serde(rename = "type")]
    event_type: String,
    created: Option<i64>,
    livemode: Option<bool>,
    api_version: Option<String>,
    account: Option<String>,
}

/// The text is not a Stripe event; why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the body is not a Stripe event: {0}")]
pub(crate) struct MalformedEvent(String);

impl Event {
    /// Reads a webhook's body: a JSON object, in UTF-8, with an id and a type.
    pub(crate) fn parse(body: Verified) -> Result<Self, MalformedEvent> {
        Self::read(std::str::from_utf8(&body.into_body()).map_err(|_| malformed("it is not UTF-8"))?)
    }

    /// An event object returned by Stripe's API.
    pub(crate) fn from_api(event: &RawValue) -> Result<Self, MalformedEvent> {
        Self::read(event.get())
    }

    /// An event stored in the inbox.
    pub(crate) fn from_inbox(text: &str) -> Result<Self, MalformedEvent> {
        Self::read(text)
    }

    /// The synthetic event of a checkout session as of a time of Stripe's clock: the one that reconciling it makes.
    pub(crate) fn from_session(session: &RawValue, as_of: u64) -> Result<Self, MalformedEvent> {
        Self::synthetic(rules::reconciliation(session.get(), time(as_of)?))
    }

    /// The synthetic event of a subscription, an invoice, a refund or a dispute as of a time of Stripe's clock. Its
    /// mode is that of the key that read the object, because not every object has one.
    pub(crate) fn from_object(
        object: &RawValue,
        as_of: u64,
        mode: StripeMode,
    ) -> Result<Self, MalformedEvent> {
        Self::synthetic(rules::backfill(object.get(), time(as_of)?, mode == StripeMode::Live))
    }

    /// The event that will say what an object has become at a time of Stripe's clock, before it has.
    pub(crate) fn preview(
        object: &Value,
        event_type: &str,
        as_of: u64,
        mode: StripeMode,
    ) -> Result<Self, MalformedEvent> {
        Self::synthetic(rules::preview(
            &object.to_string(),
            event_type,
            time(as_of)?,
            mode == StripeMode::Live,
        ))
    }

    fn synthetic(event: Result<String, Malformed>) -> Result<Self, MalformedEvent> {
        Self::read(&event.map_err(|fault| malformed(&fault.to_string()))?)
    }

    fn read(text: &str) -> Result<Self, MalformedEvent> {
        if text.starts_with('\u{feff}') {
            return Err(malformed("it begins with a byte order mark"));
        }
        // serde reads a struct from an array as well.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed("it is not a JSON object"));
        }
        let fields: Fields = serde_json::from_str(text).map_err(|fault| malformed(&fault.to_string()))?;
        check_name("id", &fields.id)?;
        check_name("type", &fields.event_type)?;
        let object = fields.data.and_then(|data| serde_json::from_str(data.get()).ok());
        let object = object.map(|data: Data| data.object).unwrap_or_default();
        let ids = object.ids();
        let parties = object.parties(ids.customer.clone());
        let envelope = fields.envelope();
        Ok(Self { text: storable(text).into_owned(), envelope, ids, parties })
    }

    /// The event's JSON as Stripe wrote it, but for escapes that Postgres cannot store.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The event without its data, to record one that Postgres cannot store.
    pub(crate) fn without_data(&self) -> Self {
        let text = serde_json::to_string(&self.envelope).expect("strings and numbers are JSON");
        Self { text, ..self.clone() }
    }

    /// Stripe's id of the event, `evt_…`.
    pub(crate) fn id(&self) -> &str {
        &self.envelope.id
    }

    /// The event's type, such as `checkout.session.completed`.
    pub(crate) fn event_type(&self) -> &str {
        &self.envelope.event_type
    }

    /// The event's age in seconds at `now`; none if it has no valid `created`.
    pub(crate) fn age(&self, now: u64) -> Option<u64> {
        self.envelope.created.map(|created| now.saturating_sub(u64::try_from(created).unwrap_or(0)))
    }

    /// The customer and the users that the object names, as far as that can be told here; for turns only.
    pub(crate) fn parties(&self) -> Vec<Party> {
        self.parties.clone()
    }

    /// The ids that the event's object has and names.
    pub(crate) fn ids(&self) -> &ObjectIds {
        &self.ids
    }
}

/// The keys of the event; a duplicate is an error. All but id and type stay raw, whatever they are: the database
/// rejects a malformed one, and records that.
#[derive(Deserialize)]
struct Fields<'a> {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    created: Option<&'a RawValue>,
    livemode: Option<&'a RawValue>,
    api_version: Option<&'a RawValue>,
    account: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: DataObject<'a>,
}

#[derive(Default, Deserialize)]
struct DataObject<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    object: Option<&'a RawValue>,
    payment_intent: Option<&'a RawValue>,
    customer: Option<&'a RawValue>,
    subscription: Option<&'a RawValue>,
    invoice: Option<&'a RawValue>,
    latest_invoice: Option<&'a RawValue>,
    /// Of an invoice since 2025-03-31: whence it is.
    parent: Option<&'a RawValue>,
    client_reference_id: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

/// An object of Stripe's that was expanded where its id stood.
#[derive(Deserialize)]
struct Expanded {
    id: String,
}

/// The parent of a subscription's invoice.
#[derive(Deserialize)]
struct Parent<'a> {
    #[serde(borrow)]
    subscription_details: SubscriptionDetails<'a>,
}

#[derive(Deserialize)]
struct SubscriptionDetails<'a> {
    #[serde(borrow)]
    subscription: Option<&'a RawValue>,
}

/// The metadata by which most apps name their user.
#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

impl DataObject<'_> {
    fn ids(&self) -> ObjectIds {
        let parent = self.parent.and_then(|parent| serde_json::from_str::<Parent>(parent.get()).ok());
        let parent = parent.and_then(|parent| parent.subscription_details.subscription);
        let mut ids = ObjectIds {
            session: None,
            payment_intent: id_of(self.payment_intent),
            customer: id_of(self.customer),
            subscription: id_of(self.subscription).or_else(|| id_of(parent)),
            invoice: id_of(self.invoice).or_else(|| id_of(self.latest_invoice)),
        };
        let own = match typed::<String>(self.object).as_deref() {
            Some("checkout.session") => &mut ids.session,
            Some("payment_intent") => &mut ids.payment_intent,
            Some("customer") => &mut ids.customer,
            Some("subscription") => &mut ids.subscription,
            Some("invoice") => &mut ids.invoice,
            _ => return ids,
        };
        *own = typed(self.id);
        ids
    }

    fn parties(&self, customer: Option<String>) -> Vec<Party> {
        let in_metadata = typed::<Metadata>(self.metadata).and_then(|metadata| metadata.user_id);
        let users = [typed(self.client_reference_id), in_metadata].into_iter().flatten().map(Party::User);
        let named: Vec<Party> = customer.map(Party::Customer).into_iter().chain(users).collect();
        if named.is_empty() { vec![Party::Unnamed] } else { named }
    }
}

impl Fields<'_> {
    fn envelope(self) -> Envelope {
        // jsonb cannot store a NUL.
        let text = |field| typed::<String>(field).filter(|text| !text.contains('\0'));
        Envelope {
            object: "event",
            created: typed(self.created),
            livemode: typed(self.livemode),
            api_version: text(self.api_version),
            account: text(self.account),
            id: self.id,
            event_type: self.event_type,
        }
    }
}

/// The field as a `T`, if it is one.
fn typed<T: DeserializeOwned>(field: Option<&RawValue>) -> Option<T> {
    field.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// The id that a field is, or that the object has which was expanded there.
fn id_of(field: Option<&RawValue>) -> Option<String> {
    typed(field).or_else(|| typed::<Expanded>(field).map(|object| object.id))
}

fn time(as_of: u64) -> Result<calendar::Time, MalformedEvent> {
    let seconds = i64::try_from(as_of).ok();
    seconds.and_then(calendar::from_unix).ok_or_else(|| malformed("Stripe's clock is not a time"))
}

fn check_name(field: &str, name: &str) -> Result<(), MalformedEvent> {
    if name.trim().is_empty() {
        return Err(malformed(&format!("its {field} is blank")));
    }
    if name.len() > MAX_ID_BYTES {
        return Err(malformed(&format!("its {field} is longer than {MAX_ID_BYTES} bytes")));
    }
    if name.contains(char::is_control) {
        return Err(malformed(&format!("its {field} holds a control character")));
    }
    Ok(())
}

fn malformed(fault: &str) -> MalformedEvent {
    MalformedEvent(fault.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::tests::verified;

    fn parse(body: &[u8]) -> Result<Event, MalformedEvent> {
        Event::parse(verified(body))
    }

    fn fault(body: &[u8]) -> String {
        parse(body).unwrap_err().0
    }

    #[test]
    fn an_event_keeps_its_text_and_names_its_session() {
        let body = br#" {"id":"evt_1","type":"checkout.session.completed","x":[1.50, {}],
            "data":{"object":{"id":"cs_1","object":"checkout.session","payment_intent":"pi_1"}}} "#;
        let event = parse(body).unwrap();
        assert_eq!(event.text().as_bytes(), body);
        assert_eq!((event.id(), event.event_type()), ("evt_1", "checkout.session.completed"));
        assert_eq!(
            (event.ids().session.as_deref(), event.ids().payment_intent.as_deref()),
            (Some("cs_1"), Some("pi_1"))
        );
    }

    #[test]
    fn an_event_is_as_old_as_it_says() {
        let age = |created: &str| {
            parse(format!(r#"{{"id":"evt_1","type":"t","created":{created}}}"#).as_bytes()).unwrap().age(100)
        };
        assert_eq!((age("40"), age("100"), age("160")), (Some(60), Some(0), Some(0)));
        assert_eq!((age("-5"), age("\"40\""), age("null")), (Some(100), None, None));
    }

    #[test]
    fn an_object_is_known_by_its_own_id_and_by_those_that_it_names_expanded_or_not() {
        let of = |object: &str| {
            let event = format!(r#"{{"id":"evt_1","type":"t","data":{{"object":{object}}}}}"#);
            let ObjectIds { session, payment_intent, customer, subscription, invoice } =
                parse(event.as_bytes()).unwrap().ids;
            [session, payment_intent, customer, subscription, invoice]
                .map(Option::unwrap_or_default)
                .join(" ")
        };
        assert_eq!(of(r#"{"id":"pi_1","object":"payment_intent","customer":"cus_1"}"#), " pi_1 cus_1  ");
        assert_eq!(of(r#"{"id":"re_1","object":"refund","payment_intent":{"id":"pi_1"}}"#), " pi_1   ");
        assert_eq!(
            of(r#"{"id":"sub_1","object":"subscription","customer":"cus_1","latest_invoice":{"id":"in_1"}}"#),
            "  cus_1 sub_1 in_1"
        );
        assert_eq!(
            of(r#"{"id":"in_1","object":"invoice","customer":"cus_1","subscription":"sub_1"}"#),
            "  cus_1 sub_1 in_1"
        );
        assert_eq!(
            of(r#"{"id":"in_1","object":"invoice","customer":{"id":"cus_1"},
                "parent":{"subscription_details":{"subscription":"sub_1"}}}"#),
            "  cus_1 sub_1 in_1"
        );
        assert_eq!(of(r#"{"id":"cus_1","object":"customer","customer":"cus_2"}"#), "  cus_1  ");
        assert_eq!(of("null"), "    ");
        assert_eq!(of(r#"{"id":7,"object":[],"parent":7,"invoice":[]}"#), "    ");
    }

    #[test]
    fn what_is_not_an_event_is_rejected_with_its_fault() {
        assert_eq!(fault(b"\xff{}"), "it is not UTF-8");
        assert_eq!(fault("\u{feff}{}".as_bytes()), "it begins with a byte order mark");
        assert_eq!(fault(br#"["evt_1","t",null,null,null,null,null]"#), "it is not a JSON object");
        assert_eq!(fault(b""), "it is not a JSON object");
        assert!(fault(b"{not json").contains("key must be a string"));
        assert!(fault(br#"{"id":"evt_1","type":"t"} {}"#).contains("trailing characters"));
        assert!(fault(br#"{"type":"t"}"#).contains("missing field `id`"));
        assert!(fault(br#"{"id":"evt_1"}"#).contains("missing field `type`"));
        assert!(fault(br#"{"id":7,"type":"t"}"#).contains("expected a string"));
        assert_eq!(fault(br#"{"id":" ","type":"t"}"#), "its id is blank");
        assert_eq!(fault(br#"{"id":"evt_1","type":""}"#), "its type is blank");
        assert_eq!(fault(br#"{"id":"evt\u0000","type":"t"}"#), "its id holds a control character");
        let long = format!(r#"{{"id":"{}","type":"t"}}"#, "e".repeat(MAX_ID_BYTES + 1));
        assert!(fault(long.as_bytes()).contains("longer than"));
    }

    #[test]
    fn a_duplicate_envelope_key_is_rejected() {
        for key in ["id", "type", "created", "livemode", "api_version", "account", "data"] {
            let body = format!(r#"{{"id":"evt_1","type":"t","{key}":"1","{key}":"2"}}"#);
            assert!(fault(body.as_bytes()).contains("duplicate field"), "{key}");
        }
        assert!(fault(br#"{"id":"evt_1","\u0069d":"evt_2","type":"t"}"#).contains("duplicate field"));
    }

    #[test]
    fn without_its_data_an_event_keeps_what_is_safe_to_store() {
        let body = br#"{"id":"evt_1","type":"t","created":5,"livemode":true,"api_version":"2020-08-27",
            "account":"acct\u0000","data":{"object":{"id":"cs_1","note":"\u0000"}}}"#;
        let record: serde_json::Value =
            serde_json::from_str(parse(body).unwrap().without_data().text()).unwrap();
        let expected = serde_json::json!({"id": "evt_1", "object": "event", "type": "t", "created": 5, "livemode": true,
            "api_version": "2020-08-27", "account": null});
        assert_eq!(record, expected);
    }

    #[test]
    fn a_hundred_thousand_levels_of_nesting_do_not_overflow_the_stack() {
        let depth = 100_000;
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for body in [
            format!(r#"{{"id":"evt_1","type":"t","data":{nested}}}"#),
            format!(r#"{{"id":"evt_1","type":"t","data":{{"object":{{"payment_intent":{nested}}}}}}}"#),
            format!(r#"{{"id":"evt_1","type":"t","created":{nested},"other":{nested}}}"#),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap().text(), body);
        }
    }
}

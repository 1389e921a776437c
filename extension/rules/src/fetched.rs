//! What Stripe answered when it was asked for what an event lacks.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::calendar;
use crate::event::{Malformed, RECONCILE_SESSION};
use crate::invoice::{self, InvoiceLine, InvoicePayment};
use crate::session::{self, LineItem, Session};
use crate::stripe;
use crate::subscription::{self, Subscription};

/// What Stripe answered when it was asked for what an event lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Whether Stripe was asked: `{}` says that nobody could.
    asked: bool,
    /// LineItem items by the session they are of.
    line_items: Vec<(String, Vec<LineItem>)>,
    /// Sessions, whole.
    sessions: Vec<Session>,
    /// Subscriptions, whole.
    subscriptions: Vec<Subscription>,
    /// Lines by the invoice they are of.
    invoice_lines: Vec<(String, Vec<InvoiceLine>)>,
    /// Which payment intents paid which invoices.
    invoice_payments: Vec<InvoicePayment>,
}

impl Fetched {
    /// Reads `{"as_of": …, "objects": […]}`. `{}` is an answer too: nobody could ask.
    ///
    /// # Errors
    /// [`Malformed`] where it is not of that shape. Objects of kinds that the rules do not know are read past.
    pub fn read(text: &str) -> Result<Fetched, Malformed> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            as_of: Option<i64>,
            #[serde(borrow, default)]
            objects: Vec<&'a RawValue>,
        }
        let answer: Answer =
            serde_json::from_str(text).map_err(|e| Malformed::unnamed(format!("fetched: {e}")))?;
        let as_of = answer.as_of.and_then(calendar::from_unix).unwrap_or_default();
        let asked = answer.as_of.is_some() || !answer.objects.is_empty();
        let mut fetched = Fetched { asked, ..Fetched::default() };
        for (index, object) in answer.objects.into_iter().enumerate() {
            let place =
                |e: &dyn std::fmt::Display| Malformed::unnamed(format!("fetched.objects[{index}]: {e}"));
            let any: stripe::AnyObject = serde_json::from_str(object.get()).map_err(|e| place(&e))?;
            let of_session = any.url.as_deref().and_then(session::of_line_items);
            let of_invoice = any.url.as_deref().and_then(invoice::of_lines);
            match (any.object.as_deref(), of_session, of_invoice) {
                (Some("checkout.session"), ..) => {
                    let session = session::read(object, RECONCILE_SESSION, as_of).map_err(|e| place(&e))?;
                    fetched.sessions.push(session);
                }
                (Some("subscription"), ..) => {
                    fetched.subscriptions.push(subscription::read(object, as_of).map_err(|e| place(&e))?);
                }
                (Some("list"), Some(session_id), _) => {
                    let list = serde_json::from_str(object.get()).map_err(|e| place(&e))?;
                    if let Some(lines) = session::complete(list) {
                        fetched.line_items.push((session_id.to_owned(), lines));
                    }
                }
                (Some("list"), _, Some(invoice_id)) => {
                    let list = serde_json::from_str(object.get()).map_err(|e| place(&e))?;
                    if let Some(lines) = invoice::complete(list) {
                        fetched.invoice_lines.push((invoice_id.to_owned(), lines));
                    }
                }
                (Some("list"), ..) if any.url.as_deref() == Some(invoice::PAYMENTS) => {
                    let list: stripe::List<&RawValue> =
                        serde_json::from_str(object.get()).map_err(|e| place(&e))?;
                    for payment in list.data {
                        let payment = invoice::read_payment(payment).map_err(|e| place(&e))?;
                        fetched.invoice_payments.extend(payment);
                    }
                }
                _ => {}
            }
        }
        Ok(fetched)
    }

    /// Whether Stripe was asked at all.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked
    }

    /// All line items of a session, where Stripe named all of them.
    #[must_use]
    pub fn lines_of(&self, session_id: &str) -> Option<&[LineItem]> {
        self.line_items
            .iter()
            .find(|(id, _)| id == session_id)
            .map(|(_, lines)| lines.as_slice())
            .or_else(|| self.session(session_id)?.lines.as_deref())
    }

    /// A subscription as Stripe has it now.
    #[must_use]
    pub fn subscription(&self, subscription_id: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.id == subscription_id)
    }

    /// All lines of an invoice that bill something, where Stripe named all of them.
    #[must_use]
    pub fn invoice_lines_of(&self, invoice_id: &str) -> Option<&[InvoiceLine]> {
        let of = self.invoice_lines.iter().find(|(id, _)| id == invoice_id);
        of.map(|(_, lines)| lines.as_slice())
    }

    /// Which invoices were paid by which payment intents.
    #[must_use]
    pub fn invoice_payments(&self) -> &[InvoicePayment] {
        &self.invoice_payments
    }

    /// A session as Stripe has it now.
    #[must_use]
    pub fn session(&self, session_id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == session_id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stripe_answered_is_found_by_the_session_it_is_of() {
        let list = json!({
            "object": "list", "url": "/v1/checkout/sessions/cs_1/line_items", "has_more": false,
            "data": [{ "price": { "id": "price_1" }, "quantity": 3 }],
        });
        let text =
            json!({ "as_of": 9, "objects": [{ "object": "customer", "id": "cus_1" }, list] }).to_string();
        let fetched = Fetched::read(&text).expect("an answer");
        assert_eq!(fetched.lines_of("cs_1").map(<[LineItem]>::len), Some(1));
        assert_eq!(fetched.lines_of("cs_2"), None);
        assert_eq!(Fetched::read("{}"), Ok(Fetched::default()));
        let payment = |invoice: &str| {
            json!({ "object": "invoice_payment", "invoice": invoice,
                    "payment": { "type": "payment_intent", "payment_intent": "pi_1" } })
        };
        let list = json!({ "object": "list", "url": "/v1/invoice_payments", "has_more": false,
                           "data": [payment("in_1"), { "invoice": "in_2", "payment": { "type": "charge" } }] });
        let text = json!({ "as_of": 9, "objects": [list] }).to_string();
        let fetched = Fetched::read(&text).expect("an answer");
        let paid_by =
            fetched.invoice_payments().iter().map(|p| (p.invoice_id.as_str(), p.payment_intent_id.as_str()));
        assert_eq!(paid_by.collect::<Vec<_>>(), [("in_1", "pi_1")]);
        assert!(Fetched::read(r#"{"objects": 1}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = Fetched::read(&text);
        }
    }
}

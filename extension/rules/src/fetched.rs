//! What the caller fetched from Stripe because an event lacks it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::calendar::{self, Time};
use crate::event::{Malformed, RECONCILE_SESSION};
use crate::invoice::{self, Invoice, InvoiceLine, InvoicePayment};
use crate::name::{Name, NameKind};
use crate::reversal::{self, Reversals};
use crate::session::{self, LineItem, Session};
use crate::stripe::fields::Fields;
use crate::stripe::{self, List};
use crate::subscription::{self, Subscription, SubscriptionItem};
use crate::user::UserNames;

/// What the caller fetched from Stripe because an event lacks it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// `{}` means that the caller cannot fetch.
    was_fetched: bool,
    /// By session.
    line_items: Vec<(String, Vec<LineItem>)>,
    sessions: Vec<Session>,
    subscriptions: Vec<Subscription>,
    /// By invoice.
    invoice_lines: Vec<(String, Vec<InvoiceLine>)>,
    invoice_payments: Vec<InvoicePayment>,
    charges: Vec<Reversals>,
    accounts: Vec<CustomerAccount>,
    as_of: Time,
}

/// In Accounts v2, a customer: whom the server names as its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerAccount {
    /// `acct_…`.
    pub id: String,
    /// By its metadata.
    pub metadata_user: UserNames,
}

/// The path to fetch for a customer of whom no event says whom the server names as its user; `None` if events do.
#[must_use]
pub fn customer_path(customer_id: &str) -> Option<String> {
    stripe::account_path(customer_id)
}

impl Fetched {
    /// Reads `{"as_of": …, "objects": […]}`, or `{}` if the caller cannot fetch.
    ///
    /// # Errors
    /// [`Malformed`] if it is not of that shape. Objects that the rules do not know are ignored.
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
        let was_fetched = answer.as_of.is_some() || !answer.objects.is_empty();
        let mut fetched = Fetched { was_fetched, as_of, ..Fetched::default() };
        let mut items: BTreeMap<String, Vec<SubscriptionItem>> = BTreeMap::new();
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
                (Some("charge"), ..) => {
                    fetched.charges.push(reversal::read_charge(object, as_of).map_err(|e| place(&e))?);
                }
                (Some("subscription"), ..) => {
                    fetched.subscriptions.push(subscription::read(object, as_of).map_err(|e| place(&e))?);
                }
                (Some("v2.core.account"), ..) => {
                    let account: stripe::AccountObject = stripe::parse(object).map_err(|e| place(&e))?;
                    let metadata_user = stripe::metadata_user(&account.metadata.unwrap_or_default());
                    fetched.accounts.push(CustomerAccount { id: account.id, metadata_user });
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
                (Some("list"), ..) if is_list_of(&any, subscription::ITEMS) => {
                    let list = serde_json::from_str(object.get()).map_err(|e| place(&e))?;
                    items.extend(by_subscription(list));
                }
                (Some("list"), ..) if is_list_of(&any, session::SESSIONS) => {
                    let list: List<&RawValue> = serde_json::from_str(object.get()).map_err(|e| place(&e))?;
                    for session in list.data {
                        let session =
                            session::read(session, RECONCILE_SESSION, as_of).map_err(|e| place(&e))?;
                        fetched.sessions.push(session);
                    }
                }
                (Some("list"), ..) if is_list_of(&any, invoice::PAYMENTS) => {
                    let list: List<&RawValue> = serde_json::from_str(object.get()).map_err(|e| place(&e))?;
                    for payment in list.data {
                        let payment = invoice::read_payment(payment).map_err(|e| place(&e))?;
                        fetched.invoice_payments.extend(payment);
                    }
                }
                _ => {}
            }
        }
        for subscription in &mut fetched.subscriptions {
            if let Some(items) = items.remove(&subscription.id).filter(|_| !subscription.has_all_items) {
                *subscription = subscription.clone().with_items(items);
            }
        }
        Ok(fetched)
    }

    /// Whether the caller fetched anything, even if Stripe has nothing of it.
    #[must_use]
    pub fn was_fetched(&self) -> bool {
        self.was_fetched
    }

    /// A session's line items, if all of them were fetched.
    #[must_use]
    pub fn lines_of(&self, session_id: &str) -> Option<&[LineItem]> {
        self.line_items
            .iter()
            .find(|(id, _)| id == session_id)
            .map(|(_, lines)| lines.as_slice())
            .or_else(|| self.session(session_id)?.lines.as_deref())
    }

    /// A subscription in its current state.
    #[must_use]
    pub fn subscription(&self, subscription_id: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.id == subscription_id)
    }

    /// Every line of an invoice, if all of them were fetched: then they stand, since Stripe's answer is newer than any event.
    /// Of two complete answers the later one.
    #[must_use]
    pub fn invoice_lines_of(&self, invoice: &Invoice) -> Option<Vec<InvoiceLine>> {
        let (_, lines) = self.invoice_lines.iter().rfind(|(id, _)| *id == invoice.id)?;
        Some(invoice::of_subscription(lines.clone(), invoice.subscription_id.as_deref()))
    }

    /// The names that Stripe has for the payment of a payment intent or a charge.
    #[must_use]
    pub fn names_of(&self, id: &str) -> Vec<Name<'_>> {
        let sessions = self.sessions.iter().map(Session::names);
        let invoices = self.invoice_payments.iter().map(InvoicePayment::names);
        let charges = self.charges.iter().map(Reversals::names);
        let groups = sessions.chain(invoices).chain(charges);
        let of_it = groups.filter(|names| {
            let named = |name: &Name| {
                matches!(name.kind, NameKind::PaymentIntent | NameKind::Charge) && name.id == id
            };
            names.iter().any(named)
        });
        of_it.flatten().collect()
    }

    /// Every name of a payment in the answer.
    #[must_use]
    pub fn names(&self) -> Vec<Name<'_>> {
        let sessions = self.sessions.iter().flat_map(Session::names);
        let invoices = self.invoice_payments.iter().flat_map(InvoicePayment::names);
        sessions.chain(invoices).chain(self.charges.iter().flat_map(Reversals::names)).collect()
    }

    /// The charges, with what was refunded of them.
    #[must_use]
    pub fn charges(&self) -> &[Reversals] {
        &self.charges
    }

    /// The customers that are accounts.
    #[must_use]
    pub fn accounts(&self) -> &[CustomerAccount] {
        &self.accounts
    }

    /// When Stripe answered.
    #[must_use]
    pub fn as_of(&self) -> Time {
        self.as_of
    }

    /// A session in its current state.
    #[must_use]
    pub fn session(&self, session_id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == session_id)
    }
}

/// Whether a list was read from this path. Stripe repeats the query in some lists' urls.
fn is_list_of(list: &stripe::AnyObject, path: &str) -> bool {
    list.url.as_deref().is_some_and(|url| url.split('?').next() == Some(path))
}

/// The items of a list by the subscription that each names, if this page is all of it.
fn by_subscription(list: List<&RawValue>) -> BTreeMap<String, Vec<SubscriptionItem>> {
    let mut items: BTreeMap<String, Vec<SubscriptionItem>> = BTreeMap::new();
    for item in list.data.into_iter().filter(|_| !list.has_more) {
        if let Some(subscription_id) = Fields::of(item).id("subscription") {
            items.entry(subscription_id).or_default().push(subscription::item(item));
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn fetched_lines_are_found_by_their_session() {
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
        let names = |id| fetched.names_of(id).iter().map(|name| name.id).collect::<Vec<_>>();
        assert_eq!(names("pi_1"), ["in_1", "pi_1"]);
        assert!(names("pi_2").is_empty() && names("in_1").is_empty());
        assert_eq!(fetched.names().len(), 2);
        assert!(Fetched::read(r#"{"objects": 1}"#).is_err());
    }

    fn answer(objects: &[serde_json::Value]) -> Fetched {
        Fetched::read(&json!({ "as_of": 9, "objects": objects }).to_string()).expect("an answer")
    }

    fn invoice(fields: &serde_json::Value) -> Invoice {
        let mut object = json!({ "id": "in_1", "object": "invoice", "status": "paid" });
        for (key, value) in fields.as_object().expect("an object") {
            object[key] = value.clone();
        }
        invoice::read(&serde_json::value::to_raw_value(&object).expect("JSON")).expect("an invoice")
    }

    #[test]
    fn the_last_complete_answer_says_every_line_of_an_invoice() {
        let list = |amounts: &[i64], has_more: bool| {
            let data: Vec<_> = amounts.iter().map(|amount| json!({ "amount": amount })).collect();
            json!({ "object": "list", "url": "/v1/invoices/in_1/lines", "has_more": has_more, "data": data })
        };
        let amounts = |fetched: &Fetched| {
            let lines = fetched.invoice_lines_of(&invoice(&json!({ "subscription": "sub_1" })))?;
            assert!(lines.iter().all(|line| line.subscription_id.as_deref() == Some("sub_1")));
            Some(lines.iter().filter_map(|line| line.amount).map(|amount| amount.0).collect::<Vec<_>>())
        };
        assert_eq!(amounts(&answer(&[list(&[5, 0, -3], false)])), Some(vec![5, 0, -3]));
        let twice = [list(&[1], false), list(&[2], false), list(&[3], true)];
        assert_eq!(amounts(&answer(&twice)), Some(vec![2]), "the page is not all of it");
        assert_eq!(amounts(&answer(&[list(&[3], true)])), None);
    }

    #[test]
    fn a_subscription_whose_items_go_on_has_those_that_were_listed() {
        let item = |id: &str, end: i64| {
            json!({ "id": id, "subscription": "sub_1", "price": "price_1", "current_period_start": 1,
                    "current_period_end": end })
        };
        let subscription = |has_more: bool| {
            json!({ "object": "subscription", "id": "sub_1", "status": "active",
                    "items": { "has_more": has_more, "data": [item("si_1", 2)] } })
        };
        let list = |url: &str, has_more: bool| json!({ "object": "list", "url": url, "has_more": has_more, "data": [item("si_1", 2), item("si_2", 3)] });
        let url = "/v1/subscription_items";
        for url in [url, "/v1/subscription_items?subscription=sub_1"] {
            for objects in [[subscription(true), list(url, false)], [list(url, false), subscription(true)]] {
                let fetched = answer(&objects);
                let read = fetched.subscription("sub_1").expect("it was fetched");
                assert_eq!((read.items.len(), read.has_all_items), (2, true), "{url}");
                assert_eq!(read.period, calendar::from_unix(1).zip(calendar::from_unix(3)));
            }
        }
        for objects in
            [[subscription(true), list(url, true)], [subscription(true), json!({ "object": "list" })]]
        {
            let fetched = answer(&objects);
            assert!(!fetched.subscription("sub_1").expect("it was fetched").has_all_items);
        }
        let whole = answer(&[subscription(false), list(url, false)]);
        assert_eq!(
            whole.subscription("sub_1").map(|read| read.items.len()),
            Some(1),
            "its own list is whole"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = Fetched::read(&text);
        }
    }
}

//! Stripe's objects as JSON, in both shapes of its API: the fields that billing depends on, and some others.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::line::{Line, LineKind, Source};
use super::payment::{InvoiceStatus, Payment};
use super::price::Price;
use super::reversal::{NoteWay, Reversal, ReversalKind};
use super::settings::{Api, Settings};
use super::subscription::{BillingMode, Item, Subscription};

/// Writes objects of one customer.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) api: Api,
    pub(super) tag: String,
    pub(super) user_id: String,
    pub(super) has_test_clock: bool,
    /// Which invoice each line is on, by its number.
    pub(super) invoice_of_line: BTreeMap<u32, String>,
}

/// The coupon of every discount.
const DISCOUNT: &str = "di_1";

impl Objects {
    pub(super) fn new(settings: &Settings) -> Objects {
        Objects {
            api: settings.api,
            tag: settings.tag.clone(),
            user_id: settings.user_id.clone(),
            has_test_clock: settings.has_test_clock,
            invoice_of_line: BTreeMap::new(),
        }
    }

    pub(super) fn id(&self, prefix: &str, number: impl std::fmt::Display) -> String {
        format!("{prefix}_{}_{number}", self.tag)
    }

    fn customer(&self) -> String {
        format!("cus_{}", self.tag)
    }

    /// The payment intent of an invoice or session.
    pub(super) fn payment_intent(payment_id: &str) -> String {
        format!("pi_{payment_id}")
    }

    /// The charge of an invoice or session.
    pub(super) fn charge_id(payment_id: &str) -> String {
        format!("ch_{payment_id}")
    }

    fn test_clock_id(&self) -> Value {
        if self.has_test_clock { json!(format!("clock_{}", self.tag)) } else { Value::Null }
    }

    fn user_metadata(&self) -> Value {
        json!({"user_id": self.user_id})
    }

    /// An event's envelope.
    pub(super) fn event(&self, number: &str, created: i64, event_type: &str, object: &Value) -> Value {
        let version = match self.api {
            Api::Older => "2024-06-20",
            Api::Current => "2025-08-27.basil",
        };
        json!({
            "id": self.id("evt", number), "object": "event", "api_version": version, "created": created,
            "data": {"object": object}, "livemode": false, "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null}, "type": event_type,
        })
    }

    pub(super) fn test_clock(&self, created: i64, now: i64) -> Value {
        json!({"id": self.test_clock_id(), "object": "test_helpers.test_clock", "created": created,
               "frozen_time": now, "livemode": false, "name": null, "status": "ready"})
    }

    pub(super) fn subscription(&self, subscription: &Subscription) -> Value {
        let items: Vec<Value> =
            subscription.items.iter().map(|item| self.item(&subscription.id, item)).collect();
        let discounted = subscription.percent_off > 0;
        let mut object = json!({
            "id": subscription.id, "object": "subscription", "status": subscription.status.name(),
            "customer": self.customer(), "currency": "usd", "created": subscription.created,
            "start_date": subscription.created, "livemode": false, "metadata": self.user_metadata(),
            "billing_cycle_anchor": subscription.anchor, "cancel_at": subscription.cancel_at,
            "cancel_at_period_end": subscription.cancel_at_period_end, "canceled_at": subscription.canceled_at,
            "ended_at": subscription.ended_at, "trial_end": subscription.trial_end,
            "trial_start": subscription.trial_end.map(|_| subscription.created),
            "discounts": if discounted { json!([DISCOUNT]) } else { json!([]) },
            "latest_invoice": null, "schedule": null, "test_clock": self.test_clock_id(),
            "pause_collection": subscription.voids_invoices.then(|| json!({"behavior": "void", "resumes_at": null})),
            "items": {"object": "list", "data": items, "has_more": false},
        });
        match self.api {
            Api::Older => {
                object["current_period_start"] = json!(subscription.items[0].start);
                object["current_period_end"] = json!(subscription.items[0].end);
                object["discount"] =
                    if discounted { discount(subscription.percent_off) } else { Value::Null };
            }
            Api::Current => {
                let mode = match subscription.mode {
                    BillingMode::Classic => "classic",
                    BillingMode::Flexible => "flexible",
                };
                object["billing_mode"] = json!({"type": mode});
            }
        }
        object
    }

    fn item(&self, subscription_id: &str, item: &Item) -> Value {
        let mut object = json!({
            "id": item.id, "object": "subscription_item", "subscription": subscription_id, "quantity": item.quantity,
            "metadata": {}, "price": price(item.price),
        });
        if self.api == Api::Current {
            object["current_period_start"] = json!(item.start);
            object["current_period_end"] = json!(item.end);
        }
        object
    }

    pub(super) fn invoice(&self, payment: &Payment) -> Value {
        let lines: Vec<Value> = payment.lines.iter().map(|line| self.line(line)).collect();
        let is_paid = payment.status == InvoiceStatus::Paid;
        let is_open = payment.status == InvoiceStatus::Open;
        let count = lines.len();
        let discounts: i64 = payment.lines.iter().map(|line| line.discount).sum();
        let mut object = json!({
            "id": payment.id, "object": "invoice", "billing_reason": payment.billing_reason,
            "created": payment.created, "currency": "usd", "customer": self.customer(), "livemode": false,
            "collection_method": "charge_automatically", "metadata": {}, "status": payment.status.name(),
            "attempted": true, "attempt_count": 1, "amount_due": payment.due,
            "amount_paid": if is_paid { payment.due } else { 0 },
            "amount_remaining": if is_open { payment.due } else { 0 },
            "starting_balance": -payment.credit_before, "ending_balance": -payment.credit_after,
            "subtotal": payment.lines.iter().map(|line| line.amount).sum::<i64>(), "total": payment.total,
            "total_discount_amounts": discount_amounts(discounts),
            "pre_payment_credit_notes_amount": payment.noted_before,
            "post_payment_credit_notes_amount": payment.noted_after,
            "discounts": if payment.is_discounted { json!([DISCOUNT]) } else { json!([]) },
            "period_start": payment.created, "period_end": payment.created,
            "test_clock": self.test_clock_id(),
            "status_transitions": {"finalized_at": payment.created, "marked_uncollectible_at": null,
                                   "paid_at": payment.paid_at, "voided_at": null},
            "lines": {"object": "list", "data": lines, "has_more": false, "total_count": count,
                      "url": format!("/v1/invoices/{}/lines", payment.id)},
        });
        self.payment_of_invoice(payment, &mut object);
        object
    }

    /// What paid an invoice and what it is of: where the two shapes differ.
    fn payment_of_invoice(&self, payment: &Payment, object: &mut Value) {
        let metadata = self.user_metadata();
        if self.api == Api::Current {
            object["parent"] = payment.subscription.as_ref().map_or(Value::Null, |id| {
                json!({"type": "subscription_details", "quote_details": null,
                       "subscription_details": {"metadata": metadata, "subscription": id}})
            });
        } else {
            let by_card = payment.status == InvoiceStatus::Paid && payment.due > 0;
            object["subscription"] = json!(payment.subscription);
            object["subscription_details"] = match payment.subscription {
                Some(_) => json!({"metadata": metadata}),
                None => Value::Null,
            };
            object["paid"] = json!(payment.status == InvoiceStatus::Paid);
            object["paid_out_of_band"] = json!(false);
            object["payment_intent"] = json!((payment.due > 0).then(|| Self::payment_intent(&payment.id)));
            object["charge"] = json!(by_card.then(|| Self::charge_id(&payment.id)));
        }
        if payment.subscription.is_none() {
            object["metadata"] = self.user_metadata();
        }
    }

    fn line(&self, line: &Line) -> Value {
        let mut object = json!({
            "id": self.id("il", line.number), "object": "line_item", "amount": line.amount, "currency": "usd",
            "description": null, "livemode": false, "quantity": line.quantity, "metadata": {},
            "period": {"start": line.start, "end": line.end}, "discount_amounts": discount_amounts(line.discount),
        });
        let credited = match &line.kind {
            LineKind::Credit(Some(number)) => json!({
                "invoice": self.invoice_of_line.get(number),
                "invoice_line_items": [self.id("il", number)],
            }),
            _ => Value::Null,
        };
        let invoice_item = (line.is_proration || line.source.is_none()).then(|| self.id("ii", line.number));
        let (subscription, item) = match &line.source {
            Some(Source { subscription, item }) => (Some(subscription), Some(item)),
            None => (None, None),
        };
        let origin = json!({
            "invoice_item": invoice_item, "proration": line.is_proration,
            "proration_details": {"credited_items": credited}, "subscription": subscription,
            "subscription_item": item,
        });
        let fields = match self.api {
            Api::Older => json!({
                "price": price(line.price), "proration": line.is_proration,
                "proration_details": origin["proration_details"], "subscription": subscription,
                "subscription_item": item, "invoice_item": invoice_item,
                "type": if invoice_item.is_some() { "invoiceitem" } else { "subscription" },
            }),
            Api::Current => json!({
                "pricing": {"type": "price_details", "unit_amount_decimal": line.price.cents.to_string(),
                            "price_details": {"price": line.price.id, "product": product(line.price)}},
                "parent": parent_of_line(origin, item.is_some()),
            }),
        };
        merge(&mut object, fields);
        object
    }

    /// Since 2025-03-31 an invoice does not name its payment intent; this object does.
    pub(super) fn invoice_payment(payment: &Payment) -> Value {
        json!({
            "id": format!("inpay_{}", payment.id), "object": "invoice_payment", "amount_paid": payment.due,
            "amount_requested": payment.due, "created": payment.created, "currency": "usd", "invoice": payment.id,
            "is_default": true, "livemode": false, "status": "paid",
            "payment": {"type": "payment_intent", "payment_intent": Self::payment_intent(&payment.id)},
            "status_transitions": {"canceled_at": null, "paid_at": payment.paid_at},
        })
    }

    /// A session that sold one pack price; its metadata names the price, so that no line has to be fetched.
    pub(super) fn session(&self, payment: &Payment) -> Value {
        let line = &payment.lines[0];
        json!({
            "id": payment.id, "object": "checkout.session", "amount_total": payment.total,
            "amount_subtotal": payment.total, "created": payment.created, "currency": "usd",
            "customer": self.customer(), "client_reference_id": null, "livemode": false, "mode": "payment",
            "payment_status": "paid", "status": "complete", "payment_intent": Self::payment_intent(&payment.id),
            "subscription": null, "invoice": null,
            "metadata": {"user_id": self.user_id, "price_id": line.price.id,
                         "quantity": line.quantity.to_string(), "fixed_lines": "true"},
        })
    }

    /// A charge as it is after refunds.
    pub(super) fn charge(&self, payment: &Payment, refunded: i64) -> Value {
        let mut object = json!({
            "id": Self::charge_id(&payment.id), "object": "charge", "amount": payment.due,
            "amount_captured": payment.due, "amount_refunded": refunded, "captured": true,
            "created": payment.created, "currency": "usd", "customer": self.customer(), "livemode": false,
            "metadata": {}, "paid": true, "payment_intent": Self::payment_intent(&payment.id),
            "refunded": refunded == payment.due, "status": "succeeded",
        });
        if self.api == Api::Older {
            object["invoice"] = json!(payment.subscription.as_ref().map(|_| &payment.id));
        }
        object
    }

    pub(super) fn reversal(&self, reversal: &Reversal) -> Value {
        let mut object = json!({
            "id": reversal.id, "object": reversal.kind.object(), "amount": reversal.amount, "currency": "usd",
            "created": reversal.created, "livemode": false, "metadata": {}, "status": reversal.status,
        });
        let fields = match reversal.kind {
            ReversalKind::Refund => json!({
                "reason": null, "charge": Self::charge_id(&reversal.payment),
                "payment_intent": Self::payment_intent(&reversal.payment),
            }),
            ReversalKind::Dispute => json!({
                "reason": "general", "is_charge_refundable": false, "charge": Self::charge_id(&reversal.payment),
                "payment_intent": Self::payment_intent(&reversal.payment),
                "balance_transactions": Self::dispute_transactions(reversal),
            }),
            ReversalKind::CreditNoteBefore | ReversalKind::CreditNoteAfter => self.credit_note(reversal),
        };
        merge(&mut object, fields);
        object
    }

    /// The money's way out of the merchant's balance at Stripe, and back.
    fn dispute_transactions(dispute: &Reversal) -> Value {
        let transaction = |way: &str, amount: i64, fee: i64, category: &str| {
            json!({"id": format!("txn_{way}_{}", dispute.id), "object": "balance_transaction", "amount": amount,
                   "fee": fee, "net": amount - fee, "currency": "usd", "type": "adjustment",
                   "reporting_category": category, "source": dispute.id})
        };
        let mut transactions = Vec::new();
        if dispute.is_withdrawn {
            transactions.push(transaction("out", -dispute.amount, 1500, "dispute"));
        }
        if dispute.is_undone {
            transactions.push(transaction("in", dispute.amount, 0, "dispute_reversal"));
        }
        Value::Array(transactions)
    }

    fn credit_note(&self, note: &Reversal) -> Value {
        let is_before = note.kind == ReversalKind::CreditNoteBefore;
        let after = if is_before { 0 } else { note.amount };
        let mut fields = json!({
            "invoice": note.payment, "customer": self.customer(), "total": note.amount, "subtotal": note.amount,
            "discount_amount": 0, "memo": null, "voided_at": null,
            "type": if is_before { "pre_payment" } else { "post_payment" },
            "customer_balance_transaction": (note.way == Some(NoteWay::Credit)).then(|| format!("cbtxn_{}", note.id)),
            "out_of_band_amount": if note.way == Some(NoteWay::ByHand) { after } else { 0 },
        });
        let refund = note.refund.as_ref();
        match self.api {
            Api::Older => fields["refund"] = json!(refund),
            Api::Current => {
                let refunds = refund.map(|id| {
                    json!({"type": "refund", "refund": id, "amount_refunded": after,
                                                     "payment_record_refund": null})
                });
                fields["refunds"] = json!(refunds.into_iter().collect::<Vec<_>>());
                fields["pre_payment_amount"] = json!(note.amount - after);
                fields["post_payment_amount"] = json!(after);
            }
        }
        fields
    }
}

fn product(price: &Price) -> String {
    format!("prod_{}", price.id)
}

fn price(price: &Price) -> Value {
    let recurring = if price.months == 0 {
        Value::Null
    } else {
        let (interval, count) = price.interval();
        json!({"interval": interval, "interval_count": count, "usage_type": "licensed"})
    };
    json!({"id": price.id, "object": "price", "currency": "usd", "unit_amount": price.cents,
           "product": product(price), "recurring": recurring,
           "type": if price.months == 0 { "one_time" } else { "recurring" }})
}

fn discount(percent_off: i64) -> Value {
    json!({"id": DISCOUNT, "object": "discount",
           "coupon": {"id": "coupon_1", "object": "coupon", "duration": "forever", "percent_off": percent_off}})
}

fn discount_amounts(cents: i64) -> Value {
    if cents > 0 { json!([{"amount": cents, "discount": DISCOUNT}]) } else { json!([]) }
}

/// The newer place of a line's origin.
fn parent_of_line(mut origin: Value, has_item: bool) -> Value {
    if has_item {
        return json!({"type": "subscription_item_details", "invoice_item_details": null,
                      "subscription_item_details": origin});
    }
    if let Some(fields) = origin.as_object_mut() {
        fields.remove("subscription_item");
    }
    json!({"type": "invoice_item_details", "invoice_item_details": origin, "subscription_item_details": null})
}

/// Adds `fields` to `object`.
fn merge(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

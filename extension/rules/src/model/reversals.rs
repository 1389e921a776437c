//! Refunds, disputes and credit notes, as Stripe says them (rule 5).

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{first_id, id, integer, list};

#[derive(Debug, Clone, Default)]
pub(super) struct Refund {
    pub(super) payment: Vec<String>,
    pub(super) charge: Option<String>,
    pub(super) amount: i64,
    pub(super) created: i64,
    pub(super) as_of: i64,
    /// When it first was failed or canceled.
    pub(super) failed_at: Option<i64>,
}

impl Refund {
    pub(super) fn learn(&mut self, object: &Value, as_of: i64) {
        self.payment.extend([&object["charge"], &object["payment_intent"]].into_iter().filter_map(id));
        self.charge = id(&object["charge"]).or(self.charge.take());
        if as_of >= self.as_of {
            self.as_of = as_of;
            self.amount = integer(&object["amount"]).unwrap_or(self.amount);
        }
        self.created = integer(&object["created"]).unwrap_or(as_of);
        if ["failed", "canceled"].contains(&object["status"].as_str().unwrap_or_default()) {
            self.failed_at = Some(self.failed_at.map_or(as_of, |known| known.min(as_of)));
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dispute {
    pub(super) payment: Vec<String>,
    pub(super) amount: i64,
    pub(super) currency: Option<String>,
    /// Whether the funds were withdrawn, by the time of the event: "the later `created` deciding".
    pub(super) funds: BTreeMap<i64, bool>,
    /// The same by status alone, which counts where nothing tells of the funds.
    pub(super) status: BTreeMap<i64, bool>,
}

impl Dispute {
    /// "By funds, not by status: withdrawn (`funds_withdrawn`, or balance_transactions; without either, a status of
    /// needs_response, under_review, lost) and not reinstated (`funds_reinstated`, won)."
    pub(super) fn learn(&mut self, event: &Value, as_of: i64) {
        let object = &event["data"]["object"];
        self.payment.extend([&object["charge"], &object["payment_intent"]].into_iter().filter_map(id));
        self.amount = integer(&object["amount"]).unwrap_or(self.amount);
        self.currency = object["currency"].as_str().map(str::to_owned).or(self.currency.take());
        let moved = list(&object["balance_transactions"]);
        let status = object["status"].as_str().unwrap_or_default();
        let event_type = event["type"].as_str().unwrap_or_default();
        if event_type == "charge.dispute.funds_withdrawn" {
            self.funds.insert(as_of, true);
        } else if event_type == "charge.dispute.funds_reinstated" || status == "won" {
            self.funds.insert(as_of, false);
        } else if !moved.is_empty() {
            let sum: i64 = moved.iter().filter_map(|transaction| integer(&transaction["amount"])).sum();
            self.funds.insert(as_of, sum < 0);
        } else {
            self.status.insert(as_of, ["needs_response", "under_review", "lost"].contains(&status));
        }
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        let known = if self.funds.is_empty() { &self.status } else { &self.funds };
        known.last_key_value().is_some_and(|(_, is_withdrawn)| *is_withdrawn)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct CreditNote {
    pub(super) invoice: Option<String>,
    pub(super) as_of: i64,
    pub(super) is_void: bool,
    pub(super) pre_payment: Option<i64>,
    pub(super) post_payment: Option<i64>,
    pub(super) total: i64,
    pub(super) is_pre_payment: bool,
    /// The older shape's one refund.
    pub(super) refund: Option<String>,
    /// What the newer shape's refunds amount to.
    pub(super) refunded: Option<i64>,
}

impl CreditNote {
    pub(super) fn learn(&mut self, object: &Value, as_of: i64) {
        self.is_void |= object["status"].as_str() == Some("void");
        if as_of < self.as_of {
            return;
        }
        self.as_of = as_of;
        self.invoice = id(&object["invoice"]);
        self.pre_payment = integer(&object["pre_payment_amount"]);
        self.post_payment = integer(&object["post_payment_amount"]);
        self.total = integer(&object["total"]).or(integer(&object["amount"])).unwrap_or(0);
        self.is_pre_payment = object["type"].as_str() == Some("pre_payment");
        self.refund = first_id(&[&object["refund"]]);
        let refunds = object["refunds"].as_array();
        self.refunded = refunds
            .filter(|refunds| !refunds.is_empty())
            .map(|refunds| refunds.iter().filter_map(|refund| integer(&refund["amount_refunded"])).sum());
    }
}

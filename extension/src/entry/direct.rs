//! Payments and subscriptions that a caller states by SQL: the same as their events', whichever come first.

use serde_json::json;
use stripe_credits_rules::amount::{Credits, Quantity};
use stripe_credits_rules::calendar::{SubsecRound, Time};
use stripe_credits_rules::catalog::Item;
use stripe_credits_rules::event::Keys;
use stripe_credits_rules::invoice::{Charge, Invoice, InvoiceLine};
use stripe_credits_rules::lot::{NewGrant, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::{self as rules, Status};
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{Account, Origin};
use crate::outcome::Outcome;
use crate::parked;
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::pack::Purchase;
use crate::posting::subscription::{Incoming, Word};
use crate::posting::{invoice, pack, subscription};
use crate::tables::payments::{self, Said};
use crate::tables::{catalog, customers, subscriptions};

/// The item of a purchase that names neither price nor pack.
const UNNAMED_PACK: &str = "credit_pack";

/// A credit pack that was bought, by the caller's statement.
pub(crate) struct DirectPurchase {
    pub(crate) user: Uuid,
    /// What the caller says that it is worth.
    pub(crate) credits: Credits,
    pub(crate) event_id: String,
    pub(crate) session_id: String,
    pub(crate) payment_intent_id: Option<String>,
    pub(crate) customer_id: Option<String>,
    pub(crate) price_id: Option<String>,
    pub(crate) pack: Option<String>,
}

/// Applies a purchase: one payment with its webhook and its reconcile.
pub(crate) fn purchase(sql: &mut Sql, call: &DirectPurchase) -> Outcome {
    let (session_id, payment_intent_id) = (call.session_id.as_str(), call.payment_intent_id.as_deref());
    let customer_id = call.customer_id.as_deref();
    locks::catalog_shared();
    let keys = Keys {
        sources: vec![session_id],
        payment_intents: payment_intent_id.into_iter().collect(),
        ..Keys::default()
    };
    let waiting = parked::lock_with_parked(sql, customer_id, &keys);
    let known = payments::of_source(sql, session_id, payment_intent_id);
    let paid = known.as_ref().filter(|payment| payment.paid);
    if paid.is_some_and(|payment| payment.user != call.user) {
        return Outcome::rejected(Reason::Conflict);
    }
    let account = Account::open(sql, call.user);
    if let Some(paid) = paid {
        let granted: i64 = account.held(sql, &paid.source_id).iter().map(|held| held.credits.0).sum();
        if granted != call.credits.0 {
            let outcome = account.close(sql, Verdict::Rejected(Reason::Conflict));
            return outcome.with("granted", granted);
        }
    }
    let purchase = Purchase {
        session_id,
        known: known.as_ref(),
        said: Said { payment_intent_ids: keys.payment_intents.clone(), customer_id, ..Said::default() },
        origin: Origin {
            event_id: Some(&call.event_id),
            session_id: Some(session_id),
            payment_intent_id,
            ..Origin::default()
        },
    };
    let lot = call.lot(sql, account.now());
    let outcome = pack::post(sql, account, &purchase, &[lot]);
    match customer_id {
        Some(customer_id) if customers::link_by_server(sql, customer_id, call.user) => {
            let settings = catalog::settings(sql);
            parked::with_reapplied(sql, settings.as_ref(), &waiting, outcome)
        }
        _ => outcome,
    }
}

impl DirectPurchase {
    /// Worth what the caller says, in the grant that the catalog's price would have.
    fn lot(&self, sql: &mut Sql, now: Time) -> NewGrant {
        let item = match (&self.price_id, &self.pack) {
            (Some(price_id), _) => Some(Item::Price(price_id.clone())),
            (None, Some(pack)) => Some(Item::Pack(pack.clone())),
            (None, None) => None,
        };
        let price = item.and_then(|item| catalog::prices_in_force(sql, [&item], now).remove(&item));
        let (item, name, expires_after) = if let Some(price) = price {
            (price.price_id, price.name, price.expires_after)
        } else {
            let named = self.price_id.as_deref().or(self.pack.as_deref()).unwrap_or(UNNAMED_PACK);
            (named.to_owned(), named.to_owned(), None)
        };
        let lapses_at = expires_after.and_then(|span| span.after(now));
        NewGrant { lapses_at, ..NewGrant::new(item, name, self.credits, Pool::Purchased) }
    }
}

/// A subscription's state, by the caller's statement.
pub(crate) struct DirectState {
    pub(crate) user: Uuid,
    /// What the caller calls the plan. The catalog decides; a difference is reported in the details.
    pub(crate) tier: String,
    pub(crate) customer_id: Option<String>,
    pub(crate) subscription_id: String,
    pub(crate) price_id: String,
    pub(crate) period: (Time, Time),
    pub(crate) event_id: String,
    /// The invoice that paid for the period.
    pub(crate) invoice_id: Option<String>,
    pub(crate) status: Status,
    pub(crate) cancel_at_period_end: bool,
}

/// Applies a subscription's state: one subscription with its events, one payment with the invoice's.
pub(crate) fn subscription_state(sql: &mut Sql, call: &DirectState) -> Outcome {
    let customer_id = call.customer_id.as_deref();
    let invoice_id = call.invoice_id.as_deref();
    locks::catalog_shared();
    let keys = Keys {
        sources: [Some(call.subscription_id.as_str()), invoice_id].into_iter().flatten().collect(),
        invoices: invoice_id.into_iter().collect(),
        ..Keys::default()
    };
    let waiting = parked::lock_with_parked(sql, customer_id, &keys);
    let Some(settings) = catalog::settings(sql) else {
        return Outcome::rejected(Reason::NoCatalog);
    };
    let known = subscriptions::find(sql, &call.subscription_id);
    let payment = invoice_id.and_then(|invoice_id| payments::of_source(sql, invoice_id, None));
    let owners = [known.as_ref().and_then(|known| known.user), payment.map(|payment| payment.user)];
    if owners.into_iter().flatten().any(|owner| owner != call.user) {
        return Outcome::rejected(Reason::Conflict);
    }
    let facts = call.facts();
    let incoming = Incoming { event_id: &call.event_id, facts: &facts, word: Word::Current, fetched: None };
    let (mut outcome, now) = match subscription::apply(sql, &incoming, known.as_ref(), Ok(call.user)) {
        Ok((outcome, now)) => (outcome, Some(now)),
        Err(refusal) => (refusal.into(), known),
    };
    if let Some(now) = now.as_ref().filter(|now| now.tier != call.tier) {
        outcome = outcome.with("discrepancy", json!({ "p_tier": call.tier, "tier": now.tier }));
    }
    if outcome.verdict == Verdict::Parked(Reason::UnknownPrice) {
        // There is no event to park: the caller calls again.
        outcome.verdict = Verdict::Rejected(Reason::UnknownPrice);
    } else if let Some(invoice) = call.invoice() {
        let paid = match invoice::worth(sql, &settings, &invoice, now.as_ref(), None) {
            Ok(worth) => invoice::post(sql, &call.event_id, &invoice, call.user, worth),
            Err(refusal) => refusal.into(),
        };
        outcome = outcome.and_then(paid);
    }
    match customer_id {
        Some(customer_id) if customers::link_by_server(sql, customer_id, call.user) => {
            parked::with_reapplied(sql, Some(&settings), &waiting, outcome)
        }
        _ => outcome,
    }
}

impl DirectState {
    fn facts(&self) -> rules::Subscription {
        rules::Subscription {
            id: self.subscription_id.clone(),
            customer_id: self.customer_id.clone(),
            metadata_user: None,
            items: vec![(self.price_id.clone(), Quantity::ONE)],
            status: self.status,
            period: Some(self.period),
            trial_end: None,
            cancel_at_period_end: self.cancel_at_period_end,
            ended_at: self.status.is_final().then_some(self.period.1),
            // In whole seconds, as Stripe's are: of one second, only Stripe can say what came later.
            as_of: clock().trunc_subsecs(0),
        }
    }

    fn invoice(&self) -> Option<Invoice> {
        let line = InvoiceLine {
            item: Item::Price(self.price_id.clone()),
            quantity: Quantity::ONE,
            charge: Charge::Money,
            period: self.period,
        };
        Some(Invoice {
            id: self.invoice_id.clone()?,
            subscription_id: Some(self.subscription_id.clone()),
            customer_id: self.customer_id.clone(),
            metadata_user: None,
            paid: true,
            paid_at: self.period.0,
            mid_period: false,
            total: None,
            currency: None,
            payment_intent_ids: Vec::new(),
            lines: Some(vec![line]),
        })
    }
}

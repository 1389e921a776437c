//! A payment or a subscription's state by an SQL call: the same as by its events, whichever come first.

use serde_json::json;
use stripe_credits_rules::amount::{Credits, MinorUnits};
use stripe_credits_rules::calendar::{SubsecRound, Time};
use stripe_credits_rules::catalog::Item;
use stripe_credits_rules::event::Keys;
use stripe_credits_rules::invoice::{Invoice, InvoiceLine, LineQuantity};
use stripe_credits_rules::lot::{Evidence, NewGrant, Pool};
use stripe_credits_rules::name::{Name, NameKind};
use stripe_credits_rules::price::LinePrice;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::{self as rules, Status, SubscriptionItem};
use stripe_credits_rules::user::UserNames;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{self, Account, Origin};
use crate::outcome::Outcome;
use crate::parked::{self, Locked};
use crate::payment;
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::pack::Purchase;
use crate::posting::subscription::{Incoming, Source};
use crate::posting::{invoice, pack, subscription};
use crate::tables::payments::{self, PaymentFacts, SourceType};
use crate::tables::{catalog, customers, subscriptions};

/// The item of a purchase that names neither price nor pack.
const UNNAMED_PACK: &str = "credit_pack";

/// A credit pack that was paid, as the caller states it.
pub(crate) struct DirectPurchase {
    pub(crate) user: Uuid,
    /// As the caller states them: the catalog is not asked.
    pub(crate) credits: Credits,
    pub(crate) event_id: String,
    pub(crate) session_id: String,
    pub(crate) payment_intent_id: Option<String>,
    pub(crate) customer_id: Option<String>,
    pub(crate) price_id: Option<String>,
    pub(crate) pack: Option<String>,
}

/// Applies a purchase: one payment with its webhook's and its reconcile's.
pub(crate) fn purchase(sql: &mut Sql, call: &DirectPurchase) -> Outcome {
    let (session_id, payment_intent_id) = (call.session_id.as_str(), call.payment_intent_id.as_deref());
    let customer_id = call.customer_id.as_deref();
    locks::catalog_shared();
    let intent = payment_intent_id.map(|id| Name { kind: NameKind::PaymentIntent, id });
    let names: Vec<Name> =
        [Name { kind: NameKind::CheckoutSession, id: session_id }].into_iter().chain(intent).collect();
    let keys = Keys { sources: vec![session_id], names: names.iter().map(|name| name.id).collect() };
    let Locked { parked, known } =
        parked::lock_with_parked(sql, customer_id.as_slice(), &keys, |_| Vec::new());
    let paid = known.payment(session_id, &names).filter(|payment| payment.paid);
    if paid.is_some_and(|payment| payment.user != call.user) {
        return Outcome::rejected(Reason::Conflict);
    }
    let worth = paid.and_then(|payment| payment.worth).map(|(_, worth)| worth);
    if let Some(worth) = worth.filter(|worth| *worth != call.credits) {
        let balances = ledger::balances(sql, call.user);
        let outcome = Outcome { user: Some(call.user), balances, ..Outcome::rejected(Reason::Conflict) };
        return outcome.with("granted", worth.0);
    }
    let joined = payment::join(sql, &known, Some(session_id), &names);
    payment::take_back_first(sql, &call.event_id, &joined.duplicates);
    let account = Account::open(sql, call.user);
    let purchase = Purchase {
        source_type: SourceType::CheckoutSession,
        source_id: session_id,
        joined: &joined,
        facts: PaymentFacts { customer_id, ..PaymentFacts::default() },
        evidence: Evidence::Lines,
        bought_at: account.now(),
        origin: Origin {
            event_id: Some(&call.event_id),
            session_id: Some(session_id),
            payment_intent_id,
            ..Origin::default()
        },
    };
    let grant = call.grant(sql, account.now());
    let outcome = pack::post(sql, account, &purchase, &[grant]);
    match customer_id {
        Some(customer_id) if customers::link_by_server(sql, customer_id, call.user) => {
            let settings = catalog::settings(sql);
            let judged_from = clock();
            let outcome = parked::with_reapplied(sql, settings.as_ref(), &parked, outcome);
            parked::leave_the_rest_due(sql, customer_id, &parked, judged_from);
            outcome
        }
        _ => outcome,
    }
}

impl DirectPurchase {
    /// A grant with the caller's credits, and the item and the expiry of the catalog's price.
    fn grant(&self, sql: &mut Sql, now: Time) -> NewGrant {
        let item = match (&self.price_id, &self.pack) {
            (Some(price_id), _) => Some(Item::Price(price_id.clone())),
            (None, Some(pack)) => Some(Item::Pack(pack.clone())),
            (None, None) => None,
        };
        let price = item.and_then(|item| catalog::prices_sold_once(sql, [&item], now).remove(&item));
        let (item, name, expires_after) = if let Some(price) = price {
            (price.price_id, price.name, price.expires_after)
        } else {
            let named = self.price_id.as_deref().or(self.pack.as_deref()).unwrap_or(UNNAMED_PACK);
            (named.to_owned(), named.to_owned(), None)
        };
        let expires_at = expires_after.and_then(|span| span.after(now));
        NewGrant { expires_at, ..NewGrant::new(item, name, self.credits, Pool::Purchased) }
    }
}

/// A subscription's state, as the caller states it.
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
    /// Whether the period was paid for, by whichever invoice.
    pub(crate) resets_usage: bool,
    pub(crate) status: Status,
    pub(crate) cancel_at_period_end: bool,
}

/// Applies a subscription's state: one subscription with its events', and one payment with its invoice's.
pub(crate) fn subscription_state(sql: &mut Sql, call: &DirectState) -> Outcome {
    let customer_id = call.customer_id.as_deref();
    let invoice_id = call.invoice_id.as_deref();
    locks::catalog_shared();
    let source_id = call.source_id();
    let keys = Keys {
        sources: [Some(call.subscription_id.as_str()), source_id.as_deref()].into_iter().flatten().collect(),
        names: invoice_id.into_iter().collect(),
    };
    let Locked { parked, known: known_names } =
        parked::lock_with_parked(sql, customer_id.as_slice(), &keys, |_| Vec::new());
    let Some(settings) = catalog::settings(sql) else {
        return Outcome::rejected(Reason::NoCatalog);
    };
    let known = subscriptions::find(sql, &call.subscription_id);
    let payment = invoice_id.and_then(|invoice_id| known_names.payment(invoice_id, &[]));
    let owners = [known.as_ref().and_then(|known| known.user), payment.map(|payment| payment.user)];
    if owners.into_iter().flatten().any(|owner| owner != call.user) {
        return Outcome::rejected(Reason::Conflict);
    }
    if let Some(id) = invoice_id {
        // One name joins no two payments.
        payment::join(sql, &known_names, Some(id), &[Name { kind: NameKind::Invoice, id }]);
    }
    let facts = call.facts();
    let incoming =
        Incoming { event_id: &call.event_id, facts: &facts, source: Source::Snapshot, fetched: None };
    let (mut outcome, now) = match subscription::apply(sql, &incoming, known.as_ref(), Ok(call.user)) {
        Ok((outcome, now)) => (outcome, Some(now)),
        Err(no_grant) => (no_grant.into(), known),
    };
    if let Some(now) = now.as_ref().filter(|now| now.tier != call.tier) {
        outcome = outcome.with("discrepancy", json!({ "p_tier": call.tier, "tier": now.tier }));
    }
    if outcome.verdict == Verdict::Parked(Reason::UnknownPrice) {
        // There is no event to park: the caller calls again.
        outcome.verdict = Verdict::Rejected(Reason::UnknownPrice);
    } else if let Some(invoice) = call.invoice() {
        let paid = match settings.scope.excludes_payment(call.period.0) {
            Some(reason) => Outcome::ignored(reason),
            None => call.paid(sql, &invoice),
        };
        outcome = outcome.and_then(paid);
    }
    match customer_id {
        Some(customer_id) if customers::link_by_server(sql, customer_id, call.user) => {
            let judged_from = clock();
            let outcome = parked::with_reapplied(sql, Some(&settings), &parked, outcome);
            parked::leave_the_rest_due(sql, customer_id, &parked, judged_from);
            outcome
        }
        _ => outcome,
    }
}

impl DirectState {
    fn paid(&self, sql: &mut Sql, invoice: &Invoice) -> Outcome {
        let lines = invoice.lines.clone().unwrap_or_default();
        let sorted = match invoice::sort(sql, &lines, self.period.0) {
            Ok(sorted) => sorted,
            Err(no_grant) => return no_grant.into(),
        };
        let known = payments::of_source(sql, &invoice.id);
        let paid = invoice::Paid {
            event_id: &self.event_id,
            invoice,
            lines,
            sorted,
            paid_at: self.period.0,
            listed_at: None,
            is_direct: self.invoice_id.is_none(),
            duplicates: &[],
        };
        invoice::post(sql, &paid, known.as_ref(), self.user)
    }

    /// The key of the payment: the invoice's, or one of its own that an invoice's line of the same subscription, price and
    /// period replaces.
    fn source_id(&self) -> Option<String> {
        let own = || {
            let start = self.period.0.timestamp();
            format!("direct:{}:{}:{start}", self.subscription_id, self.price_id)
        };
        self.invoice_id.clone().or_else(|| self.resets_usage.then(own))
    }

    fn facts(&self) -> rules::Subscription {
        rules::Subscription {
            id: self.subscription_id.clone(),
            customer_id: self.customer_id.clone(),
            metadata_user: UserNames::default(),
            items: vec![SubscriptionItem { id: None, price: Some(self.price()), quantity: 1, period: None }],
            has_all_items: false,
            status: self.status,
            period: Some(self.period),
            trial_end: None,
            cancel_at: None,
            cancel_at_period_end: self.cancel_at_period_end,
            ended_at: self.status.is_final().then_some(self.period.1),
            test_clock: None,
            // In whole seconds, as Stripe's are: of one second, only Stripe can say what came later.
            as_of: clock().trunc_subsecs(0),
        }
    }

    fn price(&self) -> LinePrice {
        LinePrice { id: self.price_id.clone(), product_id: None, interval: None, is_metered: false }
    }

    fn invoice(&self) -> Option<Invoice> {
        let line = InvoiceLine {
            subscription_id: Some(self.subscription_id.clone()),
            item_id: None,
            price: Some(self.price()),
            is_recurring: true,
            quantity: LineQuantity::Whole(1),
            // The call does not say what was paid, only that it was.
            amount: Some(MinorUnits(1)),
            discount: MinorUnits(0),
            period: Some(self.period),
            is_proration: false,
            names_credited: false,
        };
        Some(Invoice {
            id: self.source_id()?,
            subscription_id: Some(self.subscription_id.clone()),
            customer_id: self.customer_id.clone(),
            metadata_user: UserNames::default(),
            paid: true,
            paid_at: Some(self.period.0),
            created: None,
            total: None,
            currency: None,
            payment_intent_ids: Vec::new(),
            charge_ids: Vec::new(),
            is_discounted: false,
            test_clock: None,
            lines: Some(vec![line]),
        })
    }
}

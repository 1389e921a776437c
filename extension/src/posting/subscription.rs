//! A subscription's state, by whichever door it comes in: joined to what is known, and what that makes of the account.

use serde_json::{Value, json};
use stripe_credits_rules::amount::Quantity;
use stripe_credits_rules::calendar::{SubsecRound, Time};
use stripe_credits_rules::catalog::Item;
use stripe_credits_rules::event::Keys;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::identity::{Source, Tie};
use stripe_credits_rules::invoice::{Charge, Invoice, Line};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::{self as rules, Joined, Plan, State, Status};
use stripe_credits_rules::worth::{Refusal, ask};
use uuid::Uuid;

use crate::entry::event as apply;
use crate::ledger::{self, Account};
use crate::outcome::{Outcome, Verdict};
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::invoice;
use crate::posting::pack::close;
use crate::tables::subscriptions::{self, Subscription};
use crate::tables::{catalog, customers, payments};

/// Whose word a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// An event's, of the second in which it was made.
    Event,
    /// Stripe's or a caller's of now: of one second, the last one.
    Current,
}

/// Joins what was said of a subscription, and what Stripe answered about it, to what is known, and carries that into the
/// account of the user whose it is, where that is known. `word` is whose that is: an event's second ties with another's.
/// The caller holds the subscription's lock.
pub(crate) fn apply(
    sql: &mut Sql,
    event_id: &str,
    said: &rules::Subscription,
    word: Word,
    fetched: Option<&Fetched>,
    known: Option<&Subscription>,
    user: Result<Uuid, Reason>,
) -> Result<Outcome, Refusal> {
    let Heard { mut now, plan, stale } = hear(sql, said, word, fetched, known)?;
    if known.is_none() && plan == Plan::None {
        return Err(Refusal::Ignored(Reason::NotCredits));
    }
    now.user = now.user.or(user.ok());
    now.customer_id = now.customer_id.or_else(|| said.customer_id.clone());
    let news = known.is_none_or(|known| {
        let as_of = now.state.as_of;
        *known != now
            && Subscription { state: State { as_of, ..known.state.clone() }, ..known.clone() } != now
    });
    let unknown = match &plan {
        Plan::Unknown(price_id, _) if !stale => Some(Value::from(vec![price_id.as_str()])),
        _ => None,
    };
    let Some(owner) = now.user else {
        subscriptions::save(sql, &said.id, &now, event_id);
        return Err(Refusal::Parked(user.err().unwrap_or(Reason::UnknownUser), Vec::new()));
    };
    let account = ledger::lock(sql, owner);
    if known != Some(&now) {
        subscriptions::save(sql, &said.id, &now, event_id);
    }
    let (account, changed) = carry(sql, account);
    let verdict = match (&unknown, news || changed) {
        (Some(_), _) => Verdict::Parked(Reason::UnknownPrice),
        (None, true) => Verdict::Applied,
        (None, false) if stale => Verdict::Ignored(Reason::Stale),
        (None, false) => Verdict::AlreadyApplied,
    };
    let outcome = close(sql, account, verdict);
    let outcome = outcome.with("tier", now.tier.as_str()).with("status", now.state.status.as_str());
    Ok(match unknown {
        Some(missing) => outcome.with("missing_prices", missing),
        None => outcome,
    })
}

/// Carries what is known of a user's subscriptions into the account: tier, status, and what their lots hold.
pub(crate) fn carry(sql: &mut Sql, mut account: Account) -> (Account, bool) {
    let (tier, status) = subscriptions::tier(sql, account.user());
    let changed = account.subscribed(sql, tier, status);
    account.touch_lots();
    (account, changed)
}

/// What is known of a subscription now.
struct Heard {
    now: Subscription,
    /// What it subscribes to.
    plan: Plan,
    /// Whether what was said was no news.
    stale: bool,
}

fn hear(
    sql: &mut Sql,
    said: &rules::Subscription,
    word: Word,
    fetched: Option<&Fetched>,
    known: Option<&Subscription>,
) -> Result<Heard, Refusal> {
    let answered = fetched.and_then(|fetched| fetched.subscription(&said.id));
    let path = rules::path(&said.id);
    let mut heard: Option<Heard> = None;
    let answer = answered.map(|answered| (answered, Word::Current));
    for (said, word) in [Some((said, word)), answer].into_iter().flatten() {
        let ended = known.filter(|_| said.status.is_final()).map(|known| known.state.period);
        let Some(period) = said.period.or(ended) else { continue };
        let plan = said.plan(&catalog::prices_in_force(sql, &said.priced(), period.0));
        let (price_id, quantity) = plan.priced();
        let state = State {
            as_of: said.as_of,
            status: said.status,
            price_id: price_id.map(str::to_owned),
            quantity,
            period,
            trial_end: said.trial_end,
            cancel_at_period_end: said.cancel_at_period_end,
            ended_at: said.ended_at,
        };
        let before = heard.as_ref().map(|heard| &heard.now).or(known);
        let joined = before.map_or(Joined::Newer, |before| before.state.hear(&state));
        if joined == Joined::Tie && word == Word::Event && fetched.is_none() {
            return Err(Refusal::NeedsFetch(vec![path]));
        }
        let wins = match joined {
            Joined::Newer | Joined::Same => true,
            Joined::Stale => false,
            Joined::Tie if word == Word::Current => true,
            // Stripe's answer comes next, or nobody could ask.
            Joined::Tie => answered.is_none() && before.is_some_and(|before| state.wins_tie(&before.state)),
        };
        if wins {
            let (user, customer_id) =
                before.map_or((None, None), |before| (before.user, before.customer_id.clone()));
            // The same again, said earlier or later, is known as of the later.
            let as_of = before.map_or(state.as_of, |before| before.state.as_of.max(state.as_of));
            let state = if joined == Joined::Same { State { as_of, ..state } } else { state };
            let mut now =
                Subscription { user, customer_id, state, tier: String::new(), rank: None, lot_limit: None };
            now.subscribes_to(&plan);
            heard = Some(Heard { now, plan, stale: false });
        } else if heard.is_none() {
            let now = known.cloned().expect("it was older than something");
            heard = Some(Heard { now, plan, stale: true });
        }
    }
    heard.ok_or_else(|| ask(fetched, path))
}

/// Makes the subscriptions to a price what the catalog says of it now.
pub(crate) fn reprice(sql: &mut Sql, price_id: &str) {
    for subscription_id in subscriptions::to_price(sql, price_id) {
        let Some(known) = subscriptions::find(sql, &subscription_id) else { continue };
        let item = Item::Price(price_id.to_owned());
        let price = catalog::prices_in_force(sql, [&item], known.state.period.0).remove(&item);
        let Some(price) = price else { continue };
        let mut now = known.clone();
        now.subscribes_to(&Plan::of(price, known.state.quantity));
        if now == known {
            continue;
        }
        let account = now.user.map(|user| ledger::lock(sql, user));
        subscriptions::save(sql, &subscription_id, &now, "load_catalog");
        if let Some(account) = account {
            carry(sql, account).0.close(sql);
        }
    }
}

/// A subscription's state by a direct SQL call.
pub(crate) struct DirectState {
    pub(crate) user: Uuid,
    /// What the caller calls the plan: never believed, compared and told.
    pub(crate) tier: String,
    pub(crate) customer_id: Option<String>,
    pub(crate) subscription_id: String,
    pub(crate) price_id: String,
    pub(crate) period: (Time, Time),
    pub(crate) event_id: String,
    /// What paid for the period.
    pub(crate) invoice_id: Option<String>,
    pub(crate) status: Status,
    pub(crate) cancel_at_period_end: bool,
}

/// Applies a direct call: one subscription with its events, one payment with the invoice's.
pub(crate) fn direct(sql: &mut Sql, call: &DirectState) -> Outcome {
    locks::catalog_shared();
    let customer_id = call.customer_id.as_deref();
    let sources = [Some(call.subscription_id.as_str()), call.invoice_id.as_deref()];
    let keys = Keys {
        sources: sources.into_iter().flatten().collect(),
        invoices: call.invoice_id.as_deref().into_iter().collect(),
        ..Keys::default()
    };
    let waiting = apply::lock_payment(sql, customer_id, &keys);
    let Some(settings) = catalog::settings(sql) else {
        return Outcome::of(Verdict::Rejected(Reason::NoCatalog));
    };
    let known = subscriptions::find(sql, &call.subscription_id);
    let invoice = call.invoice_id.as_deref().map(|invoice_id| call.invoice(invoice_id));
    let payment = invoice.as_ref().and_then(|invoice| payments::of_source(sql, &invoice.id, None));
    let owners = [known.as_ref().and_then(|known| known.user), payment.map(|payment| payment.user)];
    if owners.into_iter().flatten().any(|owner| owner != call.user) {
        return Outcome::of(Verdict::Rejected(Reason::Conflict));
    }
    let state =
        self::apply(sql, &call.event_id, &call.said(), Word::Current, None, known.as_ref(), Ok(call.user));
    let mut outcome = state.unwrap_or_else(apply::refusal);
    let now = subscriptions::find(sql, &call.subscription_id);
    if let Some(now) = now.as_ref().filter(|now| now.tier != call.tier) {
        outcome = outcome.with("discrepancy", json!({ "p_tier": call.tier, "tier": now.tier }));
    }
    if outcome.verdict == Verdict::Parked(Reason::UnknownPrice) {
        // There is no event to park: the caller calls again.
        outcome.verdict = Verdict::Rejected(Reason::UnknownPrice);
    } else if let Some(invoice) = invoice {
        let began = outcome;
        outcome = match invoice::worth(sql, &settings, &invoice, now.as_ref(), None) {
            Ok(worth) => invoice::post(sql, &call.event_id, &invoice, call.user, worth),
            Err(refused) => apply::refusal(refused),
        };
        outcome = began.and_then(outcome);
    }
    let Some(customer_id) = customer_id else { return outcome };
    let tie = customers::tie(sql, customer_id);
    let said = Tie { user: call.user, source: Source::Server, as_of: clock() };
    if customers::say(sql, customer_id, tie, said) {
        outcome = apply::follow_into(sql, Some(&settings), &waiting, outcome);
    }
    outcome
}

impl DirectState {
    fn said(&self) -> rules::Subscription {
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

    fn invoice(&self, invoice_id: &str) -> Invoice {
        let line = Line {
            item: Item::Price(self.price_id.clone()),
            quantity: Quantity::ONE,
            charge: Charge::Money,
            period: self.period,
        };
        Invoice {
            id: invoice_id.to_owned(),
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
        }
    }
}

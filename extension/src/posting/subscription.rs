//! A subscription's state: merged with what is known of it, and what that makes of the account.

use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::Item;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::{self as rules, Freshness, Plan, SubscriptionState};
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::{NoGrant, fetch_or_park};
use uuid::Uuid;

use crate::ledger::Account;
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::subscriptions::{self, Subscription};

/// Where a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// An event, of the second in which it was made.
    Event,
    /// What Stripe or a caller says now: the last state of its second.
    Current,
}

/// A subscription's state, as an event or a call brings it.
pub(crate) struct Incoming<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) facts: &'a rules::Subscription,
    pub(crate) word: Word,
    pub(crate) fetched: Option<&'a Fetched>,
}

/// Merges a state, and Stripe's answer about it, with what is known, and carries that into the owner's account if there is an
/// owner. Answers also what is known now. The caller holds the subscription's lock.
pub(crate) fn apply(
    sql: &mut Sql,
    incoming: &Incoming,
    known: Option<&Subscription>,
    user: Result<Uuid, Reason>,
) -> Result<(Outcome, Subscription), NoGrant> {
    let Incoming { event_id, facts, .. } = *incoming;
    let Merged { mut now, plan } = merge(sql, incoming, known)?;
    if known.is_none() && plan == Some(Plan::None) {
        return Err(NoGrant::Ignored(Reason::NotCredits));
    }
    now.user = now.user.or(user.ok());
    now.customer_id = now.customer_id.or_else(|| facts.customer_id.clone());
    let Some(owner) = now.user else {
        subscriptions::save(sql, &facts.id, &now, event_id);
        return Err(NoGrant::Parked(user.err().unwrap_or(Reason::UnknownUser), Vec::new()));
    };
    let account = Account::open(sql, owner);
    if known != Some(&now) {
        subscriptions::save(sql, &facts.id, &now, event_id);
    }
    let (account, account_changed) = carry(sql, account);
    let changed = account_changed || known.is_none_or(|known| known.differs(&now));
    let verdict = match &plan {
        Some(Plan::Unknown(..)) => Verdict::Parked(Reason::UnknownPrice),
        _ if changed => Verdict::Applied,
        None => Verdict::Ignored(Reason::Stale),
        Some(_) => Verdict::AlreadyApplied,
    };
    let outcome = account.close(sql, verdict);
    let outcome = outcome.with("tier", now.tier.as_str()).with("status", now.state.status.as_str());
    let outcome = match plan {
        Some(Plan::Unknown(price_id, _)) => outcome.with("missing_prices", vec![price_id]),
        _ => outcome,
    };
    Ok((outcome, now))
}

/// Carries what is known of a user's subscriptions into the account: tier, status, and what their lots hold. Answers whether
/// tier or status changed.
fn carry(sql: &mut Sql, mut account: Account) -> (Account, bool) {
    let (tier, status) = subscriptions::tier(sql, account.user());
    let changed = account.subscribed(sql, tier, status);
    account.touch_lots();
    (account, changed)
}

/// What is known of a subscription now.
struct Merged {
    now: Subscription,
    /// What it subscribes to; `None` if the incoming state was stale.
    plan: Option<Plan>,
}

/// Merges the incoming state, then Stripe's answer, with what is known.
fn merge(sql: &mut Sql, incoming: &Incoming, known: Option<&Subscription>) -> Result<Merged, NoGrant> {
    let Incoming { facts, word, fetched, .. } = *incoming;
    let answer = fetched.and_then(|fetched| fetched.subscription(&facts.id));
    let mut merged = known.map(|known| Merged { now: known.clone(), plan: None });
    let mut has_period = false;
    let current = answer.map(|answer| (answer, Word::Current));
    for (facts, word) in [Some((facts, word)), current].into_iter().flatten() {
        let ended = known.filter(|_| facts.status.is_final()).map(|known| known.state.period);
        let Some(period) = facts.period.or(ended) else { continue };
        has_period = true;
        let plan = facts.plan(&catalog::prices_in_force(sql, &facts.priced(), period.0));
        let state = state(facts, &plan, period);
        let before = merged.as_ref().map(|merged| &merged.now);
        let joined = before.map_or(Freshness::Newer, |before| before.state.freshness_of(&state));
        let wins = match joined {
            Freshness::Newer | Freshness::Same => true,
            Freshness::Stale => false,
            Freshness::Ambiguous if word == Word::Current => true,
            Freshness::Ambiguous if fetched.is_none() => {
                return Err(NoGrant::NeedsFetch(vec![rules::path(&facts.id)]));
            }
            // Stripe's answer comes next, or nobody could ask.
            Freshness::Ambiguous => {
                answer.is_none() && before.is_some_and(|before| state.outranks(&before.state))
            }
        };
        if wins {
            let mut now = match before {
                // The same state, which is known as of the later time already.
                Some(before) if joined == Freshness::Same => before.clone(),
                Some(before) => Subscription { state, ..before.clone() },
                None => Subscription::new(state),
            };
            now.subscribes_to(&plan);
            merged = Some(Merged { now, plan: Some(plan) });
        }
    }
    merged.filter(|_| has_period).ok_or_else(|| fetch_or_park(fetched, rules::path(&facts.id)))
}

fn state(facts: &rules::Subscription, plan: &Plan, period: (Time, Time)) -> SubscriptionState {
    let (price_id, quantity) = plan.priced();
    SubscriptionState {
        as_of: facts.as_of,
        status: facts.status,
        price_id: price_id.map(str::to_owned),
        quantity,
        period,
        trial_end: facts.trial_end,
        cancel_at_period_end: facts.cancel_at_period_end,
        ended_at: facts.ended_at,
    }
}

/// Updates the subscriptions to a price by what the catalog says of it now.
pub(crate) fn reprice(sql: &mut Sql, price_id: &str) {
    for (subscription_id, known) in subscriptions::to_price(sql, price_id) {
        let item = Item::Price(price_id.to_owned());
        let price = catalog::prices_in_force(sql, [&item], known.state.period.0).remove(&item);
        let Some(price) = price else { continue };
        let mut now = known.clone();
        now.subscribes_to(&Plan::of(price, known.state.quantity));
        if now == known {
            continue;
        }
        let account = now.user.map(|user| Account::open(sql, user));
        subscriptions::save(sql, &subscription_id, &now, "load_catalog");
        if let Some(account) = account {
            let (account, _) = carry(sql, account);
            // What was parked is answered by load_catalog; a changed plan has no outcome of its own.
            let _ = account.close(sql, Verdict::Applied);
        }
    }
}

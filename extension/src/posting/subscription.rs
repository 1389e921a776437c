//! A subscription's state: merged with what is known of it, and what that changes in the account.

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
use crate::tables::subscriptions::{self, KnownSubscription};

/// Where a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// An event, which tells the state at some time of its second.
    Event,
    /// Stripe's API or a caller, which tells the state now: the last one of its second.
    Snapshot,
}

/// A subscription's state, as an event or a call brings it.
pub(crate) struct Incoming<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) facts: &'a rules::Subscription,
    pub(crate) source: Source,
    pub(crate) fetched: Option<&'a Fetched>,
}

/// Merges a state, and Stripe's answer about it, with what is known, and updates the account of the subscription's owner, if it
/// has one. Returns also the state that is known now. The caller holds the subscription's lock.
pub(crate) fn apply(
    sql: &mut Sql,
    incoming: &Incoming,
    known: Option<&KnownSubscription>,
    user: Result<Uuid, Reason>,
) -> Result<(Outcome, KnownSubscription), NoGrant> {
    let Incoming { event_id, facts, .. } = *incoming;
    let Merged { mut now, plan } = merge(sql, incoming, known)?;
    if known.is_none() && plan == Some(Plan::None) {
        return Err(NoGrant::Ignored(Reason::NotCredits));
    }
    let owner = now.user.map_or(user, Ok);
    now.user = owner.ok();
    now.customer_id = now.customer_id.or_else(|| facts.customer_id.clone());
    let owner = match owner {
        Ok(owner) => owner,
        Err(reason) => {
            subscriptions::save(sql, &facts.id, &now, event_id);
            return Err(NoGrant::Parked(reason, Vec::new()));
        }
    };
    let account = Account::open(sql, owner);
    if known != Some(&now) {
        subscriptions::save(sql, &facts.id, &now, event_id);
    }
    let (account, account_changed) = update_account(sql, account);
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

/// Updates an account by what is known of the user's subscriptions. Returns whether tier or status changed.
fn update_account(sql: &mut Sql, mut account: Account) -> (Account, bool) {
    let (tier, status) = subscriptions::tier(sql, account.user());
    let changed = account.set_tier(sql, tier, status);
    account.touch_lots();
    (account, changed)
}

/// The state of a subscription after the merge.
struct Merged {
    now: KnownSubscription,
    /// What it subscribes to; `None` if the incoming state was stale.
    plan: Option<Plan>,
}

/// Merges the incoming state, then Stripe's answer, with what is known.
fn merge(sql: &mut Sql, incoming: &Incoming, known: Option<&KnownSubscription>) -> Result<Merged, NoGrant> {
    let Incoming { facts, source, fetched, .. } = *incoming;
    let answer = fetched.and_then(|fetched| fetched.subscription(&facts.id));
    let mut merged = known.map(|known| Merged { now: known.clone(), plan: None });
    let mut has_period = false;
    let current = answer.map(|answer| (answer, Source::Snapshot));
    for (facts, source) in [Some((facts, source)), current].into_iter().flatten() {
        let ended = known.filter(|_| facts.status.is_final()).map(|known| known.state.period);
        let Some(period) = facts.period.or(ended) else { continue };
        has_period = true;
        let plan = facts.plan(&catalog::prices_in_force(sql, &facts.priced(), period.0));
        let state = state(facts, &plan, period);
        let before = merged.as_ref().map(|merged| &merged.now);
        let freshness = before.map_or(Freshness::Newer, |before| before.state.freshness_of(&state));
        let wins = match freshness {
            Freshness::Newer | Freshness::Same => true,
            Freshness::Stale => false,
            Freshness::Ambiguous if source == Source::Snapshot => true,
            Freshness::Ambiguous if fetched.is_none() => {
                return Err(NoGrant::NeedsFetch(vec![rules::path(&facts.id)]));
            }
            // Stripe's answer comes next, or Stripe could not be asked.
            Freshness::Ambiguous => {
                answer.is_none() && before.is_some_and(|before| state.outranks(&before.state))
            }
        };
        if wins {
            let mut now = match before {
                // The same state, known as of the same time or a later one.
                Some(before) if freshness == Freshness::Same => before.clone(),
                Some(before) => KnownSubscription { state, ..before.clone() },
                None => KnownSubscription::new(state),
            };
            now.set_plan(&plan);
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
        // The table keeps neither items nor `cancel_at`.
        items: Vec::new(),
        cancel_at: None,
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
        now.set_plan(&Plan::of(price, known.state.quantity));
        if now == known {
            continue;
        }
        let account = now.user.map(|user| Account::open(sql, user));
        subscriptions::save(sql, &subscription_id, &now, "load_catalog");
        if let Some(account) = account {
            let (account, _) = update_account(sql, account);
            // load_catalog returns changes of prices, not of accounts.
            let _ = account.close(sql, Verdict::Applied);
        }
    }
}

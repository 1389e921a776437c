//! A subscription's state: merged with what is known of it, and what that changes in the account.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stripe_credits_rules::calendar::{Time, TimeDelta};
use stripe_credits_rules::catalog::Item;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::{self as rules, Freshness, Plan, SubscriptionState};
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::{NoGrant, fetch_or_park};
use uuid::Uuid;

use crate::ledger::{self, Account, Accounts, Cause, Origin};
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::subscriptions::{self, KnownSubscription};
use crate::tables::{catalog, ownership, read_changes, subscription_items, test_clocks};

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
/// has one: `user`. If others had it, it moves. Returns also the state that is known now. The caller holds the subscription's
/// lock, and if it moves those of its payments.
pub(crate) fn apply(
    sql: &mut Sql,
    incoming: &Incoming,
    known: Option<&KnownSubscription>,
    user: Result<Uuid, Reason>,
) -> Result<(Outcome, KnownSubscription), NoGrant> {
    let Incoming { event_id, facts, .. } = *incoming;
    let Merged { mut now, plan, observed } = merge(sql, incoming, known)?;
    if known.is_none() && plan == Some(Plan::None) {
        return Err(NoGrant::Ignored(Reason::NotCredits));
    }
    let owner = user.or_else(|reason| now.user.ok_or(reason));
    now.user = owner.ok();
    now.customer_id = now.customer_id.or_else(|| facts.customer_id.clone());
    if let Some(clock_id) = &facts.test_clock {
        test_clocks::name(sql, clock_id, now.state.period.0);
    }
    let observed: Vec<Observed> = observed.into_iter().map(|state| Observed::of(sql, state, known)).collect();
    let newest = observed.iter().find(|one| one.state.as_of == now.state.as_of);
    now.seen_at = newest.map_or(now.seen_at, |one| one.seen_at);
    let lists = observed.iter().filter(|one| one.state.has_all_items).map(|one| one.seen_at);
    now.listed_since = lists.chain(now.listed_since).min();
    let owner = match owner {
        Ok(owner) => owner,
        Err(reason) => {
            record_items(sql, &observed, &now);
            subscriptions::save(sql, &facts.id, &now, event_id);
            return Err(NoGrant::Parked(reason, Vec::new()));
        }
    };
    let origin = Origin { event_id: Some(event_id), ..Origin::default() };
    let (mut accounts, from) = open(sql, &facts.id, known, owner);
    if !accounts.can_take_over(sql, &facts.id, &from, owner) {
        return Err(NoGrant::Rejected(Reason::OutOfRange));
    }
    if let Some(clock_id) = &facts.test_clock {
        accounts.of(owner).live_by(sql, clock_id);
    }
    let moved = (!from.is_empty()).then(|| hand_over(sql, &mut accounts, &facts.id, &from, owner, &origin));
    let known = moved.as_ref().map_or(known, Option::as_ref);
    let known_at = accounts.known_at();
    let is_known = |known: &KnownSubscription| {
        (known.state.ends_at(), known.listed_since) == (now.state.ends_at(), now.listed_since)
    };
    if !known.is_some_and(is_known) {
        now.known_at = known_at;
    }
    let items_changed = record_items(sql, &observed, &KnownSubscription { known_at, ..now.clone() });
    if known != Some(&now) {
        subscriptions::save(sql, &facts.id, &now, event_id);
    }
    if items_changed || known != Some(&now) {
        accounts.renew_versions();
    }
    let touched = observed.iter().map(|one| one.seen_at).chain(known.map(|known| known.seen_at)).min();
    let account_changed = update_accounts(sql, &mut accounts, owner, touched.unwrap_or(facts.as_of));
    let learned_as_of = observed.iter().map(|one| one.seen_at).min().unwrap_or(facts.as_of);
    accounts.of(owner).learn_as_of(learned_as_of);
    // If it cannot be held, what is posted stands.
    let _ = accounts.settle(sql, &origin);
    let is_news = plan.is_some() && (items_changed || known.is_none_or(|known| known.differs(&now)));
    if is_news || moved.is_some() {
        accounts.of(owner).tell_subscription(told(&facts.id, &now));
    }
    let changed = moved.is_some() || account_changed || accounts.is_changed() || is_news;
    let verdict = match &plan {
        Some(Plan::Unknown(..)) => Verdict::Parked(Reason::UnknownPrice),
        _ if changed => Verdict::Applied,
        None => Verdict::Ignored(Reason::Stale),
        Some(_) => Verdict::AlreadyApplied,
    };
    let outcome = accounts.close(sql, verdict, owner);
    let outcome = outcome.with("tier", now.tier.as_str()).with("status", now.state.status.as_str());
    let outcome = match plan {
        Some(Plan::Unknown(price_id, _)) => outcome.with("missing_prices", vec![price_id]),
        _ => outcome,
    };
    Ok((outcome, now))
}

/// A subscription, as the app is told of it.
fn told(subscription_id: &str, known: &KnownSubscription) -> Value {
    let KnownSubscription { state, tier, .. } = known;
    let (start, end) = state.period;
    let time = |time: Option<Time>| time.map(|time| time.to_rfc3339());
    json!({
        "stripe_subscription_id": subscription_id,
        "tier": tier,
        "status": state.status.as_str(),
        "stripe_price_id": state.price_id,
        "quantity": state.quantity.get(),
        "current_period_start": start.to_rfc3339(),
        "current_period_end": end.to_rfc3339(),
        "trial_end": time(state.trial_end),
        "cancel_at": time(state.cancel_at),
        "cancel_at_period_end": state.cancel_at_period_end,
        "ended_at": time(state.ended_at),
    })
}

/// A state that Stripe had a subscription in, and when, for comparison with periods.
struct Observed<'a> {
    state: &'a rules::Subscription,
    seen_at: Time,
}

impl<'a> Observed<'a> {
    /// Rule 16: a state of a customer on a test clock was so at the time at which the clock stood when it came.
    fn of(sql: &mut Sql, state: &'a rules::Subscription, known: Option<&KnownSubscription>) -> Observed<'a> {
        let by_clock = state.test_clock.as_deref().and_then(|clock_id| test_clocks::time(sql, clock_id));
        let Some(by_clock) = by_clock.filter(|time| *time != state.as_of) else {
            return Observed { state, seen_at: state.as_of };
        };
        // The order is Stripe's, whatever the clock said when each of them came.
        let seen_at = match known {
            Some(known) if known.state.as_of < state.as_of => {
                by_clock.max(known.seen_at + TimeDelta::microseconds(1))
            }
            Some(known) if known.state.as_of > state.as_of => {
                subscription_items::seen_late(sql, &state.id, state.as_of, by_clock, known.seen_at)
            }
            _ => by_clock,
        };
        Observed { state, seen_at }
    }
}

/// Records what the states list. Returns whether any of it was new.
fn record_items(sql: &mut Sql, observed: &[Observed], now: &KnownSubscription) -> bool {
    let mut changed = false;
    for Observed { state, seen_at } in observed.iter().filter(|one| one.state.has_all_items) {
        changed |=
            subscription_items::record(sql, state, *seen_at, (now.state.as_of, now.seen_at), now.known_at);
    }
    changed
}

/// Gives a subscription to a user, as an operator states it: what others had of it moves. The caller holds the locks of the
/// subscription and of its payments.
pub(crate) fn assign(sql: &mut Sql, subscription_id: &str, user: Uuid) -> Outcome {
    let origin = Origin { description: Some("attributed"), ..Origin::default() };
    let known = subscriptions::find(sql, subscription_id);
    let (mut accounts, from) = open(sql, subscription_id, known.as_ref(), user);
    if !accounts.can_take_over(sql, subscription_id, &from, user) {
        return Outcome::rejected(Reason::OutOfRange);
    }
    let mut changed = !from.is_empty();
    if changed {
        let moved = hand_over(sql, &mut accounts, subscription_id, &from, user, &origin);
        if let Some(known) = &moved {
            accounts.of(user).tell_subscription(told(subscription_id, known));
        }
    }
    if let Some(known) = known.filter(|known| known.user.is_none()) {
        let known_at = accounts.known_at();
        let mut now = KnownSubscription { user: Some(user), known_at, ..known.clone() };
        // The catalog may have changed since: it reprices users' subscriptions only.
        now.set_plan(&plan(sql, subscription_id, &known));
        subscriptions::save(sql, subscription_id, &now, "attribute");
        accounts.renew_versions();
        accounts.of(user).touch_streams(now.seen_at, Cause::Time);
        accounts.of(user).tell_subscription(told(subscription_id, &now));
        changed = true;
    }
    update_tiers(sql, &mut accounts);
    let _ = accounts.settle(sql, &origin);
    let verdict = if changed { Verdict::Applied } else { Verdict::AlreadyApplied };
    accounts.close(sql, verdict, user)
}

/// Opens the accounts that a subscription of this user may change, and returns the others who have it, or lines of it, as far
/// as is known.
fn open(
    sql: &mut Sql,
    subscription_id: &str,
    known: Option<&KnownSubscription>,
    owner: Uuid,
) -> (Accounts, Vec<Uuid>) {
    // Whose a known subscription is, its lines are.
    let is_owners = known.is_some_and(|known| known.user == Some(owner));
    let from = if is_owners { Vec::new() } else { ownership::others(sql, subscription_id, owner) };
    let mut users = BTreeSet::from([owner]);
    users.extend(&from);
    users.extend(ownership::former_users(sql, subscription_id));
    (Accounts::open(sql, &users), from)
}

/// Moves a subscription to a user from those who have it. Returns its state in the user's account.
fn hand_over(
    sql: &mut Sql,
    accounts: &mut Accounts,
    subscription_id: &str,
    from: &[Uuid],
    to: Uuid,
    origin: &Origin,
) -> Option<KnownSubscription> {
    accounts.move_subscription(sql, subscription_id, from, to, origin);
    subscriptions::find(sql, subscription_id)
}

/// Updates the accounts of a subscription by what is known of their users' subscriptions, the owner's from a time on. Returns
/// whether a tier or a status changed.
fn update_accounts(sql: &mut Sql, accounts: &mut Accounts, owner: Uuid, from: Time) -> bool {
    accounts.of(owner).touch_streams(from, Cause::Time);
    update_tiers(sql, accounts)
}

fn update_tiers(sql: &mut Sql, accounts: &mut Accounts) -> bool {
    let mut changed = false;
    for account in accounts.iter_mut() {
        changed |= update_tier(sql, account);
    }
    changed
}

fn update_tier(sql: &mut Sql, account: &mut Account) -> bool {
    let (tier, status) = subscriptions::tier(sql, account.user());
    account.set_tier(sql, tier, status)
}

/// The state of a subscription after the merge.
struct Merged<'a> {
    now: KnownSubscription,
    /// What it subscribes to; `None` if the incoming state was stale.
    plan: Option<Plan>,
    /// The states that Stripe had it in: the incoming one, also if it is stale, and Stripe's answer.
    observed: Vec<&'a rules::Subscription>,
}

/// Merges the incoming state, then Stripe's answer, with what is known.
fn merge<'a>(
    sql: &mut Sql,
    incoming: &Incoming<'a>,
    known: Option<&KnownSubscription>,
) -> Result<Merged<'a>, NoGrant> {
    let Incoming { facts, source, fetched, .. } = *incoming;
    let answer = fetched.and_then(|fetched| fetched.subscription(&facts.id));
    let names_items = facts.items.iter().any(|item| item.id.is_some());
    if fetched.is_none() && names_items && !facts.has_all_items {
        // The list of its items goes on.
        return Err(NoGrant::NeedsFetch(facts.lacking_paths()));
    }
    let (mut now, mut plan) = (known.cloned(), None);
    let (mut observed, mut has_period) = (Vec::new(), false);
    let current = answer.map(|answer| (answer, Source::Snapshot));
    for (facts, source) in [Some((facts, source)), current].into_iter().flatten() {
        let ended = known.filter(|_| facts.status.is_final()).map(|known| known.state.period);
        let Some(period) = facts.period.or(ended) else { continue };
        has_period = true;
        let stated = facts.plan(&catalog::prices_in_force(sql, &facts.priced(), period.0));
        let state = state(facts, &stated, period, now.as_ref());
        let freshness = now.as_ref().map_or(Freshness::Newer, |before| before.state.freshness_of(&state));
        let wins = match freshness {
            Freshness::Newer | Freshness::Same => true,
            Freshness::Stale => false,
            Freshness::Ambiguous if source == Source::Snapshot => true,
            Freshness::Ambiguous if fetched.is_none() => {
                return Err(NoGrant::NeedsFetch(vec![rules::path(&facts.id)]));
            }
            // Stripe's answer comes next, or Stripe could not be asked.
            Freshness::Ambiguous => {
                answer.is_none() && now.as_ref().is_some_and(|before| state.outranks(&before.state))
            }
        };
        // A stale state still says what the items were at its time, unless that is the second of the newest state or
        // later.
        if wins || now.as_ref().is_some_and(|now| facts.as_of < now.state.as_of) {
            observed.push(facts);
        }
        if wins {
            let mut won = match now {
                // The same state, known as of the same time or a later one.
                Some(before) if freshness == Freshness::Same => before,
                Some(before) => KnownSubscription { state, ..before },
                None => KnownSubscription::new(state),
            };
            won.set_plan(&stated);
            (now, plan) = (Some(won), Some(stated));
        }
    }
    let now = now.filter(|_| has_period).ok_or_else(|| fetch_or_park(fetched, rules::path(&facts.id)))?;
    Ok(Merged { now, plan, observed })
}

fn state(
    facts: &rules::Subscription,
    plan: &Plan,
    period: (Time, Time),
    before: Option<&KnownSubscription>,
) -> SubscriptionState {
    let (price_id, quantity) = plan.priced();
    // A list that goes on, or a call, says nothing of the items.
    let items = match before {
        Some(before) if !facts.has_all_items => before.state.items.clone(),
        _ => facts.item_contents().into_iter().filter(|item| item.item_id.is_some()).collect(),
    };
    SubscriptionState {
        as_of: facts.as_of,
        status: facts.status,
        price_id: price_id.map(str::to_owned),
        quantity,
        period,
        items,
        trial_end: facts.trial_end,
        cancel_at: facts.cancel_at,
        cancel_at_period_end: facts.cancel_at_period_end,
        ended_at: facts.ended_at,
    }
}

/// Updates a user's subscriptions by what the catalog says of them now, and posts what that changes, and what lines from a
/// time on are worth by it. `false` if an account that it needs is busy: nothing is changed then. The caller holds the
/// catalog's lock exclusively.
pub(crate) fn reprice(sql: &mut Sql, user: Uuid, lines_from: Option<Time>) -> bool {
    let known = subscriptions::of_user(sql, user);
    let mut users = BTreeSet::from([user]);
    for (subscription_id, _) in &known {
        users.extend(ownership::former_users(sql, subscription_id));
    }
    let mut changed = Vec::new();
    for (subscription_id, known) in known {
        let mut now = known.clone();
        now.set_plan(&plan(sql, &subscription_id, &known));
        if now != known {
            changed.push((subscription_id, now));
        }
    }
    let Some(from) = changed.iter().map(|(_, now)| now.state.period.0).chain(lines_from).min() else {
        // The read model shows what a plan's price is worth, also to those whose credits stay as they are.
        read_changes::insert(sql, user);
        return true;
    };
    if users.iter().any(|user| ledger::is_busy(sql, *user)) {
        return false;
    }
    let mut accounts = Accounts::open(sql, &users);
    accounts.of(user).renew_version();
    for (subscription_id, now) in &changed {
        subscriptions::save(sql, subscription_id, now, "load_catalog");
        accounts.of(user).tell_subscription(told(subscription_id, now));
    }
    accounts.of(user).touch_streams(from, if lines_from.is_some() { Cause::Payment } else { Cause::Time });
    update_tiers(sql, &mut accounts);
    // What cannot be held stays as it is posted; load_catalog returns changes of prices, not of accounts.
    let _ = accounts.settle(sql, &Origin::default());
    let _ = accounts.close_each(sql, Verdict::Applied);
    true
}

/// The plan of a known subscription: by the items of its newest state, or else by the price that a call or an older API named.
fn plan(sql: &mut Sql, subscription_id: &str, known: &KnownSubscription) -> Plan {
    let mut items = subscription_items::priced(sql, subscription_id);
    if items.is_empty() {
        items.extend(known.state.price_id.clone().map(|id| (Item::Price(id), known.state.quantity)));
    }
    let of_items: Vec<Item> = items.iter().map(|(item, _)| item.clone()).collect();
    let prices = catalog::prices_in_force(sql, &of_items, known.state.period.0);
    Plan::of(items, &prices)
}

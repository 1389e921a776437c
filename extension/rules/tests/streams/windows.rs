//! What is loaded back to the horizon, and the rows of grants before it, come to the same as everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::PriceKind;
use stripe_credits_rules::simulator::{
    CHANGES, Choice, DAY, EVERYTHING, Event, Happening, Kind, Policies, Step,
};
use stripe_credits_rules::streams::Target;
use stripe_credits_rules::streams::facts::{
    Draw, Facts, GrantKey, ItemContent, ItemState, Line, SubscriptionState,
};
use stripe_credits_rules::streams::holdings;
use stripe_credits_rules::streams::horizon::{Extent, horizon};

use crate::properties::{Player, modes, policies, told};

/// The rows of the grants as they were posted last.
#[derive(Debug, Clone, Default)]
struct Rows {
    grants: BTreeMap<GrantKey, Target>,
    /// The last draw that they count.
    last_draw: Option<Time>,
}

impl Rows {
    /// What is drawn is posted at once, whether anything is computed or not.
    fn post(&mut self, draws: &[Draw]) {
        for draw in draws.iter().filter(|draw| Some(draw.recorded_at) > self.last_draw) {
            let Some(row) = self.grants.get_mut(&draw.grant) else { continue };
            row.drawn.0 += draw.credits.0;
            row.remaining.0 -= draw.credits.0;
            row.closed_at = (row.remaining.0 == 0).then_some(draw.at);
        }
        self.last_draw = draws.last().map(|draw| draw.recorded_at);
    }
}

fn extent(target: &Target) -> Option<Extent> {
    let (start, end) = match &target.key {
        GrantKey::Period { period, .. } => (period.start, period.end),
        GrantKey::Trial => (target.available_from, target.expires_at?),
        GrantKey::FirstPurchaseBonus | GrantKey::Single { .. } => return None,
    };
    Some(Extent { start, end, closed_at: target.closed_at, needed_by: target.needed_by })
}

/// From when on facts differ.
fn touched_from(before: &Facts, after: &Facts) -> Option<Time> {
    let paid = |facts: &Facts, line: &Line| {
        facts.payments.iter().find(|payment| payment.id == line.payment).cloned()
    };
    let lines = after
        .lines
        .iter()
        .filter(|line| !before.lines.contains(line) || paid(before, line) != paid(after, line));
    let items = after.items.iter().filter(|state| !before.items.contains(state)).map(|state| state.as_of);
    let states = after.subscriptions.iter().filter(|state| !before.subscriptions.contains(state));
    // A new state also says that the one before it is no longer the newest.
    let newest_before = |state: &SubscriptionState| {
        let same = before.subscriptions.iter().find(|known| known.id == state.id);
        same.map_or(state.as_of, |known| known.as_of.min(state.as_of))
    };
    lines.map(|line| line.period.start).chain(items).chain(states.map(newest_before)).min()
}

/// The facts that are loaded back to a horizon.
fn loaded(facts: &Facts, back_to: Time) -> Facts {
    let is_loaded = |line: &&Line| line.period.end >= back_to;
    let (lines, older): (Vec<&Line>, Vec<&Line>) = facts.lines.iter().partition(is_loaded);
    let first_lines = first_lines(facts, &older);
    let named = |id: &str| {
        lines.iter().any(|line| line.payment == id) || first_lines.iter().any(|line| line.payment == id)
    };
    let mut subscriptions = facts.subscriptions.clone();
    for state in &mut subscriptions {
        let own = facts.lines.iter().filter(|line| line.subscription.as_ref() == Some(&state.id));
        state.first_period_start = own.filter(|line| opens(line, facts)).map(|line| line.period.start).min();
    }
    let payments = facts.payments.iter().filter(|payment| named(&payment.id)).cloned().collect();
    let lines: Vec<Line> = lines.into_iter().cloned().collect();
    Facts {
        payments,
        items: needed_states(&facts.items, &lines, back_to),
        lines,
        first_lines,
        subscriptions,
        horizon: Some(back_to),
        ..facts.clone()
    }
}

/// The states of items that are loaded with these lines: of an item that was removed all of them; of any other item the first
/// one, that of the time when the earliest of the lines begins, and the later ones.
fn needed_states(states: &[ItemState], lines: &[Line], horizon: Time) -> Vec<ItemState> {
    let since = lines.iter().map(|line| line.period.start).fold(horizon, Time::min);
    let key = |state: &ItemState| (state.subscription.clone(), state.item.clone());
    let removed = states.iter().filter(|state| state.content == ItemContent::Removed);
    let removed: BTreeSet<(String, String)> = removed.map(key).collect();
    let is_needed = |state: &&ItemState| {
        let of_item = || states.iter().filter(|other| key(other) == key(state)).map(|other| other.as_of);
        let current = of_item().filter(|as_of| *as_of <= since).max();
        removed.contains(&key(state))
            || of_item().min() == Some(state.as_of)
            || current.is_none_or(|current| state.as_of >= current)
    };
    states.iter().filter(is_needed).cloned().collect()
}

fn is_standing_charge(line: &Line, facts: &Facts) -> bool {
    let payment = facts.payments.iter().find(|payment| payment.id == line.payment).expect("its payment");
    let came_back = payment.came_back;
    line.amount.0 > line.discount.0 && !(came_back.of.0 > 0 && came_back.amount.0 >= came_back.of.0)
}

fn opens(line: &Line, facts: &Facts) -> bool {
    line.terms.kind == PriceKind::Plan && is_standing_charge(line, facts)
}

/// The lines from before the horizon that decide the bonus and the trial.
fn first_lines(facts: &Facts, older: &[&Line]) -> Vec<Line> {
    let paid_at = |line: &Line| {
        let payment = facts.payments.iter().find(|payment| payment.id == line.payment).expect("its payment");
        (payment.paid_at, payment.id.clone())
    };
    let purchases =
        older.iter().filter(|line| line.subscription.is_some() && is_standing_charge(line, facts));
    let first = purchases.map(|line| paid_at(line)).min();
    let of_first = older.iter().filter(|line| first.as_ref().is_some_and(|(_, id)| line.payment == *id));
    let zero = older.iter().filter(|line| line.amount.0 == 0 && !line.is_proration && line.quantity > 0);
    of_first.chain(zero.min_by_key(|line| line.period)).map(|line| (*line).clone()).collect()
}

/// Computes back to the horizon, and holds the outcome against that of everything.
fn compare(player: &Player, before: &Facts, rows: &mut Rows) -> Result<(), TestCaseError> {
    let (facts, draws, now) = (&player.account.facts, &player.account.draws, player.account.now());
    rows.post(draws);
    let touched = touched_from(before, facts).unwrap_or(now);
    let back_to = horizon(rows.grants.values().filter_map(extent), touched);
    let is_sealed = |target: &Target| extent(target).is_some_and(|extent| extent.start < back_to);
    let loaded = loaded(facts, back_to);
    let is_loaded = |grant: &GrantKey| match grant {
        GrantKey::Single { source_id, .. } => {
            let by_line = loaded.lines.iter().any(|line| line.payment == *source_id);
            by_line || loaded.singles.iter().any(|single| single.source_id == *source_id)
        }
        _ => true,
    };
    let own: Vec<Draw> = draws.iter().filter(|draw| is_loaded(&draw.grant)).cloned().collect();
    let window = holdings(&loaded, &own, now).expect("numbers that can be held").targets;
    rows.grants.extend(window.into_iter().map(|target| (target.key.clone(), target)));
    for target in holdings(facts, draws, now).expect("numbers that can be held").targets {
        let mut row = rows.grants.get(&target.key).cloned();
        if let Some(row) = row.as_mut().filter(|row| is_sealed(row)) {
            // Nothing is left of it: since when, and until when it could have been spent, moves no credits.
            (row.state, row.closed_at) = (target.state, target.closed_at);
            (row.expires_at, row.priority_at) = (target.expires_at, target.priority_at);
        }
        prop_assert_eq!(row, Some(target), "back to {}, touched from {}", back_to, touched);
    }
    Ok(())
}

/// Plays a history, and compares after each of its steps.
fn play(history: &[Happening], spends: &[u8], mut player: Player) -> Result<(), TestCaseError> {
    let mut rows = Rows::default();
    for (index, happening) in history.iter().enumerate() {
        for event in &happening.events {
            let before = player.account.facts.clone();
            player.play(Step::Deliver(event));
            compare(&player, &before, &mut rows)?;
        }
        let before = player.account.facts.clone();
        let books = player.play(Step::Look { at: happening.at });
        compare(&player, &before, &mut rows)?;
        let share = spends.get(index % spends.len().max(1)).map_or(0, |share| i64::from(*share));
        let amount = books.balance * share / 255;
        if amount > 0 {
            player.play(Step::Spend { at: happening.at, amount, number: 0 });
        }
    }
    Ok(())
}

/// Plays events in another order, long after all of it, with spends between; compares after each.
fn play_late(events: &[&Event], spends: &[u8], mut player: Player) -> Result<(), TestCaseError> {
    let mut rows = Rows::default();
    for (index, event) in events.iter().enumerate() {
        let before = player.account.facts.clone();
        player.learn(event);
        compare(&player, &before, &mut rows)?;
        let share = spends.get(index % spends.len().max(1)).map_or(0, |share| i64::from(*share));
        let amount = player.account.balances().balance() * share / 255;
        if amount > 0 {
            prop_assert!(player.account.spend(amount));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_loaded_back_to_the_horizon_comes_to_the_same_as_everything(
        mode in modes(), day in 0..400_i64, policies in policies(),
        choices in proptest::collection::vec(any::<Choice>(), 1..16), spends in any::<Vec<u8>>(),
    ) {
        let (settings, history) = told(mode, day, EVERYTHING, &choices);
        play(&history, &spends, Player::new(settings.begins_at, policies))?;
    }

    #[test]
    fn so_it_does_if_what_happened_is_known_late_and_in_another_order(
        mode in modes(), day in 0..400_i64, policies in policies(),
        choices in proptest::collection::vec(any::<Choice>(), 1..16),
        delays in proptest::collection::vec(0..6_usize, 1..40), spends in any::<Vec<u8>>(),
    ) {
        let menu: Vec<Kind> = EVERYTHING.iter().copied().chain([Kind::Renew; 12]).collect();
        let (_, history) = told(mode, day, &menu, &choices);
        let end = history.last().expect("a happening").at + DAY;
        let mut events: Vec<(usize, &Event)> = history
            .iter()
            .flat_map(|happening| &happening.events)
            .enumerate()
            .map(|(at, event)| (at + 3 * delays[at % delays.len()], event))
            .collect();
        events.sort_by_key(|(at, _)| *at);
        let events: Vec<&Event> = events.into_iter().map(|(_, event)| event).collect();
        play_late(&events, &spends, Player::new(end, policies))?;
    }

    #[test]
    fn so_it_does_after_many_renewals(
        mode in modes(), day in 0..400_i64, choices in proptest::collection::vec(any::<Choice>(), 1..16),
        spends in any::<Vec<u8>>(),
    ) {
        let menu: Vec<Kind> = CHANGES.iter().copied().chain([Kind::Renew; 12]).collect();
        let (settings, history) = told(mode, day, &menu, &choices);
        play(&history, &spends, Player::new(settings.begins_at, Policies::default()))?;
    }
}

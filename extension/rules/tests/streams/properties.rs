//! What must hold in every history of a customer at Stripe, played on the rules alone.

use proptest::prelude::*;
use serde_json::json;
use stripe_credits_rules::calendar::from_unix;
use stripe_credits_rules::simulator::{
    Api, BillingMode, Books, CHANGES, Choice, DAY, EVERYTHING, Event, HONEST, HONEST_FLEXIBLE, Happening,
    Kind, Months, Policies, Settings, Step, catalog, exploit, fair, history, honest,
};
use stripe_credits_rules::streams::facts::{Facts, FormerUser};
use stripe_credits_rules::streams::holdings;

use crate::account::Account;
use crate::stripe::{Catalog, Told};

/// The rules as bookkeepers of one history.
pub(crate) struct Player {
    pub(crate) catalog: Catalog,
    pub(crate) told: Told,
    pub(crate) account: Account,
}

impl Player {
    pub(crate) fn new(begins_at: i64, policies: Policies) -> Player {
        let account = Account::new(from_unix(begins_at).expect("a time"));
        Player { catalog: Catalog::read(&catalog(policies)), told: Told::default(), account }
    }

    /// An event becomes known, whenever it happened.
    pub(crate) fn learn(&mut self, event: &Event) {
        self.told.hear(&event.body, self.account.known_at());
        self.account.learn(self.told.facts(&self.catalog), from_unix(event.at).expect("a time"));
    }

    pub(crate) fn play(&mut self, step: Step<'_>) -> Books {
        self.account.pass_to(from_unix(step.at()).expect("a time"));
        match step {
            Step::Deliver(event) => self.learn(event),
            Step::Spend { amount, .. } => assert!(self.account.spend(amount), "{amount} are there"),
            Step::Look { .. } => {}
        }
        let balances = self.account.balances();
        Books { balance: balances.balance(), debt: balances.debt }
    }
}

pub(crate) fn modes() -> impl Strategy<Value = (BillingMode, Api)> {
    prop::sample::select(vec![
        (BillingMode::Classic, Api::Older),
        (BillingMode::Classic, Api::Current),
        (BillingMode::Flexible, Api::Current),
    ])
}

pub(crate) fn policies() -> impl Strategy<Value = Policies> {
    let word = |one, other| prop::sample::select(vec![one, other]);
    (word("reset", "keep"), word("keep", "expire")).prop_map(|(plan_change, cancellation)| Policies {
        plan_change,
        cancellation,
        reversal_policy: "debt",
    })
}

/// Flexible billing bills by the second, and months of one length keep that comparable with credits by the month.
fn settings(api: Api, day: i64, mode: BillingMode) -> Settings {
    let begins_at = Settings::default().begins_at + day * DAY;
    let months = if mode == BillingMode::Flexible { Months::Even } else { Months::Calendar };
    Settings { begins_at, api, months, ..Settings::default() }
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    proptest::collection::vec(any::<Choice>(), 1..9)
}

pub(crate) fn told(
    (mode, api): (BillingMode, Api),
    day: i64,
    menu: &[Kind],
    choices: &[Choice],
) -> (Settings, Vec<Happening>) {
    let settings = settings(api, day, mode);
    (settings.clone(), history(settings, mode, menu, choices))
}

/// In another order, by a seed.
fn shuffle<T>(mut all: Vec<T>, mut seed: u64) -> Vec<T> {
    for at in (1..all.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(at, usize::try_from(seed >> 33).expect("31 bits") % (at + 1));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nobody_draws_more_than_the_kept_money_pays_for(
        mode in modes(), day in 0..400_i64, policies in policies(), choices in choices(),
    ) {
        let (settings, history) = told(mode, day, EVERYTHING, &choices);
        let mut player = Player::new(settings.begins_at, policies);
        exploit(&history, |step| player.play(step)).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }

    #[test]
    fn under_forgive_nobody_gains_by_credit_lines(
        mode in modes(), day in 0..400_i64, choices in choices(),
    ) {
        let (settings, history) = told(mode, day, CHANGES, &choices);
        let policies = Policies { reversal_policy: "forgive", ..Policies::default() };
        let mut player = Player::new(settings.begins_at, policies);
        exploit(&history, |step| player.play(step)).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }

    #[test]
    fn what_is_paid_for_can_be_drawn(
        mode in modes(), day in 0..400_i64, choices in choices(),
    ) {
        let menu = [Kind::Wait, Kind::Renew, Kind::Up, Kind::Buy, Kind::AddItem, Kind::RenewLate];
        let (settings, history) = told(mode, day, &menu, &choices);
        let policies = Policies { plan_change: "keep", ..Policies::default() };
        let mut player = Player::new(settings.begins_at, policies);
        fair(&history, |step| player.play(step)).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }

    #[test]
    fn who_pays_and_renews_has_the_whole_amount_and_owes_nothing(
        mode in modes(), day in 0..400_i64, choices in choices(), spends in any::<Vec<u8>>(),
    ) {
        // A year of twelve months of 30 days is shorter than the calendar's.
        let menu: Vec<Kind> = HONEST_FLEXIBLE.iter().filter(|kind| **kind != Kind::ToYear).copied().collect();
        let menu = if mode.0 == BillingMode::Flexible { &menu[..] } else { HONEST };
        let (settings, history) = told(mode, day, menu, &choices);
        // Stripe credits also what pends and was not paid yet; that a new anchor's period then opens sets aside what that
        // credit takes back, and what is paid for it with the renewal does not bring it back.
        let any = |what: &str| history.iter().any(|happening| happening.what.contains(what));
        if any("proration: Create") && any("anchor: Now") {
            return Ok(());
        }
        let mut player = Player::new(settings.begins_at, Policies::default());
        honest(&history, &spends, |step| player.play(step)).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }

    /// From what a debt is settled depends on when it is known, so only histories without one are compared.
    #[test]
    fn whatever_becomes_known_its_order_and_repetition_do_not_matter(
        mode in modes(), day in 0..400_i64, policies in policies(), choices in choices(),
        order in any::<u64>(),
    ) {
        let (_, history) = told(mode, day, EVERYTHING, &choices);
        let events: Vec<_> = history.iter().flat_map(|happening| &happening.events).collect();
        let end = history.last().expect("a happening").at + DAY;
        let mut in_order = Player::new(end, policies);
        let mut shuffled = Player::new(end, policies);
        let twice = shuffle(events.iter().chain(&events).copied().collect(), order);
        for event in events {
            in_order.learn(event);
        }
        for event in twice {
            shuffled.learn(event);
        }
        if in_order.account.draws.is_empty() && shuffled.account.draws.is_empty() {
            prop_assert_eq!(in_order.account.balances(), shuffled.account.balances(), "{}", json!(choices));
        }
    }
}

/// The events of a history without a debt, and the account that knew each at its time; `None` if a debt arose.
fn without_debt<'a>(
    settings: &Settings,
    policies: Policies,
    history: &'a [Happening],
) -> Option<(Vec<&'a Event>, Account)> {
    let mut player = Player::new(settings.begins_at, policies);
    let events: Vec<_> = history.iter().flat_map(|happening| &happening.events).collect();
    for event in &events {
        if player.play(Step::Deliver(event)).debt > 0 {
            return None;
        }
    }
    player.play(Step::Look { at: end_of(history) });
    let Player { account, .. } = player;
    account.draws.is_empty().then_some((events, account))
}

/// A day after everything.
fn end_of(history: &[Happening]) -> i64 {
    history.last().expect("a happening").at + DAY
}

/// Everything a customer can do, and many renewals.
fn with_renewals() -> Vec<Kind> {
    EVERYTHING.iter().copied().chain([Kind::Renew; 12]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What is not known yet may leave a debt that never was, which is settled; nothing may remain of that.
    #[test]
    fn a_debt_that_only_the_order_made_leaves_no_trace(
        mode in modes(), day in 0..400_i64, policies in policies(), choices in choices(),
        order in any::<u64>(),
    ) {
        let (settings, history) = told(mode, day, &with_renewals(), &choices);
        let Some((events, _)) = without_debt(&settings, policies, &history) else { return Ok(()) };
        let mut in_order = Player::new(end_of(&history), policies);
        let mut shuffled = Player::new(end_of(&history), policies);
        for event in &events {
            in_order.learn(event);
        }
        for event in shuffle(events, order) {
            shuffled.learn(event);
        }
        prop_assert_eq!(in_order.account.balances(), shuffled.account.balances(), "{}", json!(choices));
    }

    /// The same if all of it is known at its time, but for one event.
    #[test]
    fn nor_does_one_that_a_lost_event_made(
        mode in modes(), day in 0..400_i64, policies in policies(), choices in choices(),
        lost in any::<prop::sample::Index>(),
    ) {
        let (settings, history) = told(mode, day, &with_renewals(), &choices);
        let Some((mut events, on_time)) = without_debt(&settings, policies, &history) else { return Ok(()) };
        let lost = events.remove(lost.index(events.len()));
        let mut player = Player::new(settings.begins_at, policies);
        for event in events {
            player.play(Step::Deliver(event));
        }
        player.play(Step::Look { at: end_of(&history) });
        player.learn(lost);
        prop_assert_eq!(player.account.balances(), on_time.balances(), "{} without {}", json!(choices), lost.body["id"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Rule 6: whoever had a subscription when something of it was drawn, its grants are worth the same, and as much is left.
    #[test]
    fn who_drew_from_a_moved_subscription_changes_neither_worth_nor_what_is_left(
        mode in modes(), day in 0..400_i64, policies in policies(), choices in choices(), spends in any::<Vec<u8>>(),
        moves in proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (settings, history) = told(mode, day, EVERYTHING, &choices);
        let mut player = Player::new(settings.begins_at, policies);
        for (index, happening) in history.iter().enumerate() {
            for event in &happening.events {
                player.play(Step::Deliver(event));
            }
            let books = player.play(Step::Look { at: happening.at });
            let share = spends.get(index % spends.len().max(1)).map_or(0, |share| i64::from(*share));
            if books.balance * share / 255 > 0 {
                player.account.spend(books.balance * share / 255);
            }
        }
        let (facts, draws, now) = (&player.account.facts, &player.account.draws, player.account.now());
        let together = holdings(facts, draws, now).expect("numbers that can be held").targets;
        // Each of the former users drew until the subscriptions left.
        let mut left: Vec<usize> = moves.iter().map(|at| at.index(draws.len() + 1)).collect();
        left.sort_unstable();
        let starts = std::iter::once(0).chain(left.iter().copied());
        let payments: Vec<String> = facts.payments.iter().map(|payment| payment.id.clone()).collect();
        let former = starts.zip(&left).map(|(start, end)| FormerUser {
            draws: draws[start..*end].to_vec(),
            payments: payments.clone(),
        });
        let facts = Facts { former: former.collect(), ..facts.clone() };
        let split = holdings(&facts, &draws[*left.last().expect("a move")..], now).expect("numbers that can be held");
        for (own, all) in split.targets.iter().zip(&together) {
            prop_assert_eq!(&own.key, &all.key);
            let of_others = split.former.iter().filter(|kept| kept.key == own.key);
            let kept: i64 = of_others.map(|kept| kept.worth.0).sum();
            prop_assert_eq!(own.worth.0 + kept, all.worth.0, "{:?} of {:?}", own, all);
            if all.moved.0 == 0 && own.moved.0 == 0 {
                prop_assert_eq!(own.remaining, all.remaining, "{:?} of {:?}", own, all);
            }
        }
    }
}

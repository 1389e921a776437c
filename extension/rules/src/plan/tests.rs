//! Lots become known in every order, with spends between, and come to the same.

use proptest::prelude::*;

use super::*;
use crate::calendar;

fn at(seconds: i64) -> Time {
    calendar::from_unix(seconds).expect("a time")
}

/// An account's books of lots, as the ledger keeps them.
#[derive(Clone, Default)]
struct Books {
    grants: Vec<Grant>,
    subscriptions: Vec<SubscribedPlan>,
}

/// What becomes known.
#[derive(Clone, Debug)]
enum News {
    /// A paid invoice: its id, subscription, price, credits, period, rollover.
    Paid(&'static str, &'static str, &'static str, i64, (i64, i64), i64),
    /// A subscription's plan and its limit, as of a time.
    Plan(&'static str, &'static str, i64, i64),
    /// A subscription ended.
    Ended(&'static str, i64),
    /// An invoice was refunded, whole.
    Refunded(&'static str),
}

impl Books {
    /// What can be spent, without what is owed.
    fn total(&self) -> i64 {
        let mut owed: BTreeMap<&str, i64> = BTreeMap::new();
        for grant in &self.grants {
            owed.insert(&grant.source_id, grant.owed.0);
        }
        self.grants.iter().map(|grant| grant.remaining.0).sum::<i64>() - owed.into_values().sum::<i64>()
    }

    fn learn(&mut self, news: &News, refunded: &mut Vec<&'static str>) {
        match news.clone() {
            News::Paid(invoice, ..) if self.grants.iter().any(|grant| grant.source_id == invoice) => {}
            News::Paid(invoice, subscription, price, credits, (start, end), max_rollover) => {
                self.grants.push(Grant {
                    id: i64::try_from(self.grants.len()).expect("few") + 1,
                    source_id: invoice.into(),
                    subscription_id: subscription.into(),
                    price_id: price.into(),
                    period: (at(start), at(end)),
                    paid_at: at(start),
                    max_rollover: Credits(max_rollover),
                    expires: false,
                    available_from: None,
                    lapses_at: None,
                    granted: Credits(credits),
                    remaining: Credits(credits),
                    set_aside: Credits::ZERO,
                    pending: Credits::ZERO,
                    lapsed: Credits::ZERO,
                    reversed: Credits::ZERO,
                    owed: Credits::ZERO,
                    consumed: None,
                    closed_through: None,
                    is_new: true,
                });
            }
            News::Plan(id, price, limit, as_of) => {
                let known = self.subscription(id);
                if known.as_of <= at(as_of) {
                    known.price_id = Some(price.into());
                    known.lot_limit = Some(Credits(limit));
                    known.as_of = at(as_of);
                }
            }
            News::Ended(id, ended_at) => {
                let known = self.subscription(id);
                known.ended_at = Some(at(ended_at));
                known.ends = true;
            }
            News::Refunded(invoice) => refunded.push(invoice),
        }
        for grant in self.grants.iter_mut().filter(|grant| refunded.contains(&grant.source_id.as_str())) {
            grant.owed = Credits(grant.drawn());
            grant.reversed = Credits(grant.granted.0 - grant.drawn() - grant.lapsed.0);
            (grant.remaining, grant.set_aside) = (Credits::ZERO, Credits::ZERO);
        }
        self.settle();
    }

    fn subscription(&mut self, id: &str) -> &mut SubscribedPlan {
        let at_index = self.subscriptions.iter().position(|known| known.id == id).unwrap_or_else(|| {
            self.subscriptions.push(SubscribedPlan {
                id: id.into(),
                price_id: None,
                lot_limit: None,
                as_of: at(0),
                ended_at: None,
                ends: false,
            });
            self.subscriptions.len() - 1
        });
        &mut self.subscriptions[at_index]
    }

    fn settle(&mut self) {
        for target in settle(&self.grants, &self.subscriptions, &[], at(5_000)) {
            let grant = self.grants.iter_mut().find(|grant| grant.id == target.id).expect("one of them");
            let Target { remaining, set_aside, pending, lapsed, lapses_at, consumed, .. } = target;
            assert!(remaining.0 >= 0 && set_aside.0 >= 0 && pending.0 >= 0, "{target:?}");
            (grant.remaining, grant.set_aside, grant.pending) = (remaining, set_aside, pending);
            (grant.lapsed, grant.lapses_at, grant.consumed) = (lapsed, lapses_at, consumed);
            grant.is_new = false;
        }
    }

    /// Spends, what is reset soonest first; `false` where there is less.
    fn spend(&mut self, amount: i64) -> bool {
        if self.total() < amount {
            return false;
        }
        let mut in_order: Vec<&mut Grant> = self.grants.iter_mut().collect();
        in_order.sort_by_key(|grant| (grant.max_rollover > Credits::ZERO, grant.period.1, grant.id));
        let mut left = amount;
        for grant in in_order {
            let taken = grant.remaining.0.min(left);
            (grant.remaining.0, left) = (grant.remaining.0 - taken, left - taken);
        }
        true
    }
}

/// What there is after `news` in this order, with `spent` after so many of them; `None` where that is more than there is.
fn after(news: &[&News], spend: Option<(usize, i64)>) -> Option<i64> {
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    for (index, news_item) in news.iter().enumerate() {
        books.learn(news_item, &mut refunded);
        if let Some((place, amount)) = spend
            && place == index
            && !books.spend(amount)
        {
            return None;
        }
    }
    let before = books.total();
    books.settle();
    assert_eq!(books.total(), before, "settling again changes nothing");
    Some(before)
}

/// Every order of up to six things.
fn orders(news: &[News]) -> Vec<Vec<&News>> {
    if news.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (index, first) in news.iter().enumerate() {
        let rest: Vec<News> =
            news.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, n)| n.clone()).collect();
        for order in orders(&rest) {
            let order: Vec<&News> = order
                .into_iter()
                .map(|news_item| {
                    news.iter().find(|n| format!("{n:?}") == format!("{news_item:?}")).expect("one of them")
                })
                .collect();
            all.push([vec![first], order].concat());
        }
    }
    all
}

/// Asserts what there is, in every order, and if each arrives twice.
fn always(news: &[News], total: i64) {
    for order in orders(news) {
        assert_eq!(after(&order, None), Some(total), "{order:?}");
        let twice: Vec<&News> = order.iter().flat_map(|news_item| [*news_item, *news_item]).collect();
        assert_eq!(after(&twice, None), Some(total), "{twice:?}");
    }
}

/// Asserts what there is with a spend after the first, where there is enough for it.
fn with_a_spend_between(news: &[News], amount: i64, total: i64) {
    let mut spent = 0;
    for order in orders(news) {
        if let Some(left) = after(&order, Some((0, amount))) {
            assert_eq!(left, total, "{order:?}");
            spent += 1;
        }
    }
    assert!(spent > 0, "some order leaves enough for the spend");
}

const PRO_1: News = News::Paid("in_1", "sub_1", "pro", 10_000, (1000, 2000), 0);
const PRO_2: News = News::Paid("in_2", "sub_1", "pro", 10_000, (2000, 3000), 0);
const PRO_3: News = News::Paid("in_3", "sub_1", "pro", 10_000, (3000, 4000), 0);
const MAX_1: News = News::Paid("in_max", "sub_1", "max", 30_000, (1500, 2000), 0);

#[test]
fn a_renewal_leaves_its_own_credits_alone() {
    always(&[PRO_1, PRO_2, PRO_3], 10_000);
    with_a_spend_between(&[PRO_1, PRO_2], 4000, 10_000);
    with_a_spend_between(&[PRO_1, PRO_2, PRO_3], 4000, 10_000);
}

#[test]
fn a_rollover_leaves_no_more_than_it_says() {
    let roll = |invoice, period| News::Paid(invoice, "sub_1", "roll", 1000, period, 500);
    let months = [roll("in_1", (1000, 2000)), roll("in_2", (2000, 3000)), roll("in_3", (3000, 4000))];
    always(&months[..2], 1500);
    always(&months, 1500);
    with_a_spend_between(&months[..2], 200, 1500);
    with_a_spend_between(&months[..2], 700, 1300);
    // What was carried and spent does not come back with the next renewal.
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    books.learn(&months[0], &mut refunded);
    books.learn(&months[1], &mut refunded);
    assert!(books.spend(1300));
    books.learn(&months[2], &mut refunded);
    assert_eq!(books.total(), 1200);
}

#[test]
fn an_upgrade_replaces_what_was_left_and_a_return_brings_it_back() {
    always(&[PRO_1, MAX_1], 30_000);
    with_a_spend_between(&[PRO_1, MAX_1], 9000, 30_000);
    // Back to the first plan by a paid invoice of the same period: no more than there was.
    let back = News::Paid("in_back", "sub_1", "pro", 10_000, (1700, 2000), 0);
    always(&[PRO_1, MAX_1, back.clone()], 10_000);
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    books.learn(&PRO_1, &mut refunded);
    assert!(books.spend(9000));
    books.learn(&MAX_1, &mut refunded);
    books.learn(&back, &mut refunded);
    assert_eq!(books.total(), 1000);
}

#[test]
fn a_downgrade_keeps_the_lesser_plans_amount_and_a_toggle_changes_nothing() {
    let bought = News::Plan("sub_1", "max", 30_000, 1500);
    let downgraded = News::Plan("sub_1", "pro", 10_000, 1600);
    let again = News::Plan("sub_1", "max", 30_000, 1700);
    always(&[MAX_1, bought.clone(), downgraded.clone()], 10_000);
    always(&[MAX_1, bought.clone(), downgraded.clone(), again.clone()], 30_000);
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    books.learn(&MAX_1, &mut refunded);
    assert!(books.spend(25_000));
    for news in [&downgraded, &again, &downgraded] {
        books.learn(news, &mut refunded);
        assert_eq!(books.total(), 5000);
    }
    assert!(books.spend(1000));
    books.learn(&again, &mut refunded);
    assert_eq!(books.total(), 4000);
    // What the limit leaves is spent from what it leaves: what is set aside does not fill up.
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    books.learn(&MAX_1, &mut refunded);
    books.learn(&downgraded, &mut refunded);
    assert!(books.spend(4000));
    books.learn(&downgraded, &mut refunded);
    assert_eq!(books.total(), 6000);
}

#[test]
fn a_higher_quantity_counts_once() {
    let seats =
        |invoice, seats: i64, start| News::Paid(invoice, "sub_1", "pro", 10_000 * seats, (start, 2000), 0);
    let news = [seats("in_1", 1, 1000), seats("in_2", 3, 1200), seats("in_3", 2, 1400)];
    always(&news, 30_000);
    with_a_spend_between(&news, 4000, 26_000);
}

#[test]
fn a_new_subscription_sets_aside_what_an_ended_one_left() {
    let ended = News::Ended("sub_1", 1900);
    let new = News::Paid("in_new", "sub_2", "pro", 10_000, (2500, 3500), 0);
    let overlapping = News::Paid("in_overlapping", "sub_2", "pro", 10_000, (1500, 2500), 0);
    always(&[PRO_1, ended.clone()], 10_000);
    always(&[PRO_1, ended.clone(), new.clone()], 10_000);
    always(&[PRO_1, ended, overlapping], 20_000);
    always(&[PRO_1, new], 20_000);
}

#[test]
fn a_refund_of_a_period_takes_what_it_gave_and_no_more() {
    let refunded = News::Refunded("in_1");
    always(&[PRO_1, PRO_2, refunded.clone()], 10_000);
    with_a_spend_between(&[PRO_1, PRO_2, refunded.clone()], 4000, 6000);
    always(&[PRO_1, refunded], 0);
    let roll = |invoice, period| News::Paid(invoice, "sub_1", "roll", 1000, period, 500);
    let months = [roll("in_1", (1000, 2000)), roll("in_2", (2000, 3000)), roll("in_3", (3000, 4000))];
    always(&[months.to_vec(), vec![News::Refunded("in_2")]].concat(), 1500);
    always(&[months.to_vec(), vec![News::Refunded("in_1")]].concat(), 1500);
    always(&[months.to_vec(), vec![News::Refunded("in_3")]].concat(), 500);
}

fn news() -> impl Strategy<Value = Vec<News>> {
    let subscription = prop::sample::select(vec!["sub_1", "sub_2"]);
    let price = prop::sample::select(vec![("pro", 10_000, 0), ("max", 30_000, 0), ("roll", 1000, 500)]);
    let invoice = prop::sample::select(vec!["in_1", "in_2", "in_3", "in_4"]);
    let paid = (invoice.clone(), subscription.clone(), price.clone(), 0..4i64, 0..3i64).prop_map(
        |(invoice, subscription, (price, credits, rollover), month, half)| {
            let (start, end) = (1000 + month * 1000 + half * 300, 2000 + month * 1000);
            News::Paid(invoice, subscription, price, credits, (start, end), rollover)
        },
    );
    let plan = (subscription.clone(), price, 0..40i64)
        .prop_map(|(id, (price, credits, _), tenth)| News::Plan(id, price, credits, 1000 + tenth * 100));
    let ended = (subscription, 0..40i64).prop_map(|(id, tenth)| News::Ended(id, 1000 + tenth * 100));
    let refunded = invoice.prop_map(News::Refunded);
    proptest::collection::vec(prop_oneof![4 => paid, 2 => plan, 1 => ended, 1 => refunded], 1..7).prop_map(
        |mut news| {
            // Each invoice is paid once, each subscription ends once, and has one plan per second.
            let mut seen = std::collections::BTreeSet::new();
            news.retain(|news_item| {
                seen.insert(match news_item {
                    News::Paid(invoice, ..) => format!("paid {invoice}"),
                    News::Plan(id, _, _, as_of) => format!("plan {id} {as_of}"),
                    News::Ended(id, _) => format!("ended {id}"),
                    News::Refunded(invoice) => format!("refunded {invoice}"),
                })
            });
            news
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_becomes_known_its_order_and_repetition_do_not_matter(
        news in news(),
        order in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let forward: Vec<&News> = news.iter().collect();
        let mut turned = forward.clone();
        turned.rotate_left(order.index(forward.len()));
        turned.insert(again.index(turned.len() + 1), forward[again.index(forward.len())]);
        let mut backward = forward.clone();
        backward.reverse();
        prop_assert_eq!(after(&forward, None), after(&turned, None));
        prop_assert_eq!(after(&forward, None), after(&backward, None));
    }

    #[test]
    fn with_spends_between_nothing_is_overdrawn_and_never_more_is_kept_than_was_paid_for(
        news in news(),
        spends in proptest::collection::vec(0..20_000i64, 6),
    ) {
        let (mut books, mut refunded) = (Books::default(), Vec::new());
        let mut spent = 0;
        for (news_item, amount) in news.iter().zip(spends) {
            books.learn(news_item, &mut refunded);
            if amount > 0 && books.spend(amount) {
                spent += amount;
            }
            let paid: i64 = books.grants.iter().map(|grant| grant.granted.0).sum();
            let kept: i64 = books.grants.iter().map(|grant| grant.remaining.0).sum();
            prop_assert!(kept + spent <= paid, "{kept} + {spent} > {paid}");
            let drawn: i64 = books.grants.iter().map(Grant::drawn).sum();
            prop_assert_eq!(drawn, spent);
        }
    }
}

#[test]
fn what_was_drawn_under_a_lesser_plan_is_not_drawn_from_its_renewal() {
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    books.learn(&MAX_1, &mut refunded);
    books.learn(&News::Plan("sub_1", "pro", 10_000, 1600), &mut refunded);
    assert!(books.spend(4000));
    assert_eq!(books.total(), 6000);
    books.learn(&PRO_2, &mut refunded);
    assert_eq!(books.total(), 10_000);
}

#[test]
fn what_was_carried_and_spent_is_not_drawn_from_the_next_plan() {
    let roll = |invoice, period| News::Paid(invoice, "sub_1", "roll", 1000, period, 500);
    let (mut books, mut refunded) = (Books::default(), Vec::new());
    books.learn(&roll("in_1", (1000, 2000)), &mut refunded);
    books.learn(&roll("in_2", (2000, 3000)), &mut refunded);
    assert!(books.spend(1300));
    books.learn(&PRO_3, &mut refunded);
    assert_eq!(books.total(), 10_000);
}

#[test]
fn of_what_settled_debts_the_latest_that_did_not_come_back_comes_back_first() {
    let settlements = [(3, 100), (5, 200), (8, -250), (9, 70)].map(|(row, taken)| (row, Credits(taken)));
    let came_back = |credits| -> Vec<(i64, i64)> {
        let returned = last_settled(1, &settlements, Credits(credits));
        returned.iter().map(|returned| (returned.drawn_by, returned.credits.0)).collect()
    };
    // Row 8 gave back all of row 5 and half of row 3.
    assert_eq!(came_back(60), [(9, 60)]);
    assert_eq!(came_back(120), [(9, 70), (3, 50)]);
}

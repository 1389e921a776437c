//! What opens, stays, is set aside and ends: rule 7 from trials to cancellation, and what rules 5, 8 and 9 add.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Span, TimeDelta};
use stripe_credits_rules::catalog::ReversalPolicy;
use stripe_credits_rules::streams::State;
use stripe_credits_rules::streams::facts::{GrantKey, ItemContent, SubscriptionState, Terms};

use crate::build::{
    History, Invoice, MAX, PACK, PRO, Price, QUARTER_IN_PARTS, ROLL, SEAT, YEAR, date, dates, day, days,
    invoice,
};

/// The n-th month of an item.
fn month(price: Price, n: i32) -> Invoice {
    let from = f64::from(n) * 30.0;
    invoice(&format!("in_{n}"), from).whole("si_1", price, 1, days(from, from + 30.0))
}

fn bought(price: Price) -> History {
    let mut history = History::new();
    history.pay(month(price, 0));
    history
}

/// An upgrade to max by the rest of a month that a day leaves.
fn upgrade(from: f64, to: f64) -> Invoice {
    let rest = days(from, to);
    invoice("in_up", from).credit("si_1", PRO, 1, rest).charge("si_1", MAX, 1, rest)
}

// ---- trials and gifts ----

fn trial(id: &str, from: f64, to: f64) -> Invoice {
    let price = PRO.with(|terms| terms.trial_credits = Credits(300));
    invoice(id, from).whole("si_1", price, 1, days(from, to)).last(|line| line.amount.0 = 0)
}

#[test]
fn a_line_of_0_grants_trial_credits_once_per_user() {
    let mut history = History::new();
    history.pay(trial("in_a", 0.0, 14.0));
    assert_eq!(history.stands(), (300, 0));
    // It is extended: another line of 0.
    history.pay(trial("in_b", 7.0, 30.0));
    assert_eq!(history.stands(), (300, 0));
    history.pay(trial("in_c", 7.0, 30.0).of("sub_2"));
    assert_eq!(history.stands(), (300, 0));
}

#[test]
fn a_trial_lapses_with_its_line_or_when_a_paid_period_of_its_item_opens() {
    let mut expired = History::new();
    expired.pay(trial("in_a", 0.0, 14.0));
    expired.pass(14.0);
    assert_eq!(expired.stands(), (0, 0));
    let mut paid = History::new();
    paid.pay(trial("in_a", 0.0, 14.0));
    paid.spend(100);
    paid.pay(invoice("in_b", 7.0).whole("si_1", PRO, 1, days(7.0, 37.0)));
    assert_eq!(paid.stands(), (10_000, 0));
}

#[test]
fn a_gift_of_0_grants_nothing_and_displaces_nothing() {
    let mut history = bought(PRO);
    history
        .pay(invoice("in_gift", 10.0).whole("si_1", PRO, 1, days(10.0, 40.0)).last(|line| line.amount.0 = 0));
    assert_eq!(history.stands(), (10_000, 0));
}

// ---- when a period opens ----

#[test]
fn a_renewal_sets_aside_what_is_left_of_the_period_before() {
    let mut history = bought(PRO);
    history.spend(4_000);
    history.pay(month(PRO, 1));
    assert_eq!(history.stands(), (10_000, 0));
    assert_eq!(history.of_period("si_1", days(0.0, 30.0))[0].set_aside, Credits(6_000));
}

#[test]
fn a_renewal_that_is_paid_late_opens_late() {
    let mut history = bought(PRO);
    let mut late = month(PRO, 1);
    late.payment.paid_at = day(40.0);
    history.pass(35.0);
    assert_eq!(history.stands(), (10_000, 0), "what is left can be spent until then");
    history.spend(1_000);
    history.pay(late);
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn prebilled_months_come_when_they_begin() {
    let mut history = bought(PRO);
    let ahead = invoice("in_ahead", 5.0);
    let ahead = ahead.whole("si_1", PRO, 1, days(30.0, 60.0)).whole("si_1", PRO, 1, days(60.0, 90.0));
    history.pay(ahead);
    for (at, balance) in [(5.0, 10_000), (30.0, 10_000), (59.0, 10_000), (60.0, 10_000), (95.0, 10_000)] {
        history.pass(at);
        assert_eq!(history.stands(), (balance, 0), "day {at}");
    }
    assert_eq!(history.of_period("si_1", days(30.0, 60.0))[0].set_aside, Credits(10_000));
}

#[test]
fn a_period_that_starts_no_later_than_it_was_paid_has_begun_whatever_the_clock_says() {
    let mut history = bought(PRO);
    history.pass(29.0);
    let renewal = month(PRO, 1);
    // Stripe's clock is ahead of ours.
    history.invoices.push(renewal);
    history.know(|_| {});
    assert_eq!(history.stands(), (10_000, 0));
    assert_eq!(history.of_period("si_1", days(30.0, 60.0))[0].state, State::Open);
}

#[test]
fn of_earlier_periods_together_at_most_max_rollover_stays_newest_first() {
    let mut history = bought(ROLL);
    history.spend(200);
    history.pay(month(ROLL, 1));
    assert_eq!(history.stands(), (1_500, 0));
    history.pay(month(ROLL, 2));
    assert_eq!(history.stands(), (1_500, 0));
    let left = |n: f64| history.of_period("si_1", days(n * 30.0, n * 30.0 + 30.0))[0].remaining.0;
    assert_eq!([left(0.0), left(1.0), left(2.0)], [0, 500, 1_000]);
}

#[test]
fn the_opening_prices_rollover_decides() {
    let mut history = bought(ROLL);
    history.pay(month(PRO, 1));
    assert_eq!(history.stands(), (10_000, 0));
    history.pay(month(ROLL, 2));
    assert_eq!(history.stands(), (1_500, 0));
}

#[test]
fn what_was_set_aside_comes_back_no_more_than_that_if_the_later_period_is_reversed_whole() {
    let mut history = bought(PRO);
    history.spend(4_000);
    history.pay(month(PRO, 1));
    history.spend(1_000);
    history.refund("in_1", 10_000, ReversalPolicy::Debt);
    // 6,000 are back, and settle what was drawn of the reversed period.
    assert_eq!(history.stands(), (5_000, 0));
}

#[test]
fn what_is_paid_for_an_earlier_period_afterwards_stays_until_the_next_opening() {
    let mut history = bought(PRO);
    history.pay(month(PRO, 2));
    let mut late = month(PRO, 1);
    late.payment.paid_at = day(65.0);
    history.pay(late);
    assert_eq!(history.stands(), (20_000, 0));
    history.pay(month(PRO, 3));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn what_is_paid_afterwards_stays_although_as_much_had_been_credited_before() {
    let half = days(15.0, 30.0);
    let mut history = bought(PRO);
    history.pay(month(PRO, 1));
    history.pay(invoice("in_credit", 40.0).credit("si_1", PRO, 1, half));
    history.pay(month(PRO, 2));
    assert_eq!(history.stands(), (10_000, 0), "half of the first month was set aside, and half was credited");
    history.pay(invoice("in_late", 65.0).charge("si_1", PRO, 1, half));
    assert_eq!(history.stands(), (15_000, 0));
    history.pay(month(PRO, 3));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn what_is_paid_on_a_renewal_stays_although_an_earlier_opening_credited_more_than_was_paid() {
    let half = days(15.0, 30.0);
    let mut history = bought(PRO);
    history.pay(invoice("in_anchor", 15.0).credit("si_1", PRO, 3, half).whole(
        "si_1",
        MAX,
        1,
        days(15.0, 45.0),
    ));
    assert_eq!(history.stands(), (25_000, 0), "5,000 more were credited than the first month was worth");
    let renewal = invoice("in_renewal", 45.0).charge("si_1", PRO, 2, half);
    history.pay(renewal.whole("si_1", MAX, 1, days(45.0, 75.0)));
    assert_eq!(
        history.stands(),
        (40_000, 0),
        "30,000, and 5,000 of two plans' halves, and what settled the debt"
    );
}

#[test]
fn the_net_of_prorations_that_ride_on_a_renewal_stays_beside_it() {
    let mut history = bought(PRO);
    history.spend(9_000);
    let rest = days(15.0, 30.0);
    let renewal = month(MAX, 1).credit("si_1", PRO, 1, rest).charge("si_1", MAX, 1, rest);
    history.pay(renewal);
    assert_eq!(history.stands(), (40_000, 0), "15,000 − 5,000 were paid for half a month that is over");
    history.pay(month(MAX, 2));
    assert_eq!(history.stands(), (30_000, 0));
}

#[test]
fn a_part_that_is_paid_after_its_end_stays_until_the_end_of_the_part_that_runs_then() {
    let mut history = History::new();
    let quarter = dates("2026-01-01", "2026-04-01");
    history.pay(invoice("in_0", 45.0).whole("si_1", QUARTER_IN_PARTS, 1, quarter));
    assert_eq!(history.stands(), (20_000, 0));
    history.pass_to(date("2026-03-01"));
    assert_eq!(history.stands(), (10_000, 0));
    history.pass_to(date("2026-04-01"));
    assert_eq!(history.stands(), (0, 0));
}

#[test]
fn periods_with_one_start_do_not_displace_each_other() {
    let mut history = bought(PRO);
    history.pay(invoice("in_x", 0.0).whole("si_1", PRO, 1, days(0.0, 31.0)));
    assert_eq!(history.stands(), (20_000, 0));
}

#[test]
fn a_period_that_is_reversed_whole_displaces_nothing() {
    let mut history = bought(PRO);
    history.pay(month(PRO, 1));
    history.refund("in_1", 10_000, ReversalPolicy::Debt);
    assert_eq!(history.stands(), (10_000, 0));
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert =
        |order: Vec<usize>| (0..count).map(move |at| [&order[..at], &[count - 1], &order[at..]].concat());
    orders(count - 1).into_iter().flat_map(insert).collect()
}

/// What is there in the end if a spend stands after the first of some invoices, all of which are old.
fn totals_with_a_spend_after_the_first(invoices: &[Invoice], amount: i64) -> Vec<i64> {
    let total = |order: Vec<usize>| {
        let mut history = History::new();
        history.pass(1_000.0);
        for (index, which) in order.into_iter().enumerate() {
            history.pay(invoices[which].clone());
            if index == 0 {
                history.spend(amount);
            }
        }
        history.balances().total()
    };
    orders(invoices.len()).into_iter().map(total).collect()
}

#[test]
fn a_spend_between_periods_invoices_comes_to_the_same_whichever_is_known_first() {
    for (price, amount, total) in [
        (PRO, 4_000, 10_000),
        (PRO, 10_000, 10_000),
        (ROLL, 200, 1_500),
        (ROLL, 700, 1_500),
        (ROLL, 1_000, 1_500),
    ] {
        let months: Vec<Invoice> = (0..3).map(|n| month(price, n)).collect();
        assert_eq!(totals_with_a_spend_after_the_first(&months, amount), [total; 6], "{} {amount}", price.id);
    }
    let two: Vec<Invoice> = (0..2).map(|n| month(ROLL, n)).collect();
    assert_eq!(totals_with_a_spend_after_the_first(&two, 200), [1_500; 2]);
    assert_eq!(totals_with_a_spend_after_the_first(&two, 700), [1_300; 2]);
}

// ---- money back ----

#[test]
fn a_new_anchor_takes_what_was_drawn_beyond_the_used_time() {
    for (spent, balance) in [(1_000, 30_000), (9_000, 26_000)] {
        let mut history = bought(PRO);
        history.spend(spent);
        let anew = invoice("in_1", 15.0).credit("si_1", PRO, 1, days(15.0, 30.0));
        history.pay(anew.whole("si_1", MAX, 1, days(15.0, 45.0)));
        assert_eq!(history.stands(), (balance, 0));
    }
}

#[test]
fn a_payment_that_came_back_whole_is_as_if_it_had_never_been_its_credit_lines_too() {
    let mut history = bought(PRO);
    history.pay(upgrade(15.0, 30.0));
    history.refund("in_up", 10_000, ReversalPolicy::Debt);
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [10_000]);
}

#[test]
fn of_a_payment_that_came_back_in_part_a_cent_takes_a_cents_worth_and_credit_lines_stand() {
    let mut history = bought(PRO);
    history.pay(upgrade(15.0, 30.0));
    history.refund("in_up", 1_000, ReversalPolicy::Debt);
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [19_000]);
}

#[test]
fn a_part_refund_takes_parts_from_the_far_end() {
    let mut history = History::new();
    let quarter = dates("2026-01-01", "2026-04-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", QUARTER_IN_PARTS, 1, quarter));
    history.refund("in_0", 15_000, ReversalPolicy::Debt);
    assert_eq!(history.worth("si_1", quarter), [10_000, 5_000, 0]);
    assert_eq!(history.of_period("si_1", quarter)[2].state, State::Ended);
}

#[test]
fn the_first_month_refunded_after_4_000_were_spent_is_owed_in_both_orders() {
    for refund_first in [true, false] {
        let mut history = bought(PRO);
        history.spend(4_000);
        if refund_first {
            history.refund("in_0", 10_000, ReversalPolicy::Debt);
            history.pay(month(PRO, 1));
        } else {
            history.pay(month(PRO, 1));
            history.refund("in_0", 10_000, ReversalPolicy::Debt);
        }
        assert_eq!(history.stands(), (6_000, 0));
    }
}

#[test]
fn forgive_writes_off_what_reversals_leave_but_never_what_a_credit_line_takes_back() {
    let mut refunded = bought(PRO);
    refunded.spend(4_000);
    refunded.refund("in_0", 10_000, ReversalPolicy::Forgive);
    assert_eq!(refunded.stands(), (0, 0));
    refunded.pay(month(PRO, 1));
    assert_eq!(refunded.stands(), (10_000, 0));
    let mut credited = bought(PRO);
    credited.spend(9_000);
    credited.pay(invoice("in_1", 15.0).credit("si_1", PRO, 1, days(15.0, 30.0)));
    assert_eq!(credited.stands(), (0, 4_000));
    credited.refund("in_0", 10_000, ReversalPolicy::Forgive);
    assert_eq!(credited.stands(), (0, 4_000), "what the refund leaves beyond that is written off");
}

#[test]
fn a_credit_for_time_that_nobody_paid_is_debt_settled_by_what_it_buys() {
    // Pro, upgraded by an invoice that stays open, downgraded by a paid one; then the open one is paid, then refunded.
    let mut history = bought(PRO);
    let down = days(15.0, 30.0);
    history.spend(10_000);
    history.pay(invoice("in_down", 15.0).credit("si_1", MAX, 1, down).charge("si_1", PRO, 1, down));
    assert_eq!(history.stands(), (0, 10_000));
    history.pay(upgrade(15.0, 30.0));
    assert_eq!(history.stands(), (0, 0));
    history.refund("in_up", 10_000, ReversalPolicy::Debt);
    assert_eq!(history.stands(), (0, 10_000));
}

#[test]
fn seats_up_and_down_within_minutes_are_worth_what_stayed_paid() {
    let mut history = bought(SEAT);
    let (up, down) = (days(1.0, 30.0), days(1.0 + 300.0 / 86_400.0, 30.0));
    history.pay(invoice("in_1", 1.0).credit("si_1", SEAT, 1, up).charge("si_1", SEAT, 100, up));
    history.pay(invoice("in_2", 1.0).credit("si_1", SEAT, 100, down).charge("si_1", SEAT, 1, down));
    assert_eq!(history.stands(), (1_011, 0));
}

#[test]
fn what_settled_a_debt_comes_back_if_the_reversal_is_undone() {
    let mut history = History::new();
    history.buy("cs_1", 500);
    history.spend(300);
    let refund = |history: &mut History, cents: i64| {
        history.know(|facts| {
            (facts.singles[0].came_back.amount.0, facts.singles[0].came_back.of.0) = (cents, 1_000);
        });
    };
    refund(&mut history, 1_000);
    assert_eq!(history.stands(), (0, 300));
    history.buy("cs_2", 500);
    assert_eq!(history.stands(), (200, 0));
    refund(&mut history, 0);
    assert_eq!(history.stands(), (700, 0));
}

/// A quarter that became max after a month, known in some order long after: 0 the quarter, 1 the change, 2 max's renewal.
fn from_a_quarter_to_max(order: [usize; 3]) -> History {
    let quarter = PRO.with(|terms| {
        (terms.credits, terms.every) = (Credits(30_000), Span::Months(3));
    });
    let paid = invoice("in_0", 0.0).whole("si_1", quarter, 1, days(0.0, 90.0));
    let change = invoice("in_1", 30.0).credit("si_1", quarter, 1, days(30.0, 90.0));
    let change = change.whole("si_1", MAX, 1, days(30.0, 60.0));
    let renewal = invoice("in_2", 60.0).whole("si_1", MAX, 1, days(60.0, 90.0));
    let invoices = [paid, change, renewal];
    let mut history = History::new();
    history.pass(70.0);
    for index in order {
        history.pay(invoices[index].clone());
    }
    history
}

#[test]
fn what_settled_a_debt_that_never_was_is_as_if_it_had_never_been_drawn() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let history = from_a_quarter_to_max(order);
        assert_eq!(history.stands(), (30_000, 0), "in the order {order:?}");
    }
}

#[test]
fn what_settled_a_debt_that_was_comes_back_though_its_period_is_over_until_the_next_opening() {
    let mut history = bought(PRO);
    history.buy("cs_1", 500);
    history.spend(10_300);
    let refund = |history: &mut History, cents: i64| {
        history.know(|facts| {
            (facts.singles[0].came_back.amount.0, facts.singles[0].came_back.of.0) = (cents, 1_000);
        });
    };
    refund(&mut history, 1_000);
    history.pay(month(PRO, 1));
    assert_eq!(history.stands(), (9_700, 0));
    history.pay(month(PRO, 2));
    refund(&mut history, 0);
    assert_eq!(history.stands(), (10_500, 0));
    history.pay(month(PRO, 3));
    assert_eq!(history.stands(), (10_200, 0));
}

// ---- the plan goes down by status alone ----

#[test]
fn a_plan_that_goes_down_by_status_keeps_the_new_prices_amount_and_the_rest_comes_back() {
    let mut history = bought(MAX);
    history.spend(4_000);
    history.state(1.0, &[("si_1", PRO, 1)]);
    assert_eq!(history.stands(), (10_000, 0));
    assert_eq!(history.of_period("si_1", days(0.0, 30.0))[0].set_aside, Credits(16_000));
    history.state(2.0, &[("si_1", MAX, 1)]);
    assert_eq!(history.stands(), (26_000, 0));
}

#[test]
fn a_later_state_of_the_same_content_changes_nothing() {
    let mut history = bought(MAX);
    history.state(1.0, &[("si_1", PRO, 1)]);
    history.spend(4_000);
    history.state(2.0, &[("si_1", PRO, 1)]);
    assert_eq!(history.stands(), (6_000, 0), "no second helping");
}

#[test]
fn going_down_in_two_steps_counts_from_the_first_and_gives_no_second_helping() {
    let mut further = bought(MAX);
    further.state(1.0, &[("si_1", PRO, 2)]);
    further.spend(15_000);
    assert_eq!(further.stands(), (5_000, 0));
    further.state(2.0, &[("si_1", PRO, 1)]);
    assert_eq!(
        further.stands(),
        (0, 0),
        "of the 30,000 at the first state 10,000 stay, and 15,000 are spent"
    );
    let mut back_by_half = bought(MAX);
    back_by_half.state(1.0, &[("si_1", PRO, 1)]);
    back_by_half.spend(4_000);
    back_by_half.state(2.0, &[("si_1", PRO, 2)]);
    assert_eq!(back_by_half.stands(), (16_000, 0));
    back_by_half.state(3.0, &[("si_1", MAX, 1)]);
    assert_eq!(back_by_half.stands(), (26_000, 0), "it is back");
}

#[test]
fn going_down_by_items_that_replace_each_other_counts_from_the_first_too() {
    let mut history = bought(MAX);
    history.state(0.5, &[("si_1", MAX, 1)]);
    history.state(1.0, &[("si_2", PRO, 1)]);
    history.spend(4_000);
    assert_eq!(history.stands(), (6_000, 0));
    history.state(2.0, &[("si_3", PRO, 2)]);
    assert_eq!(history.stands(), (16_000, 0));
}

#[test]
fn what_the_lines_account_for_is_not_down_by_status() {
    let rest = days(15.0, 30.0);
    let mut invoiced = bought(MAX);
    invoiced.pay(invoice("in_1", 15.0).credit("si_1", MAX, 1, rest).charge("si_1", PRO, 1, rest));
    invoiced.state(15.0, &[("si_1", PRO, 1)]);
    assert_eq!(invoiced.stands(), (20_000, 0));
    let mut removed = bought(PRO);
    removed.pay(invoice("in_1", 10.0).whole("si_2", MAX, 1, days(10.0, 40.0)));
    removed.state(10.0, &[("si_1", PRO, 1), ("si_2", MAX, 1)]);
    removed.pay(invoice("in_2", 25.0).credit("si_2", MAX, 1, days(25.0, 40.0)));
    removed.state(25.0, &[("si_1", PRO, 1)]);
    assert_eq!(removed.stands(), (25_000, 0), "if they are credits only, they bill 0");
}

#[test]
fn a_downgrade_by_prorations_of_0_is_accounted_for_too() {
    let mut history = History::new();
    history.pay(month(MAX, 0).free());
    let rest = days(15.0, 30.0);
    history.pay(invoice("in_1", 15.0).credit("si_1", MAX, 1, rest).charge("si_1", PRO, 1, rest).free());
    history.state(15.0, &[("si_1", PRO, 1)]);
    assert_eq!(history.stands(), (20_000, 0));
}

#[test]
fn a_state_that_is_older_than_the_items_latest_lines_says_nothing() {
    let mut history = bought(MAX);
    history.state(1.0, &[("si_1", PRO, 1)]);
    assert_eq!(history.stands(), (10_000, 0));
    let rest = days(15.0, 30.0);
    history.pay(invoice("in_1", 15.0).charge("si_1", MAX, 1, rest));
    assert_eq!(history.stands(), (45_000, 0));
}

#[test]
fn under_keep_it_keeps_until_the_period_ends() {
    let mut history = bought(MAX.keeping());
    history.state(1.0, &[("si_1", PRO.keeping(), 1)]);
    assert_eq!(history.stands(), (30_000, 0));
    history.pay(month(PRO, 1));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn an_item_that_is_no_longer_listed_holds_0_at_once_or_at_its_periods_end_under_keep() {
    for (price, at_once) in [(PRO, 0), (PRO.keeping(), 10_000)] {
        let mut history = bought(price);
        history.state(0.0, &[("si_1", price, 1), ("si_2", SEAT, 1)]);
        history.state(1.0, &[("si_2", SEAT, 1)]);
        assert_eq!(history.stands(), (at_once, 0));
        history.pass(30.0);
        assert_eq!(history.stands(), (0, 0));
    }
}

#[test]
fn under_keep_what_is_no_longer_listed_stays_gone_whatever_later_states_say() {
    let removed = || {
        let mut history = bought(PRO.keeping());
        history.state(0.0, &[("si_1", PRO.keeping(), 1), ("si_2", SEAT, 1)]);
        history.state(1.0, &[("si_2", SEAT, 1)]);
        assert_eq!(history.stands(), (10_000, 0));
        history
    };
    let mut running = removed();
    running.state(31.0, &[("si_2", SEAT, 1)]);
    assert_eq!(running.stands(), (0, 0));
    let mut canceled = removed();
    canceled.state_of("sub_1", 32.0, &[("si_2", SEAT, 1)], |state| {
        state.is_over = true;
        state.ended_at = Some(state.as_of);
    });
    assert_eq!(canceled.stands(), (0, 0));
}

#[test]
fn what_a_state_set_aside_of_a_period_does_not_come_back_by_a_cancellation() {
    for (items, stays) in [(&[("si_2", SEAT, 1)][..], 0), (&[("si_1", SEAT, 1), ("si_2", SEAT, 1)], 1_000)] {
        let mut history = bought(PRO);
        history.state(0.0, &[("si_1", PRO, 1), ("si_2", SEAT, 1)]);
        history.state(1.0, items);
        assert_eq!(history.stands(), (stays, 0));
        history.state_of("sub_1", 2.0, items, |state| {
            state.is_over = true;
            state.ended_at = Some(state.as_of);
        });
        assert_eq!(history.stands(), (stays, 0));
    }
}

#[test]
fn what_a_state_set_aside_of_a_period_is_back_once_the_period_is_over_and_none_displaced_it() {
    let mut history = bought(SEAT);
    history.state(0.0, &[("si_1", SEAT, 1), ("si_2", PRO, 1)]);
    history.state(1.0, &[("si_2", PRO, 1)]);
    assert_eq!(history.stands(), (0, 0));
    history.state(31.0, &[("si_2", PRO, 1)]);
    assert_eq!(history.stands(), (1_000, 0));
}

#[test]
fn an_item_that_no_state_ever_listed_is_not_in_the_list() {
    let mut history = bought(PRO);
    history.state(1.0, &[("si_2", SEAT, 1)]);
    assert_eq!(history.stands(), (0, 0));
}

#[test]
fn a_price_that_the_catalog_does_not_know_limits_nothing() {
    let mut history = bought(MAX);
    history.state(1.0, &[("si_1", PRO, 1)]);
    history.know(|facts| {
        for state in &mut facts.items {
            if let ItemContent::Listed { terms, .. } = &mut state.content {
                *terms = None;
            }
        }
    });
    assert_eq!(history.stands(), (30_000, 0));
}

#[test]
fn of_each_part_at_most_the_new_prices_amount_stays() {
    let mut history = History::new();
    let quarter = dates("2026-01-01", "2026-04-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", QUARTER_IN_PARTS, 3, quarter));
    history.state(1.0, &[("si_1", QUARTER_IN_PARTS, 1)]);
    for (at, balance) in [("2026-01-03", 10_000), ("2026-02-01", 10_000), ("2026-03-01", 10_000)] {
        history.pass_to(date(at));
        assert_eq!(history.stands(), (balance, 0), "{at}");
    }
}

#[test]
fn a_status_grants_nothing() {
    let mut history = bought(PRO);
    history.state(1.0, &[("si_1", MAX, 5)]);
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn a_pause_and_a_resumption_change_nothing_and_credits_follow_the_lines() {
    let mut history = bought(PRO);
    // Paused is a status like another: the items stay in the list.
    history.state(10.0, &[("si_1", PRO, 1)]);
    history.pass(40.0);
    assert_eq!(history.stands(), (10_000, 0), "credits stay");
    history.state(50.0, &[("si_1", PRO, 1)]);
    history.pay(invoice("in_1", 50.0).whole("si_1", PRO, 1, days(50.0, 80.0)));
    assert_eq!(history.stands(), (10_000, 0));
}

// ---- cancellation ----

fn canceled(at: f64, period_end: f64) -> impl FnOnce(&mut SubscriptionState) {
    move |state| {
        (state.is_over, state.ended_at, state.ends_at) = (true, Some(day(at)), Some(day(period_end)));
    }
}

#[test]
fn under_keep_credits_stay_until_a_later_subscription_opens_a_period() {
    let mut history = bought(PRO);
    history.spend(1_000);
    history.state_of("sub_1", 10.0, &[("si_1", PRO, 1)], canceled(10.0, 30.0));
    history.pass(100.0);
    assert_eq!(history.stands(), (9_000, 0));
    history.pay(invoice("in_again", 100.0).whole("si_9", PRO, 1, days(100.0, 130.0)).of("sub_2"));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn a_subscription_that_began_earlier_displaces_nothing_of_a_canceled_one() {
    let mut history = History::new();
    history.pay(invoice("in_first", 0.0).whole("si_9", SEAT, 1, days(0.0, 30.0)).of("sub_2"));
    history.pay(invoice("in_0", 5.0).whole("si_1", PRO, 1, days(5.0, 35.0)));
    history.state_of("sub_1", 10.0, &[("si_1", PRO, 1)], canceled(10.0, 35.0));
    history.pay(invoice("in_second", 30.0).whole("si_9", SEAT, 1, days(30.0, 60.0)).of("sub_2"));
    assert_eq!(history.stands(), (11_000, 0));
}

#[test]
fn under_expire_credits_lapse_at_the_periods_end_known_from_the_state() {
    let ways: [fn(&mut SubscriptionState); 3] = [
        |state| state.ends_at = Some(day(30.0)),
        |state| state.ends_at = Some(day(20.0)),
        |state| (state.is_over, state.ended_at, state.ends_at) = (true, Some(day(10.0)), Some(day(30.0))),
    ];
    for (way, end) in ways.into_iter().zip([30.0, 20.0, 30.0]) {
        let mut history = bought(PRO.expiring());
        history.state_of("sub_1", 10.0, &[("si_1", PRO, 1)], way);
        assert_eq!(history.of_period("si_1", days(0.0, 30.0))[0].expires_at, Some(day(end)));
        history.pass(end - 0.1);
        assert_eq!(history.stands(), (10_000, 0));
        history.pass(end);
        assert_eq!(history.stands(), (0, 0));
    }
}

#[test]
fn a_cancellation_that_is_taken_back_takes_nothing() {
    let mut history = bought(PRO.expiring());
    history.state_of("sub_1", 10.0, &[("si_1", PRO, 1)], |state| state.ends_at = Some(day(30.0)));
    history.state(12.0, &[("si_1", PRO, 1)]);
    history.pass(40.0);
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn prebilled_periods_still_come_unless_their_money_went_back() {
    for price in [PRO, PRO.expiring()] {
        let mut history = bought(price);
        history.pay(invoice("in_ahead", 5.0).whole("si_1", price, 1, days(30.0, 60.0)));
        history.state_of("sub_1", 10.0, &[("si_1", price, 1)], canceled(10.0, 30.0));
        history.pass(35.0);
        assert_eq!(history.stands(), (10_000, 0));
        history.refund("in_ahead", 10_000, ReversalPolicy::Debt);
        assert_eq!(history.stands().0, if price.terms.expires_when_canceled { 0 } else { 10_000 });
    }
}

#[test]
fn a_canceled_years_parts_come_until_its_end_and_no_longer() {
    let mut history = History::new();
    let year = dates("2026-01-01", "2027-01-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", YEAR.expiring(), 1, year));
    history.state_of("sub_1", 10.0, &[("si_1", YEAR, 1)], |state| state.ends_at = Some(date("2026-03-15")));
    for (at, balance) in
        [("2026-01-12", 10_000), ("2026-03-01", 10_000), ("2026-03-15", 0), ("2026-04-01", 0)]
    {
        history.pass_to(date(at));
        assert_eq!(history.stands(), (balance, 0), "{at}");
    }
    let parts = history.of_period("si_1", year);
    assert!(parts[3..].iter().all(|part| part.state == State::Ended), "the others have ended");
}

// ---- parts ----

#[test]
fn the_parts_of_a_year_that_was_left_for_another_plan_never_come_back() {
    let mut history = History::new();
    let year = dates("2026-01-01", "2027-01-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", YEAR, 1, year));
    for n in 0..4 {
        let from = 40.0 + 30.0 * f64::from(n);
        history.pay(invoice(&format!("in_max_{n}"), from).whole("si_1", MAX, 1, days(from, from + 30.0)));
        assert_eq!(history.stands(), (30_000, 0));
        history.pass(from + 29.0);
        assert_eq!(history.stands(), (30_000, 0));
    }
    assert!(history.of_period("si_1", year)[5..].iter().all(|part| part.state == State::Ended));
}

#[test]
fn a_part_can_be_spent_from_its_start_to_its_end() {
    let mut history = History::new();
    let year = dates("2026-01-01", "2027-01-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", YEAR, 1, year));
    history.spend(3_000);
    assert_eq!(history.account.holdings().next_change, Some(date("2026-02-01")));
    history.pass_to(date("2026-02-01") - TimeDelta::seconds(1));
    assert_eq!(history.stands(), (7_000, 0));
    history.pass_to(date("2026-02-01"));
    assert_eq!(history.stands(), (10_000, 0));
}

// ---- the first purchase ----

#[test]
fn the_first_purchases_bonus_is_the_earliest_paid_invoices_that_still_stands() {
    let with = |price: Price, bonus: i64| {
        price.with(|terms: &mut Terms| terms.first_purchase_bonus = Credits(bonus))
    };
    let mut history = History::new();
    history.pay(invoice("in_free", 0.0).whole("si_0", with(PRO, 900), 1, days(0.0, 30.0)).free().of("sub_0"));
    assert_eq!(history.balances().promotional, 0, "a first invoice discounted to 0 earns none");
    history.pay(invoice("in_0", 1.0).whole("si_1", with(PRO, 700), 1, days(1.0, 31.0)));
    history.pay(invoice("in_1", 2.0).whole("si_2", with(MAX, 100), 1, days(2.0, 32.0)));
    assert_eq!(history.balances().promotional, 700);
    history.refund("in_0", 5_000, ReversalPolicy::Debt);
    assert_eq!(history.balances().promotional, 350);
    history.refund("in_0", 10_000, ReversalPolicy::Debt);
    assert_eq!(history.balances().promotional, 100);
}

// ---- spending ----

#[test]
fn what_would_be_lost_soonest_is_drawn_first() {
    let mut history = bought(PRO);
    history.buy("cs_1", 500);
    history.pay(invoice("in_2", 0.0).whole("si_2", PACK, 1, days(0.0, 30.0)));
    history.pay(invoice("in_3", 0.0).whole("si_3", ROLL, 1, days(0.0, 30.0)));
    history.spend(11_500);
    let drawn: Vec<&GrantKey> = history.account.draws.iter().map(|draw| &draw.grant).collect();
    let item = |key: &GrantKey| match key {
        GrantKey::Period { stream, .. } => stream.item.clone().unwrap_or_default(),
        key => key.item(),
    };
    assert_eq!(drawn.into_iter().map(item).collect::<Vec<_>>(), ["si_1", "si_3", "si_2"]);
}

#[test]
fn what_a_spend_gives_back_to_a_swept_period_stays_until_the_next_opening() {
    let mut history = bought(PRO);
    history.spend(4_000);
    history.pay(month(PRO, 1));
    history.give_back(1_000);
    assert_eq!(history.stands(), (11_000, 0));
    history.pay(month(PRO, 2));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn what_a_spend_gives_back_to_a_grant_that_has_lapsed_lapses() {
    let mut history = bought(PRO.expiring());
    history.spend(4_000);
    history.state_of("sub_1", 10.0, &[("si_1", PRO, 1)], canceled(10.0, 30.0));
    history.pass(31.0);
    history.give_back(1_000);
    assert_eq!(history.stands(), (0, 0));
    assert_eq!(history.of_period("si_1", days(0.0, 30.0))[0].expired, Credits(7_000));
}

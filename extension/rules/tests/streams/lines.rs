//! What lines are worth: rule 7, sentence by sentence, from streams to prorations.

use stripe_credits_rules::amount::{Credits, MinorUnits};
use stripe_credits_rules::calendar::{Span, TimeDelta};
use stripe_credits_rules::catalog::{NoPaymentRequired, ReversalPolicy};

use crate::build::{
    BEGINNING, History, MAX, PACK, PRO, QUARTER_IN_PARTS, SEAT, YEAR, date, dates, day, days, invoice,
};

/// The first month of an item.
fn bought(price: crate::build::Price) -> History {
    let mut history = History::new();
    history.pay(invoice("in_0", 0.0).whole("si_1", price, 1, days(0.0, 30.0)));
    history
}

#[test]
fn streams_are_parallel_and_each_renews_by_itself() {
    let mut history = History::new();
    let both = |id, from: f64| {
        let month = days(from, from + 30.0);
        invoice(id, from).whole("si_1", PRO, 1, month).whole("si_2", MAX, 1, month)
    };
    history.pay(both("in_0", 0.0));
    assert_eq!(history.stands(), (40_000, 0));
    history.spend(12_345);
    history.pay(both("in_1", 30.0));
    assert_eq!(history.stands(), (40_000, 0));
}

#[test]
fn an_item_that_took_over_from_another_goes_on_with_its_stream() {
    for state_first in [true, false] {
        let mut history = History::new();
        history.state(0.0, &[("si_old", PRO, 1)]);
        history.pay(invoice("in_0", 0.0).whole("si_old", PRO, 1, days(0.0, 30.0)));
        let change = invoice("in_1", 15.0).credit("si_old", PRO, 1, days(15.0, 30.0)).charge(
            "si_new",
            MAX,
            1,
            days(15.0, 30.0),
        );
        history.pass(15.0);
        if state_first {
            history.state(15.0, &[("si_new", MAX, 1)]);
            history.pay(change);
        } else {
            history.pay(change);
            history.state(15.0, &[("si_new", MAX, 1)]);
        }
        assert_eq!(history.worth("si_old", days(0.0, 30.0)), [20_000]);
        assert_eq!(history.stands(), (20_000, 0));
        // Credits that name either item count, and the renewal of the new one displaces what is left of the old one.
        history.pay(invoice("in_2", 18.0).credit("si_old", MAX, 1, days(18.0, 30.0)));
        assert_eq!(history.stands(), (8_000, 0));
        history.pay(invoice("in_3", 30.0).whole("si_new", MAX, 1, days(30.0, 60.0)));
        assert_eq!(history.stands(), (30_000, 0));
    }
}

#[test]
fn an_item_beside_one_that_stays_is_a_stream_of_its_own() {
    let mut history = bought(PRO);
    history.state(0.0, &[("si_1", PRO, 1)]);
    history.state(10.0, &[("si_1", PRO, 1), ("si_2", SEAT, 1)]);
    history.pay(invoice("in_1", 10.0).charge("si_2", SEAT, 1, days(10.0, 30.0)));
    assert_eq!(history.stands(), (10_666, 0));
}

#[test]
fn lines_that_name_no_item_form_one_stream_of_their_subscription() {
    let mut history = History::new();
    let nameless = |id, from: f64| {
        let line = invoice(id, from).whole("si_1", PRO, 1, days(from, from + 30.0));
        line.last(|line| line.item = None)
    };
    history.pay(nameless("in_0", 0.0));
    history.pay(nameless("in_1", 30.0));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn a_whole_line_opens_a_period_of_its_prices_credits_times_its_quantity() {
    let mut history = History::new();
    history.pay(invoice("in_0", 0.0).whole("si_1", PRO, 3, days(0.0, 30.0)));
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [30_000]);
}

#[test]
fn a_price_that_drips_holds_its_credits_once_for_each_part() {
    let mut history = History::new();
    let quarter = dates("2026-01-01", "2026-04-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", QUARTER_IN_PARTS, 2, quarter));
    assert_eq!(history.worth("si_1", quarter), [20_000, 20_000, 20_000]);
    assert_eq!(history.stands(), (20_000, 0));
}

#[test]
fn whole_lines_of_one_item_price_and_period_on_one_invoice_are_one_line() {
    let month = days(0.0, 30.0);
    let mut tiers = History::new();
    tiers.pay(invoice("in_0", 0.0).whole("si_1", SEAT, 5, month).whole("si_1", SEAT, 3, month));
    assert_eq!(tiers.stands(), (8_000, 0));
    // A flat fee on a line of quantity 0, the units on a line of $0.
    let mut flat = History::new();
    let fee = invoice("in_0", 0.0).whole("si_1", SEAT, 0, month).last(|line| line.amount = MinorUnits(5_000));
    flat.pay(fee.whole("si_1", SEAT, 8, month).last(|line| line.amount = MinorUnits(0)));
    assert_eq!(flat.stands(), (8_000, 0));
}

#[test]
fn what_is_billed_credited_and_billed_again_in_one_second_is_worth_what_was_paid() {
    let mut history = bought(PRO);
    let again =
        invoice("in_1", 0.0).credit("si_1", PRO, 1, days(0.0, 30.0)).whole("si_1", PRO, 1, days(0.0, 30.0));
    history.pay(again);
    assert_eq!(history.stands(), (10_000, 0));
    history.pay(invoice("in_2", 0.0).whole("si_1", MAX, 1, days(0.0, 30.0)));
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [40_000], "whatever their prices");
}

#[test]
fn a_direct_call_is_the_invoices_line_once_whichever_is_known_first() {
    let month = |n: f64| days(n * 30.0, n * 30.0 + 30.0);
    let call = |n: f64| invoice(&format!("call_{n}"), n * 30.0).whole("si_1", PRO, 1, month(n)).direct();
    let bill = |n: f64| invoice(&format!("in_{n}"), n * 30.0).whole("si_1", PRO, 1, month(n));
    for call_first in [true, false] {
        let mut history = History::new();
        let (one, other) = if call_first { (call(0.0), bill(0.0)) } else { (bill(0.0), call(0.0)) };
        history.pay(one);
        history.spend(4_000);
        history.pay(other);
        assert_eq!(history.stands(), (6_000, 0));
        history.pay(call(1.0));
        assert_eq!(history.stands(), (10_000, 0), "the call goes on with the item's stream");
    }
}

#[test]
fn a_stub_opens_its_period_and_counts_by_its_length() {
    let mut history = History::new();
    let stub = dates("2026-01-16", "2026-02-01");
    history.pay(invoice("in_0", 15.0).whole("si_1", PRO, 1, stub));
    assert_eq!(history.worth("si_1", stub), [10_000 * 16 / 31]);
    let long = dates("2026-02-01", "2026-03-15");
    history.pay(invoice("in_1", 31.0).whole("si_1", PRO, 1, long));
    assert_eq!(history.worth("si_1", long), [10_000 * 42 / 28]);
    assert_eq!(history.stands(), (15_000, 0), "the stub is an older period");
}

#[test]
fn months_of_28_to_31_days_are_whole() {
    for (from, to) in
        [("2026-02-01", "2026-03-01"), ("2026-01-31", "2026-02-28"), ("2026-07-01", "2026-08-01")]
    {
        let mut history = History::new();
        history.pay(invoice("in_0", 0.0).whole("si_1", PRO, 1, dates(from, to)));
        assert_eq!(history.worth("si_1", dates(from, to)), [10_000], "{from}");
    }
}

#[test]
fn a_packs_line_counts_whole_whatever_its_period() {
    let mut history = History::new();
    history.pay(invoice("in_0", 0.0).whole("si_1", PACK, 2, days(0.0, 0.0)));
    assert_eq!(history.balances().purchased, 1_000);
    let beside = invoice("in_1", 0.0).whole("si_2", PACK, 1, days(0.0, 0.0)).last(|line| line.item = None);
    history.pay(beside);
    assert_eq!(history.balances().purchased, 1_500);
}

#[test]
fn a_prorated_line_changes_the_period_that_ends_with_it_by_its_share_of_the_interval() {
    let mut history = bought(PRO);
    let change = invoice("in_1", 15.0).credit("si_1", PRO, 1, days(15.0, 30.0)).charge(
        "si_1",
        MAX,
        1,
        days(15.0, 30.0),
    );
    history.pay(change);
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [20_000]);
}

#[test]
fn prorated_lines_of_one_item_price_period_and_direction_are_one() {
    let mut history = bought(SEAT);
    let half = days(15.0, 30.0);
    let fee = invoice("in_1", 15.0).charge("si_1", SEAT, 0, half).last(|line| line.amount = MinorUnits(500));
    history.pay(fee.charge("si_1", SEAT, 4, half).last(|line| line.amount = MinorUnits(0)));
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [3_000]);
}

#[test]
fn of_several_periods_that_end_on_one_day_the_one_that_began_last_before_the_line_changes() {
    let mut history = History::new();
    let (long, short) = (dates("2026-01-29", "2026-02-28"), dates("2026-01-31", "2026-02-28"));
    history.pay(invoice("in_0", 28.0).whole("si_1", PRO, 1, long));
    history.pay(invoice("in_1", 30.0).whole("si_1", PRO, 1, short));
    let last = invoice("in_2", 44.0).credit("si_1", PRO, 1, dates("2026-02-14", "2026-02-28"));
    history.pay(last);
    assert_eq!((history.worth("si_1", long), history.worth("si_1", short)), (vec![10_000], vec![5_000]));
}

#[test]
fn a_seat_bought_in_mid_month_is_worth_by_the_interval_and_its_removal_takes_what_it_cost() {
    let mut history = bought(PRO);
    history.pay(invoice("in_1", 15.0).charge("si_2", SEAT, 1, days(15.0, 30.0)));
    assert_eq!(history.worth("si_2", days(15.0, 30.0)), [500]);
    history.pay(invoice("in_2", 21.0).credit("si_2", SEAT, 1, days(21.0, 30.0)));
    assert_eq!(history.worth("si_2", days(15.0, 30.0)), [200]);
}

#[test]
fn the_interval_is_counted_back_by_the_calendar_if_no_whole_line_has_it() {
    let mut history = History::new();
    let rest = dates("2026-03-15", "2026-03-31");
    history.pay(invoice("in_0", 73.0).charge("si_1", PRO, 1, rest));
    assert_eq!(history.worth("si_1", rest), [10_000 * 16 / 31]);
}

#[test]
fn the_interval_is_stripes_else_the_catalogs() {
    let half_year = dates("2026-01-01", "2026-07-01");
    for (interval, worth) in [(Some(Span::Months(6)), 10_000), (None, 60_000)] {
        let mut history = History::new();
        let line = invoice("in_0", 0.0).whole("si_1", PRO, 1, half_year);
        history.pay(line.last(|line| line.interval = interval));
        assert_eq!(history.worth("si_1", half_year), [worth], "six months, by the catalog's");
    }
}

#[test]
fn of_a_price_in_parts_a_prorated_line_is_worth_the_share_of_each_part_that_it_covers() {
    let mut history = History::new();
    let quarter = dates("2026-01-01", "2026-04-01");
    history.pay(invoice("in_0", 0.0).whole("si_1", QUARTER_IN_PARTS, 1, quarter));
    history.pay(invoice("in_1", 45.0).charge("si_1", QUARTER_IN_PARTS, 1, dates("2026-02-15", "2026-04-01")));
    assert_eq!(history.worth("si_1", quarter), [10_000, 15_000, 20_000], "the running part included");
}

#[test]
fn a_years_charge_that_is_seconds_short_is_whole_and_comes_in_twelve_parts() {
    let mut history = bought(PRO);
    let year = crate::build::dates("2026-01-01", "2027-01-01");
    let short =
        stripe_credits_rules::streams::facts::Period { start: year.start + TimeDelta::seconds(59), ..year };
    let change = invoice("in_1", 0.0).credit("si_1", PRO, 1, days(0.0, 30.0)).charge("si_1", YEAR, 1, short);
    history.pay(change.last(|line| line.interval = None));
    assert_eq!(history.worth("si_1", short), [10_000; 12]);
    history.pass_to(date("2026-02-02"));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn a_partial_years_parts_are_whole_until_its_worth_is_used_up() {
    let mut history = bought(PRO);
    // 320 of 365 days.
    let rest = dates("2026-02-15", "2027-01-01");
    history.pay(invoice("in_1", 45.0).charge("si_1", YEAR, 1, rest));
    let worth = history.worth("si_1", rest);
    assert_eq!(worth[..10], [10_000; 10]);
    assert_eq!(worth[10..], [120_000 * 320 / 365 - 100_000]);
    // A seat more for the last half of it takes by the share of each part's time.
    history.pay(invoice("in_2", 45.0).credit("si_1", YEAR, 1, rest));
    assert_eq!(history.worth("si_1", rest), [0; 11]);
}

#[test]
fn a_charge_that_starts_where_a_period_ends_opens_a_period_of_its_own() {
    let mut history = bought(PRO);
    // The anchor moved on day 10, and the time from the old end to the new one was paid ahead.
    history.pay(invoice("in_1", 10.0).charge("si_1", PRO, 1, days(30.0, 40.0)));
    assert_eq!(history.stands(), (10_000, 0));
    history.pass(30.0);
    assert_eq!(history.stands(), (10_000 * 10 / 31, 0));
    // The whole line of the next period does not end with it.
    history.pay(invoice("in_2", 40.0).whole("si_1", PRO, 1, days(40.0, 70.0)));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn a_charge_that_was_reversed_whole_opens_no_period() {
    let mut history = bought(PRO);
    history.pay(invoice("in_1", 10.0).charge("si_1", YEAR, 1, days(10.0, 365.0)));
    assert_eq!(history.stands().0, 10_000);
    history.refund("in_1", i64::MAX, ReversalPolicy::Debt);
    assert_eq!(history.stands(), (10_000, 0));
    assert!(history.worth("si_1", days(10.0, 365.0)).iter().all(|worth| *worth == 0));
}

#[test]
fn a_period_that_credit_lines_gave_back_from_start_to_end_displaces_nothing() {
    let mut history = bought(PRO);
    let year = days(10.0, 365.0);
    history.pay(invoice("in_1", 10.0).charge("si_1", YEAR, 1, year));
    assert_eq!(history.stands(), (10_000, 0));
    history.pay(invoice("in_2", 10.0).credit("si_1", YEAR, 1, year));
    assert_eq!(history.of_period("si_1", days(0.0, 30.0))[0].remaining, Credits(10_000));
    assert_eq!(history.stands(), (10_000, 0));
}

#[test]
fn a_credit_never_changes_a_period_that_a_whole_line_of_its_own_invoice_opens() {
    let mut history = bought(PRO);
    // A new anchor on the day on which both months end on 28 February.
    let anew = invoice("in_1", 15.0).credit("si_1", PRO, 1, days(15.0, 30.0)).whole(
        "si_1",
        MAX,
        1,
        days(15.0, 45.0),
    );
    history.pay(anew);
    assert_eq!(history.worth("si_1", days(15.0, 45.0)), [30_000]);
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [5_000]);
    let mut clamped = History::new();
    let (old, new) = (dates("2026-01-29", "2026-02-28"), dates("2026-01-31", "2026-02-28"));
    clamped.pay(invoice("in_0", 28.0).whole("si_1", PRO, 1, old));
    clamped.pay(invoice("in_1", 30.0).credit("si_1", PRO, 1, new).whole("si_1", MAX, 1, new));
    assert_eq!(clamped.worth("si_1", new), [30_000]);
    assert_eq!(clamped.worth("si_1", old), [10_000 * 2 / 30]);
}

#[test]
fn a_credit_changes_a_period_that_a_pending_charge_of_its_own_invoice_opened() {
    let mut history = bought(PRO);
    let ahead = days(30.0, 40.0);
    history.pay(invoice("in_1", 12.0).charge("si_1", PRO, 1, ahead).credit("si_1", PRO, 1, ahead));
    assert_eq!(history.worth("si_1", ahead), [0]);
    history.pass(31.0);
    assert_eq!(history.stands(), (10_000, 0), "and it displaces nothing");
}

#[test]
fn a_credit_that_ends_with_no_period_changes_the_one_it_begins_in() {
    let mut history = bought(PRO);
    history.pay(invoice("in_1", 15.0).credit("si_1", PRO, 1, days(15.0, 45.0)));
    // By its length ÷ the interval counted back from its end: 30 of 31 days.
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [10_000 - 10_000 * 30 / 31 - 1]);
}

#[test]
fn a_credit_that_ends_beyond_a_period_of_its_own_counts_whole() {
    let mut history = bought(PRO);
    // A part of a month up to an anchor; the anchor moved by an invoice that stays open, and once more by a paid one.
    history.pay(invoice("in_1", 0.0).charge("si_2", PRO, 1, days(0.0, 10.0)));
    history.pay(invoice("in_2", 1.0).credit("si_2", PRO, 1, days(1.0, 31.0)).whole(
        "si_2",
        PRO,
        1,
        days(1.0, 31.5),
    ));
    assert_eq!(history.worth("si_2", days(0.0, 10.0)), [-6_452]);
}

#[test]
fn a_credit_that_begins_in_no_period_makes_one_that_is_worth_less_than_nothing() {
    let mut history = bought(PRO);
    history.pay(invoice("in_1", 15.0).credit("si_2", SEAT, 10, days(15.0, 30.0)));
    assert_eq!(history.worth("si_2", days(15.0, 30.0)), [-5_000]);
    assert_eq!(history.stands(), (5_000, 0), "a debt like any other, settled at once");
}

#[test]
fn a_period_worth_less_than_nothing_is_debt_at_once_parts_to_come_included() {
    let mut history = History::new();
    let quarter = dates("2026-01-01", "2026-04-01");
    history.pay(invoice("in_0", 0.0).credit("si_1", QUARTER_IN_PARTS, 1, quarter));
    assert_eq!(history.worth("si_1", quarter), [-10_000; 3]);
    assert_eq!(history.stands(), (0, 30_000));
}

#[test]
fn of_a_period_that_a_discount_brought_to_0_the_time_that_has_run_stays() {
    let mut history = History::new();
    history.pay(invoice("in_0", 0.0).whole("si_1", MAX, 1, days(0.0, 30.0)).free());
    assert_eq!(history.stands(), (30_000, 0));
    history.spend(30_000);
    // By status it went down before, and Stripe's credit names the lower price.
    let anew =
        invoice("in_1", 6.0).credit("si_1", PRO, 1, days(6.0, 30.0)).whole("si_1", PRO, 1, days(6.0, 36.0));
    history.pay(anew.free());
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [6_000]);
    assert_eq!(history.stands(), (0, 14_000));
}

#[test]
fn a_proration_of_0_is_a_credit_if_it_names_credited_items_else_a_charge_of_nothing() {
    let half = days(15.0, 30.0);
    let change = || invoice("in_1", 15.0).credit("si_1", PRO, 1, half).charge("si_1", MAX, 1, half);
    let free = || {
        let mut history = History::new();
        history.pay(invoice("in_0", 0.0).whole("si_1", PRO, 1, days(0.0, 30.0)).free());
        history
    };
    let mut granting = free();
    granting.pay(change().free());
    assert_eq!(granting.stands(), (20_000, 0), "under a discount, as with money");
    let mut bare = bought(PRO);
    bare.pay(invoice("in_1", 15.0).charge("si_1", MAX, 1, half).last(|line| line.amount = MinorUnits(0)));
    assert_eq!(bare.stands(), (10_000, 0), "without one it grants nothing, and is no trial");
    let mut ignoring = free();
    ignoring.pay(change().free());
    ignoring.know(|facts| facts.no_payment_required = NoPaymentRequired::Ignore);
    assert_eq!(ignoring.stands(), (0, 0), "and under `ignore` there is nothing to take back");
}

#[test]
fn a_whole_discount_follows_no_payment_required() {
    for (policy, balance) in [(NoPaymentRequired::Grant, 10_000), (NoPaymentRequired::Ignore, 0)] {
        let mut history = History::new();
        history.know(|facts| facts.no_payment_required = policy);
        history.pay(invoice("in_0", 0.0).whole("si_1", PRO, 1, days(0.0, 30.0)).free());
        assert_eq!(history.stands(), (balance, 0));
    }
}

#[test]
fn rounding_is_down_once_over_the_sum_of_a_grant() {
    let mut history = History::new();
    history.pay(invoice("in_0", 0.0).whole("si_1", PRO, 1, days(0.0, 30.0)));
    for third in 0..3 {
        history.pay(invoice(&format!("in_{third}x"), 20.0).charge("si_1", SEAT, 1, days(20.0, 30.0)));
    }
    assert_eq!(history.worth("si_1", days(0.0, 30.0)), [11_000], "three times a third of 1,000");
}

#[test]
fn a_packs_price_as_a_recurring_item_grants_for_good_with_prorations_by_time() {
    let mut history = History::new();
    history.pay(invoice("in_0", 0.0).whole("si_1", PACK, 2, days(0.0, 30.0)));
    let half = days(15.0, 30.0);
    let to = |id, from: i64, to: i64| {
        invoice(id, 15.0).credit("si_1", PACK, from, half).charge("si_1", PACK, to, half)
    };
    history.pay(to("in_1", 2, 3));
    assert_eq!(history.balances().purchased, 1_250);
    history.pay(to("in_2", 3, 2));
    assert_eq!(history.balances().purchased, 1_000);
    history.pay(to("in_3", 2, 3));
    history.pay(invoice("in_4", 30.0).whole("si_1", PACK, 3, days(30.0, 60.0)));
    assert_eq!(history.balances().purchased, 2_750);
}

#[test]
fn a_year_comes_in_twelve_parts_and_a_quarter_in_three_whatever_days_they_start_on() {
    let parts = |price, from: &str, to: &str| {
        let mut history = History::new();
        history.pay(invoice("in_0", 0.0).whole("si_1", price, 1, dates(from, to)));
        history.of_period("si_1", dates(from, to)).iter().map(|part| part.available_from).collect::<Vec<_>>()
    };
    for (from, to) in
        [("2026-02-28", "2027-02-28"), ("2028-02-29", "2029-02-28"), ("2027-02-28", "2028-02-29")]
    {
        assert_eq!(parts(YEAR, from, to).len(), 12, "{from}");
    }
    for (from, to) in [("2026-08-31", "2026-11-30"), ("2026-11-30", "2027-02-28")] {
        assert_eq!(parts(QUARTER_IN_PARTS, from, to).len(), 3, "{from}");
    }
    assert_eq!(
        parts(QUARTER_IN_PARTS, "2026-08-31", "2026-11-30"),
        [date("2026-08-31"), date("2026-09-30"), date("2026-10-31")]
    );
}

#[test]
fn amounts_that_no_bigint_holds_are_an_error() {
    let mut history = History::new();
    let mut bill = invoice("in_0", 0.0).whole("si_1", PRO, i64::MAX / 10_000, days(0.0, 30.0));
    bill.payment.known_at = history.account.known_at();
    history.account.facts.payments.push(bill.payment);
    history.account.facts.lines = bill.lines;
    let holdings = stripe_credits_rules::streams::holdings(&history.account.facts, &[], day(0.0));
    assert!(holdings.is_err());
    assert_eq!(BEGINNING % 86_400, 0);
}

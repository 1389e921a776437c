//! Scenarios of plans that change, and of periods in parts: 57 to 59, 63, 64, 67, 71 to 75.

use serde_json::{Value, json};

use super::super::{Customer, Step};
use super::stripe::*;

const P: (i64, i64) = (START, START + MONTH);

fn year(start: i64) -> (i64, i64) {
    (start, start + 366 * DAY)
}

#[test]
fn scenario_57_plans_toggled_by_new_anchors_are_never_worth_more_than_the_money() {
    let mut customer = Customer::new(&catalog());
    let price = |round: i64| if round % 2 == 0 { ("price_pro", 10_000) } else { ("price_max", 30_000) };
    let mut drawn = 0;
    for round in 0..6 {
        let at = START + 60 * round;
        let (name, amount) = price(round);
        let mut lines = vec![line(name, amount, (at, at + MONTH))];
        if round > 0 {
            let (before, amount) = price(round - 1);
            lines.push(prorated(before, -amount, (at, at - 60 + MONTH)));
        }
        customer.apply(at, &pays(&format!("in_{round}"), at, lines));
        let balance = customer.books().balance;
        if balance > 0 {
            customer.apply(at, &spend(balance));
            drawn += balance;
        }
    }
    // $300 were paid: what each minute of a plan is worth comes in addition.
    let debt = customer.books().debt;
    assert!(drawn - debt <= 30_000 + 6, "{drawn} less {debt}");
}

#[test]
fn scenario_58_the_parts_of_a_year_end_when_a_monthly_plan_replaces_it() {
    let change = START + 45 * DAY;
    let mut steps = vec![
        (START, pays("in_1", START, vec![line("price_pro_year", 100_000, year(START))])),
        (
            change,
            pays(
                "in_2",
                change,
                vec![
                    prorated("price_pro_year", -87_704, (change, year(START).1)),
                    line("price_max", 30_000, (change, change + 31 * DAY)),
                ],
            ),
        ),
    ];
    assert_eq!(after(&catalog(), &steps).balance, 30_000);
    for renewal in 1..3 {
        let at = change + renewal * 31 * DAY;
        steps.push((
            at,
            pays(&format!("in_{}", renewal + 2), at, vec![line("price_max", 30_000, (at, at + 31 * DAY))]),
        ));
        assert_eq!(after(&catalog(), &steps).balance, 30_000);
    }
    steps.push((START + 300 * DAY, Step::Look));
    assert_eq!(after(&catalog(), &steps).balance, 30_000);
}

#[test]
fn scenario_59_five_minutes_of_99_seats_are_worth_five_minutes() {
    let seats = |amount, quantity: i64, from| {
        with(prorated("price_seat", amount, (from, P.1)), json!({"quantity": quantity}))
    };
    let (up, down) = (START + DAY, START + DAY + 300);
    let steps = [
        (START, pays("in_1", START, vec![line("price_seat", 1_000, P)])),
        (up, pays("in_2", up, vec![seats(-967, 1, up), seats(96_667, 100, up)])),
        (down, pays("in_3", down, vec![seats(-96_655, 100, down), seats(966, 1, down)])),
    ];
    assert_eq!(after(&catalog(), &steps).balance, 1_011);
}

#[test]
fn scenario_63_a_quarter_has_three_parts_and_a_year_twelve() {
    let at = |text: &str| chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp();
    let parts = |price: &str, start: &str, end: &str| {
        let (start, end) = (at(start), at(end));
        let books =
            after(&catalog(), &[(start, pays("in_1", start, vec![line(price, 30_000, (start, end))]))]);
        assert_eq!(books.balance, 10_000);
        books.grants.iter().map(|held| held.worth).collect::<Vec<_>>()
    };
    for (start, end) in
        [("2023-08-31", "2023-11-30"), ("2023-11-30", "2024-02-29"), ("2022-11-30", "2023-02-28")]
    {
        let parts = parts("price_quarter_parts", &format!("{start}T10:00:00Z"), &format!("{end}T10:00:00Z"));
        assert_eq!(parts, [10_000; 3]);
    }
    for (start, end) in
        [("2023-02-28", "2024-02-28"), ("2024-02-29", "2025-02-28"), ("2023-02-28", "2024-02-29")]
    {
        let parts = parts("price_pro_year", &format!("{start}T10:00:00Z"), &format!("{end}T10:00:00Z"));
        assert_eq!(parts, [10_000; 12]);
    }
}

#[test]
fn scenario_64_a_monthly_pack_is_prorated_in_both_directions() {
    let packs = |amount: i64, quantity: i64, from| {
        with(prorated("price_pack_month", amount, (from, P.1)), json!({"quantity": quantity}))
    };
    let half = START + MONTH / 2;
    let mut steps = vec![(
        START,
        pays("in_1", START, vec![with(line("price_pack_month", 2_000, P), json!({"quantity": 2}))]),
    )];
    for (number, (from, to), left) in [(2, (2, 3), 1_250), (3, (3, 2), 1_000), (4, (2, 3), 1_250)] {
        let lines = vec![packs(-500 * from, from, half), packs(500 * to, to, half)];
        steps.push((half, pays(&format!("in_{number}"), half, lines)));
        let books = after(&catalog(), &steps);
        assert_eq!((books.purchased, books.subscription), (left, 0));
    }
    steps.push((START + 900 * DAY, Step::Look));
    assert_eq!(after(&catalog(), &steps).purchased, 1_250);
}

#[test]
fn scenario_67_a_monthly_plan_after_a_longer_one_gives_its_amount_at_every_renewal() {
    for (price, amount, end, mut renewals) in
        [("price_quarter", 30_000, START + 91 * DAY, 3), ("price_pro_year", 100_000, year(START).1, 13)]
    {
        let change = START + 10 * DAY;
        let rest = amount * (end - change) / (end - START);
        let mut lines = vec![prorated(price, -rest, (change, end))];
        let mut steps = vec![(START, pays("in_0", START, vec![line(price, amount, (START, end))]))];
        let mut at = change;
        while renewals > 0 {
            lines.push(line("price_max", 30_000, (at, at + MONTH)));
            steps.push((at, pays(&format!("in_m{renewals}"), at, std::mem::take(&mut lines))));
            assert_eq!(after(&catalog(), &steps).balance, 30_000, "{price}, {renewals} to come");
            (at, renewals) = (at + MONTH, renewals - 1);
        }
    }
}

#[test]
fn scenario_71_a_month_becomes_a_year_by_a_prorated_charge() {
    let become_year = |at: i64| {
        let lines = vec![
            prorated("price_pro", -1, (at, P.1)),
            prorated("price_pro_year", 100_000, (at, year(START).1)),
        ];
        vec![(START, pays("in_1", START, vec![line("price_pro", 10_000, P)])), (at, pays("in_2", at, lines))]
    };
    // At the start, seconds short: the whole year, none lost at the month's end.
    let mut steps = become_year(START + 9);
    for month in 0..12 {
        steps.push((START + 9 + month * 31 * DAY - month * DAY / 2, Step::Look));
        assert_eq!(after(&catalog(), &steps).balance, 10_000, "in month {month}");
    }
    let worth: i64 = after(&catalog(), &steps).grants.iter().map(|held| held.worth).sum();
    assert_eq!(worth, 120_000);
    // In mid-month: by its time.
    let middle = after(&catalog(), &become_year(START + 15 * DAY));
    let worth: i64 = middle.grants.iter().map(|held| held.worth).sum();
    assert_eq!((middle.balance, worth), (10_000, 5_000 + 120_000 * 351 / 366));
}

#[test]
fn scenario_72_prorations_of_nothing_under_a_whole_discount_count_as_with_money() {
    let free = |line: Value, amount: i64| with(line, json!({"discount_amounts": [{"amount": amount}]}));
    let credit = |line: Value| {
        with(
            line,
            json!({"proration_details": {"credited_items": {"invoice": "in_1", "invoice_line_items": ["il_1"]}}}),
        )
    };
    let discounted =
        |id: &str, at: i64, lines| paid(&with(invoice(id, at, lines), json!({"discounts": ["di_1"]})));
    let (up, down) = (START + 10 * DAY, START + 20 * DAY);
    let steps = [
        (START, discounted("in_1", START, vec![free(line("price_pro", 10_000, P), 10_000)])),
        (
            up,
            discounted(
                "in_2",
                up,
                vec![credit(prorated("price_pro", 0, (up, P.1))), prorated("price_max", 0, (up, P.1))],
            ),
        ),
        (
            down,
            discounted(
                "in_3",
                down,
                vec![credit(prorated("price_max", 0, (down, P.1))), prorated("price_pro", 0, (down, P.1))],
            ),
        ),
    ];
    let left = |steps: &[(i64, Step)]| after(&catalog(), steps).balance;
    assert_eq!([left(&steps[..1]), left(&steps[..2]), left(&steps)], [10_000, 23_333, 16_666]);
    let ignoring = with(catalog(), json!({"no_payment_required": "ignore"}));
    let books = after(&ignoring, &steps);
    assert_eq!((books.balance, books.debt), (0, 0));
}

#[test]
fn scenario_73_a_credit_for_a_price_nobody_paid_is_owed() {
    let mut customer = Customer::new(&catalog());
    let (up, down) = (START + 10 * DAY, START + 15 * DAY);
    let state = |at: i64, price: &str| says(at, &subscription(&[("si_1", price, 1)], P));
    customer.apply(START, &pays("in_1", START, vec![line("price_pro", 10_000, P)]));
    customer.apply(START + DAY, &spend(10_000));
    customer.apply(up, &state(up, "price_max"));
    customer.apply(down, &state(down, "price_pro"));
    let lines = vec![prorated("price_max", -15_000, (down, P.1)), prorated("price_pro", 5_000, (down, P.1))];
    customer.apply(down, &pays("in_2", down, lines));
    // The balance was given $100 that were never paid.
    assert_eq!((customer.books().balance, customer.books().debt), (0, 10_000));
    // The next renewal is paid by it, and settles what it is worth.
    let mut next = (P.1, P.1 + MONTH);
    customer.apply(P.1, &pays("in_3", P.1, vec![line("price_pro", 10_000, next)]));
    assert_eq!((customer.books().balance, customer.books().debt), (0, 0));
    // In a loop nothing is gained: each time the renewal is all that there is, and is owed.
    for round in 0..3 {
        let half = next.0 + MONTH / 2;
        let lines = vec![
            prorated("price_max", -15_000, (half, next.1)),
            prorated("price_pro", 5_000, (half, next.1)),
        ];
        customer.apply(half, &pays(&format!("in_down{round}"), half, lines));
        assert_eq!((customer.books().balance, customer.books().debt), (0, 10_000));
        next = (next.1, next.1 + MONTH);
        customer
            .apply(next.0, &pays(&format!("in_next{round}"), next.0, vec![line("price_pro", 10_000, next)]));
        assert_eq!((customer.books().balance, customer.books().debt), (0, 0));
    }
}

#[test]
fn scenario_74_an_open_upgrade_under_a_paid_downgrade() {
    let half = START + MONTH / 2;
    let mut customer = Customer::new(&catalog());
    let mut left = |at: i64, step: &Step| {
        customer.apply(at, step);
        (customer.books().balance, customer.books().debt)
    };
    let up = vec![prorated("price_pro", -5_000, (half, P.1)), prorated("price_max", 15_000, (half, P.1))];
    let down = vec![prorated("price_max", -15_000, (half, P.1)), prorated("price_pro", 5_000, (half, P.1))];
    let open = with(
        invoice("in_2", half, up.clone()),
        json!({"status": "open", "status_transitions": {"paid_at": null}}),
    );
    left(START, &pays("in_1", START, vec![line("price_pro", 10_000, P)]));
    left(START, &spend(10_000));
    left(half, &Step::Deliver(event("invoice.finalized", half, &open)));
    assert_eq!(left(half, &pays("in_3", half, down)), (0, 10_000));
    assert_eq!(left(half + 60, &pays("in_2", half + 60, up)), (0, 0));
    let back = refund("re_1", half + 120, 10_000, json!({"payment_intent": "pi_in_2"}));
    assert_eq!(left(half + 120, &back), (0, 10_000));
}

#[test]
fn scenario_75_an_item_that_a_schedule_replaces_goes_on_with_its_stream() {
    let half = START + MONTH / 2;
    let second = |line: Value| with(line, json!({"subscription_item": "si_2"}));
    let replaced = pays(
        "in_2",
        half,
        vec![prorated("price_pro", -5_000, (half, P.1)), second(prorated("price_max", 15_000, (half, P.1)))],
    );
    let first = pays("in_1", START, vec![line("price_pro", 10_000, P)]);
    let states = [
        says(START, &subscription(&[("si_1", "price_pro", 1)], P)),
        says(half, &subscription(&[("si_2", "price_max", 1)], P)),
    ];
    assert_eq!(in_every_order(&catalog(), half, &[first.clone(), replaced.clone()]), [(20_000, 0)]);
    let all = [first.clone(), states[0].clone(), replaced.clone(), states[1].clone()];
    assert_eq!(in_every_order(&catalog(), half, &all), [(20_000, 0)]);
    // The renewal of the new item is the next period of the old one's stream.
    let renewal = pays("in_3", P.1, vec![second(line("price_max", 30_000, (P.1, P.1 + MONTH)))]);
    let steps = [(START, first.clone()), (half, replaced), (P.1, renewal.clone())];
    assert_eq!(after(&catalog(), &steps).balance, 30_000);
    // A phase that begins with the renewal: the states alone tell that the item took over.
    let phase = says(P.1, &subscription(&[("si_2", "price_max", 1)], (P.1, P.1 + MONTH)));
    let steps = [(START, states[0].clone()), (START, first), (P.1, phase), (P.1, renewal)];
    assert_eq!(after(&catalog(), &steps).balance, 30_000);
}

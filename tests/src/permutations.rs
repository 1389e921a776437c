//! Order and repetition of what Stripe sends cannot matter: steps in every order, each of them more than once, end in one
//! same state.

use std::fmt::Debug;

use crate::ANN;
use crate::connection::Connection;
use crate::database::Database;
use crate::stripe::Event;

/// One thing that happens. Whatever it answers, it must not fail.
pub type Step<'a> = Box<dyn Fn(&mut Connection) + 'a>;

/// Every order of the numbers below `length`.
pub fn orders(length: usize) -> Vec<Vec<usize>> {
    let numbers: Vec<usize> = (0..length).collect();
    distinct_orders(&numbers)
}

/// Every order of so many steps in which each comes twice, at any two places.
pub fn orders_of_pairs(steps: usize) -> Vec<Vec<usize>> {
    let pairs: Vec<usize> = (0..steps).flat_map(|step| [step, step]).collect();
    distinct_orders(&pairs)
}

/// Every order of so many steps, each of them twice in a row, and all of them once more at the end: fewer than
/// [`orders_of_pairs`].
pub fn orders_with_repeats(steps: usize) -> Vec<Vec<usize>> {
    let with_repeats = |order: Vec<usize>| {
        order.iter().flat_map(|step| [*step, *step]).chain(order.iter().copied()).collect()
    };
    orders(steps).into_iter().map(with_repeats).collect()
}

/// Every different order of the numbers; equal numbers are interchangeable.
fn distinct_orders(numbers: &[usize]) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for number in numbers {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                // Before an equal number it would make an order that comes again after it.
                let first = order.iter().rposition(|other| other == number).map_or(0, |place| place + 1);
                (first..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, *number);
                    longer
                })
            })
            .collect();
    }
    orders
}

/// Plays the steps in each of these orders after `before`, and answers what `read` reads in the end, which must be the same
/// after all of them. Each order is a transaction that is rolled back; its books are checked before.
pub fn common_end<T: PartialEq + Debug>(
    db: &Database,
    before: impl Fn(&mut Connection),
    steps: &[Step],
    orders: &[Vec<usize>],
    read: impl Fn(&mut Connection) -> T,
) -> T {
    let mut c = db.connect();
    let mut first: Option<(&[usize], T)> = None;
    for order in orders {
        c.run("begin");
        before(&mut c);
        for step in order {
            steps[*step](&mut c);
        }
        let broken: i64 = c.one("select count(*) from billing.validate_credits_consistency()", &[]);
        assert_eq!(broken, 0, "the books after order {order:?}");
        let end = read(&mut c);
        match &first {
            None => first = Some((order, end)),
            Some((one, expected)) => {
                assert_eq!(&end, expected, "order {order:?} against {one:?}: {:?}", c.ledger(ANN));
            }
        }
        c.run("rollback");
    }
    first.expect("at least one order").1
}

/// Nothing that came before the events.
pub fn nothing(_: &mut Connection) {}

/// [`common_end`] of events, none of which may be rejected: ANN has this balance and this debt.
pub fn in_every_order(
    db: &Database,
    before: impl Fn(&mut Connection),
    events: &[Event],
    expected: (i64, i64),
) {
    let apply = |event| -> Step {
        Box::new(move |c| {
            let outcome = c.apply(event);
            assert_ne!(outcome.outcome, "rejected", "{outcome:?}");
        })
    };
    let steps: Vec<Step> = events.iter().map(apply).collect();
    let orders = orders_with_repeats(steps.len());
    let read = |c: &mut Connection| (c.balance_and_debt(ANN), c.end_state(), c.subscribed_state());
    let (balance_and_debt, ..) = common_end(db, before, &steps, &orders, read);
    assert_eq!(balance_and_debt, expected);
}

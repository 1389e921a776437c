//! Order and repetition of what Stripe says cannot matter: a set of events in every order, each told more than once.

use crate::ANN;
use crate::chance::orders;
use crate::connection::Connection;
use crate::database::Database;
use crate::stripe::Event;

/// Nothing that came before the events.
pub fn nothing(_: &mut Connection) {}

/// Plays every order of these events after `before`, each event twice in a row and once more at the end: all leave ANN with
/// `expected`, balance and debt, and everybody in one same state. Each order is a transaction that is undone; its books are
/// proven before.
pub fn in_every_order(
    db: &Database,
    before: impl Fn(&mut Connection),
    events: &[Event],
    expected: (i64, i64),
) {
    let mut c = db.connect();
    let mut first = None;
    for order in orders(events.len()) {
        c.run("begin");
        before(&mut c);
        for event in order.iter().flat_map(|n| [*n, *n]).chain(order.iter().copied()) {
            let said = c.apply(&events[event]);
            assert_ne!(said.outcome, "rejected", "{said:?}");
        }
        assert_eq!(c.stands(ANN), expected, "order {order:?}: {:?}", c.ledger(ANN));
        let broken: i64 = c.one("select count(*) from billing.validate_credits_consistency()", &[]);
        assert_eq!(broken, 0, "the books after order {order:?}");
        let end = [c.end_state(), c.subscribed_state()];
        let (one, state) = first.get_or_insert_with(|| (order.clone(), end.clone()));
        assert_eq!(&end, state, "order {order:?} against {one:?}");
        c.run("rollback");
    }
}

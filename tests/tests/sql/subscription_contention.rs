//! A subscription's events, spends and upkeep of one user at once: nothing fails, nothing counts twice, the books hold.

use stripe_credits_tests::concurrency::{blocked, together};
use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::refunds::refund;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    PRO, half_time, invoice, invoice_payment, line, month, period, renewal, subscribing, subscription,
};
use stripe_credits_tests::{ANN, Connection, Database, Event};

const CONNECTIONS: usize = 16;

/// ANN's subscription to pro, paid for in month 0.
fn subscribe(c: &mut Connection) {
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_paid_0"));
    assert_eq!(c.balance(ANN), 10_000);
}

/// The events of a renewal and of an upgrade after it.
fn renewal_and_upgrade() -> Vec<Event> {
    let change = half_time(1);
    let up = invoice("in_up", "sub_1")
        .mid_period()
        .line(line("price_pro", -5_000, (change, month(2))).prorated())
        .line(line("price_max", 15_000, (change, month(2))).prorated())
        .paid_at(change);
    let max = subscription("sub_1", "price_max").of(ANN).during(period(1));
    vec![
        renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"),
        subscription("sub_1", "price_pro").of(ANN).during(period(1)).updated("evt_next", month(1)),
        max.updated("evt_up", change),
        up.paid("evt_up_paid"),
        up.event("evt_up_succeeded", "payment_succeeded"),
        invoice_payment("evt_by", "in_0", "pi_0"),
    ]
}

/// What a scheduler calls, each in a transaction of its own. It gives way to deliveries rather than wait for long.
fn upkeep(c: &mut Connection) {
    for call in ["select billing.run_due()", "select billing.retry_parked()"] {
        if let Err(fault) = c.attempt(call) {
            assert_eq!(fault.code, "55P03", "{call}: {fault:?}");
        }
    }
}

#[test]
fn renewal_upgrade_and_spends_on_sixteen_connections_at_once_keep_the_books() {
    for round in 0..4 {
        let db = Database::with_catalog();
        subscribe(&mut db.connect());
        let events = renewal_and_upgrade();
        let works: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let events = &events;
                move |c: &mut Connection| -> (Vec<Fault>, i64) {
                    let (mut faults, mut spent) = (Vec::new(), 0);
                    for step in 0..events.len() * 2 {
                        let event = &events[(step + n + round) % events.len()];
                        if let Err(fault) = c.try_call("apply_stripe_event($1)", &[event.json()]) {
                            faults.push(fault);
                        }
                        let request = format!("job-{n}-{step}");
                        match c.try_call("spend_credits($1, 100, $2)", &[&ANN, &request]) {
                            Ok(outcome) => spent += i64::from(outcome.ok) * 100,
                            Err(fault) => faults.push(fault),
                        }
                        if step % 4 == 0 {
                            upkeep(c);
                        }
                    }
                    (faults, spent)
                }
            })
            .collect();
        let outcomes = together(&db, works);
        let faults: Vec<&Fault> = outcomes.iter().flat_map(|(faults, _)| faults).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let spent: i64 = outcomes.iter().map(|(_, spent)| spent).sum();
        assert!(spent > 0);
        let mut c = db.connect();
        let of_type = |c: &mut Connection, transaction_type: &str| -> Vec<i64> {
            c.column(
                "select amount from billing.credit_transactions where transaction_type = $1 order by amount",
                &[&transaction_type],
            )
        };
        // 10,000, then 10,000 - 5,000 + 15,000. An upgrade that comes before the renewal whose period it changes holds a
        // period of its own until then, so only the sum is one in all orders.
        let granted =
            of_type(&mut c, "subscription_grant").iter().chain(&of_type(&mut c, "reversal")).sum::<i64>();
        assert_eq!(granted, 30_000, "each invoice once");
        assert_eq!(
            c.column::<i64>("select amount from billing.credit_grants where amount <> 0 order by 1", &[]),
            [10_000, 20_000]
        );
        assert_eq!(of_type(&mut c, "spend").iter().sum::<i64>(), -spent);
        assert_eq!(c.tier(ANN), "max active");
        assert_eq!(c.debt(ANN), 0);
        let balance = c.balance(ANN);
        assert!((20_000 - spent..=20_000).contains(&balance), "{balance} after {spent} were spent");
        db.check_books();
    }
}

#[test]
fn a_first_purchases_events_and_reconcile_on_sixteen_connections_grant_once() {
    let db = Database::with_catalog();
    let created = subscription("sub_1", "price_pro");
    let paid = renewal("in_0", "sub_1", PRO, 0);
    let session = subscribing("cs_1", "sub_1", "in_0").of(ANN);
    let expanded =
        session.clone().with("subscription", created.json().clone()).with("invoice", paid.json().clone());
    let events = [paid.paid("evt_paid"), created.created("evt_created"), session.completed("evt_session")];
    let works: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (events, expanded) = (&events, &expanded);
            move |c: &mut Connection| -> Option<Fault> {
                match events.get(n % 4) {
                    Some(event) => c.try_call("apply_stripe_event($1)", &[event.json()]),
                    None => c.try_call(
                        "reconcile_checkout_session($1, $2, to_timestamp($3::bigint))",
                        &[expanded.json(), &ANN, &(CREATED + 5)],
                    ),
                }
                .err()
            }
        })
        .collect();
    let faults: Vec<Fault> = together(&db, works).into_iter().flatten().collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let mut c = db.connect();
    assert_eq!((c.ledger(ANN), c.tier(ANN)), (vec!["subscription_grant 10000".into()], "pro active".into()));
    let waiting: i64 =
        c.one("select count(*) from billing.stripe_events where outcome in ('parked', 'needs_fetch')", &[]);
    assert_eq!(waiting, 0, "what waited was applied by itself");
}

#[test]
fn overlapping_transactions_of_an_invoice_and_its_users_session_grant_once() {
    let paid = renewal("in_0", "sub_1", PRO, 0).paid("evt_paid");
    let session = subscribing("cs_1", "sub_1", "in_0").of(ANN).completed("evt_session");
    for paid_first in [true, false] {
        let db = Database::with_catalog();
        if paid_first {
            blocked(&db, |c| c.apply(&paid), |c| c.apply(&session));
        } else {
            blocked(&db, |c| c.apply(&session), |c| c.apply(&paid));
        }
        let mut c = db.connect();
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000"], "paid first: {paid_first}");
        assert_eq!(c.inbox("evt_paid").as_deref(), Some("applied"));
    }
}

#[test]
fn an_invoice_its_payment_and_its_refund_with_two_transactions_open_net_to_nothing() {
    let paid = renewal("in_0", "sub_1", PRO, 0).of(ANN).paid("evt_paid");
    let by = invoice_payment("evt_by", "in_0", "pi_0");
    let refunded = refund("re_1", "pi_0", 10_000).event("evt_re", "refund.created");
    let races: [[&Event; 3]; 6] = [
        [&paid, &by, &refunded],
        [&by, &paid, &refunded],
        [&refunded, &paid, &by],
        [&paid, &refunded, &by],
        [&by, &refunded, &paid],
        [&refunded, &by, &paid],
    ];
    for [before, one, other] in races {
        for _ in 0..3 {
            let db = Database::with_catalog();
            db.connect().apply(before);
            let works = [one, other].map(|event| move |c: &mut Connection| c.apply(event).outcome);
            let outcomes = together(&db, works.to_vec());
            assert!(!outcomes.iter().any(|outcome| outcome == "rejected"), "{outcomes:?}");
            assert_eq!(
                db.connect().balance_and_debt(ANN),
                (0, 0),
                "{}, then {} and {}",
                before.id(),
                one.id(),
                other.id()
            );
        }
    }
}

#[test]
fn two_states_of_one_subscription_with_both_transactions_open_end_in_the_newer() {
    let older = subscription("sub_1", "price_pro").of(ANN).updated("evt_1", CREATED + 1);
    let newer = subscription("sub_1", "price_max").of(ANN).updated("evt_2", CREATED + 2);
    for newer_first in [true, false] {
        let db = Database::with_catalog();
        let (first, second) = if newer_first { (&newer, &older) } else { (&older, &newer) };
        blocked(&db, |c| c.apply(first), |c| c.apply(second));
        assert_eq!(db.connect().tier(ANN), "max active");
    }
}

//! Scenario 37: many workers, two users, everything at once, for a while. 10 seconds by default, as many as
//! `STRIPE_CREDITS_SOAK_SECONDS` says.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::refunds::{charge, dispute, refund};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::{ANN, BOB, Connection, Database, Event, Outcome, catalog, paid_pack, session};
use uuid::Uuid;

const WORKERS: u64 = 64;
/// How far back the workers go for a session to repeat, refund or dispute: few, so that they meet.
const RECENT: i64 = 12;

/// What one worker saw: how often which outcome, and what was no outcome at all.
#[derive(Default)]
struct Seen {
    outcomes: BTreeMap<String, u64>,
    faults: Vec<Fault>,
}

fn seconds() -> u64 {
    std::env::var("STRIPE_CREDITS_SOAK_SECONDS").map_or(10, |seconds| seconds.parse().expect("seconds"))
}

/// The user of the n-th session.
fn owner(n: i64) -> Uuid {
    if n % 2 == 0 { ANN } else { BOB }
}

/// Every fourth session names no user: it waits for a direct call or an attribution.
fn is_unowned(n: i64) -> bool {
    n % 4 == 3
}

/// The n-th session, paid: the same for every worker.
fn bought(n: i64) -> Event {
    let id = format!("cs_{n}");
    let paid = if is_unowned(n) {
        session(&id).metadata("price_id", "price_pack")
    } else {
        paid_pack(&id, owner(n)).with("customer", format!("cus_{}", n % 2))
    };
    paid.completed(&format!("evt_{n}"))
}

/// As by a shim without a Stripe key: what is asked for cannot be fetched.
fn deliver(c: &mut Connection, event: &Event) -> Result<Outcome, Fault> {
    let outcome = c.try_call("apply_stripe_event($1)", &[event.json()])?;
    match outcome.outcome.as_str() {
        "needs_fetch" => c.try_call("apply_stripe_event($1, '{}')", &[event.json()]),
        _ => Ok(outcome),
    }
}

/// What upkeep answers that waits for the catalog's lock only shortly, because every delivery waits behind it: done, or
/// that it is to be tried again.
fn unless_busy<T>(done: Result<T, Fault>, name: &str) -> Result<String, Fault> {
    match done {
        Ok(_) => Ok(name.to_owned()),
        Err(fault) if fault.code == "55P03" => Ok(format!("{name}: busy")),
        Err(fault) => Err(fault),
    }
}

/// One random call. What it answers is an outcome.
fn call(c: &mut Connection, rng: &mut Rng, sessions: &AtomicI64) -> Result<String, Fault> {
    let newest = sessions.load(Ordering::Relaxed);
    let n = (newest - rng.between(0, RECENT)).max(0);
    let (user, intent) = (owner(n), format!("pi_{n}"));
    let mine = *rng.one_of(&[ANN, BOB]);
    let request = format!("job-{n}-{}", rng.between(0, 30));
    let outcome = match rng.below(26) {
        0..=1 => deliver(c, &bought(sessions.fetch_add(1, Ordering::Relaxed) + 1)),
        2..=3 => deliver(c, &bought(n)),
        4 => c.try_call(
            "apply_stripe_credit_pack_purchase($1, 500, 'evt_direct', $2, $3, p_price_id => 'price_pack')",
            &[&user, &format!("cs_{n}"), &intent],
        ),
        5 => c.try_call("attribute($1, $2)", &[&format!("cs_{n}"), &user]),
        6 => {
            let event = bought(n);
            c.try_call("reconcile_checkout_session($1, $2)", &[&event.json()["data"]["object"], &user])
        }
        7..=9 => {
            let part = rng.between(0, 2);
            let (status, event_type) = *rng.one_of(&[
                ("succeeded", "refund.created"),
                ("pending", "refund.updated"),
                ("failed", "refund.failed"),
            ]);
            let refund = refund(&format!("re_{n}_{part}"), &intent, 333).with("status", status);
            deliver(c, &refund.event(&format!("evt_re_{n}_{part}_{status}"), event_type))
        }
        10 => {
            let upto = rng.between(0, 1000);
            deliver(c, &charge(&intent, 1000, upto).event(&format!("evt_ch_{n}_{upto}"), "charge.refunded"))
        }
        11 => {
            let (status, event_type) = *rng.one_of(&[
                ("needs_response", "charge.dispute.created"),
                ("won", "charge.dispute.funds_reinstated"),
            ]);
            let dispute = dispute(&format!("dp_{n}"), &intent, 1000, status);
            deliver(c, &dispute.event(&format!("evt_dp_{n}_{status}"), event_type))
        }
        12..=15 => {
            let amount = rng.between(1, 600);
            c.try_call("spend_credits($1, $2, $3)", &[&mine, &amount, &request])
        }
        16..=18 => {
            let (amount, lasts) = (rng.between(1, 600), rng.between(1, 200));
            c.try_call(
                "reserve_credits($1, $2, $3, $4::bigint * interval '1 millisecond')",
                &[&mine, &amount, &request, &lasts],
            )
        }
        19..=20 => c.try_call("commit_reservation($1, $2, 1)", &[&mine, &request]),
        21 => c.try_call("release_reservation($1, $2)", &[&mine, &request]),
        22 => {
            // Long enough not to be past once its turn on the account has come.
            let lasts = rng.between(3000, 6000);
            c.try_call(
                "grant_credits($1, 40, $2, p_expires_at => clock_timestamp() + $3::bigint * interval '1 millisecond')",
                &[&mine, &format!("gift-{}", rng.number()), &lasts],
            )
        }
        23 => {
            return c
                .query_one("select billing.run_due()", &[])
                .map(|_| "run_due".to_owned())
                .map_err(Fault::from);
        }
        24 if rng.once_in(4) => {
            if rng.once_in(4) {
                let retried = c.query("select * from billing.retry_parked(20)", &[]);
                return unless_busy(retried.map_err(Fault::from), "upkeep");
            }
            let validate = "select * from billing.validate_credits_consistency()";
            let faults = c.query(validate, &[]).map_err(Fault::from)?;
            assert!(faults.is_empty(), "the books, read in the middle: {faults:?}");
            return Ok("upkeep".to_owned());
        }
        25 if rng.once_in(40) => {
            let loaded = c.query("select * from billing.load_catalog($1)", &[&catalog()]);
            return unless_busy(loaded.map_err(Fault::from), "load_catalog");
        }
        _ => {
            let read =
                "select credits_balance >= 0 and debt >= 0 from billing.user_credits where user_id = $1";
            let rows = c.query(read, &[&mine]).map_err(Fault::from)?;
            assert!(rows.iter().all(|row| row.get(0)), "a balance is never negative");
            return Ok("read".to_owned());
        }
    };
    outcome.map(|outcome| outcome.summary())
}

#[test]
fn scenario_37_sixty_four_workers_on_two_users_meet_no_deadlock_and_the_books_agree() {
    let db = Database::with_catalog();
    let sessions = AtomicI64::new(0);
    let barrier = Barrier::new(usize::try_from(WORKERS).expect("small"));
    let lasts = Duration::from_secs(seconds());
    let seen: Vec<Seen> = thread::scope(|scope| {
        let working: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (mut c, sessions, barrier) = (db.connect(), &sessions, &barrier);
                scope.spawn(move || {
                    let (mut rng, mut seen) = (Rng::new(worker), Seen::default());
                    barrier.wait();
                    let since = Instant::now();
                    while since.elapsed() < lasts {
                        match call(&mut c, &mut rng, sessions) {
                            Ok(outcome) => *seen.outcomes.entry(outcome).or_default() += 1,
                            Err(fault) => seen.faults.push(fault),
                        }
                    }
                    seen
                })
            })
            .collect();
        working.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for (outcome, times) in seen.iter().flat_map(|seen| &seen.outcomes) {
        *outcomes.entry(outcome.clone()).or_default() += times;
    }
    println!("{} calls: {outcomes:#?}", outcomes.values().sum::<u64>());
    let faults: Vec<&Fault> = seen.iter().flat_map(|seen| &seen.faults).collect();
    assert!(faults.is_empty(), "{} of them: {:#?}", faults.len(), &faults[..faults.len().min(5)]);
    let unexpected =
        ["malformed", "not_owner", "out_of_range", "livemode", "no_catalog", "shape", "needs_fetch"];
    let odd: Vec<&String> =
        outcomes.keys().filter(|outcome| unexpected.iter().any(|word| outcome.contains(word))).collect();
    assert!(odd.is_empty(), "{odd:?}");

    let ended = Instant::now();
    // Stripe sends every session once more at the end: now each is paid and was granted once.
    let mut c = db.connect();
    let last = sessions.load(Ordering::Relaxed);
    for n in 0..=last {
        c.apply(&bought(n));
        if is_unowned(n) {
            c.attribute(&format!("cs_{n}"), owner(n));
        }
    }
    let granted: Vec<(String, Uuid, i64)> = c
        .query(
            "select source_id::text, user_id, sum(bought)::bigint from billing.credit_grants
             where bought is not null group by 1, 2 order by length(source_id), 1",
            &[],
        )
        .expect("the purchases")
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let expected: Vec<(String, Uuid, i64)> = (0..=last).map(|n| (format!("cs_{n}"), owner(n), 500)).collect();
    assert_eq!(granted, expected);
    println!("{} sessions sent again in {:?}", last + 1, ended.elapsed());
    c.run_due();
    assert_eq!(c.query("select * from billing.validate_credits_consistency()", &[]).expect("rows").len(), 0);
    // Debt is what is owed and was not settled.
    let wrong: Vec<String> = c.column(
        "select format('%s: debt %s, owed %s, settled %s', a.user_id, a.debt, g.owed, g.settled)
         from billing.accounts a,
             lateral (select coalesce(sum(owed), 0) as owed, coalesce(sum(settled), 0) as settled
                      from billing.credit_grants where user_id = a.user_id) g
         where a.debt <> g.owed - g.settled",
        &[],
    );
    assert_eq!(wrong, [""; 0]);
    let lowest: bool = c.one(
        "select coalesce(bool_and(remaining >= 0 and remaining + expired <= amount), true)
         from billing.credit_grants",
        &[],
    );
    assert!(lowest);
}

//! Scenarios of expiry: exact when read, posted as read by sweeps; balances at a time.

use stripe_credits_tests::concurrency::together;
use stripe_credits_tests::{ANN, BOB, Connection, Database, user};
use uuid::Uuid;

// Time.

#[test]
fn an_expiry_is_exact_when_read_and_the_sweep_posts_just_that_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 1);
    c.spend(ANN, 50, "job-1");
    assert_eq!(c.balance(ANN), 650);
    c.expire_grants(ANN, "grant:gift");
    assert_eq!((c.balance(ANN), c.balance_and_debt(ANN)), (500, (500, 0)), "before anything posted it");
    assert_eq!(c.ledger(ANN).len(), 3);
    assert_eq!(c.run_due(), 1);
    assert_eq!((c.balance(ANN), c.balance_and_debt(ANN)), (500, (500, 0)));
    let posted = ["purchase 500", "grant 200", "spend -50", "expiry -150"];
    assert_eq!(c.ledger(ANN), posted);
    assert_eq!(c.run_due(), 0, "twice is harmless");
    assert_eq!(c.ledger(ANN), posted);
}

#[test]
fn expired_credits_cannot_be_spent_though_nothing_swept_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant_for_days(ANN, 100, "gift", 1);
    c.expire_grants(ANN, "grant:gift");
    let refused = c.spend(ANN, 1, "job-1");
    assert_eq!(
        (refused.summary().as_str(), refused.balance_and_debt()),
        ("rejected insufficient_credits", (0, 0))
    );
    assert_eq!(c.ledger(ANN), ["grant 100", "expiry -100"], "the access posted the expiry");
}

#[test]
fn credits_expire_at_the_very_tick_of_the_clock() {
    // A grant that expires by the clock alone: read and spend agree at every instant.
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call(
        "grant_credits($1, 100, 'gift', p_expires_at => clock_timestamp() + interval '50 milliseconds')",
        &[&ANN],
    );
    let live = "select expires_at > clock_timestamp() from billing.credit_grants where user_id = $1";
    while c.one::<bool>(live, &[&ANN]) {
        std::thread::yield_now();
    }
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
    assert_eq!(c.spend(ANN, 1, "job-1").summary(), "rejected insufficient_credits");
    assert_eq!(c.ledger(ANN), ["grant 100", "expiry -100"]);
}

#[test]
fn an_expiry_never_touches_another_grant() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant_for_days(ANN, 100, "first", 1);
    c.grant_for_days(ANN, 100, "second", 2);
    c.grant(ANN, 100, "never");
    c.spend(ANN, 30, "job-1");
    c.expire_grants(ANN, "grant:first");
    assert_eq!(c.balance(ANN), 200);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.grants(ANN), ["grant:first 0", "grant:second 100", "grant:never 100"]);
    c.expire_grants(ANN, "grant:second");
    assert_eq!(c.balance(ANN), 100);
    assert_eq!(c.run_due(), 1);
    assert_eq!(
        c.ledger(ANN),
        ["grant 100", "grant 100", "grant 100", "spend -30", "expiry -70", "expiry -100"]
    );
}

#[test]
fn sweeps_and_spends_at_once_expire_once_and_overdraw_nothing() {
    for round in 0..20 {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.buy(ANN, "cs_1");
        c.grant_for_days(ANN, 200, "gift", 1);
        c.expire_grants(ANN, "grant:gift");
        let works: Vec<_> = (0..8)
            .map(|n| {
                move |c: &mut Connection| -> i64 {
                    if n % 2 == 0 {
                        c.run_due();
                        0
                    } else {
                        c.spend(ANN, 150, &format!("job-{n}")).credits
                    }
                }
            })
            .collect();
        let spent: i64 = together(&db, works).iter().sum();
        assert_eq!(spent, -450, "round {round}: three of the four spends");
        assert_eq!(c.balance(ANN), 50);
        let mut ledger = c.ledger(ANN);
        ledger.sort();
        assert_eq!(
            ledger,
            ["expiry -200", "grant 200", "purchase 500", "spend -150", "spend -150", "spend -150"]
        );
    }
}

#[test]
fn run_due_settles_no_more_accounts_than_its_limit_in_the_order_of_their_users() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let users: Vec<Uuid> = (1..=5).map(user).collect();
    for user in &users {
        c.grant_for_days(*user, 10, "gift", 1);
        c.expire_grants(*user, "grant:gift");
    }
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 2);
    let expired =
        "select user_id from billing.credit_transactions where transaction_type = 'expiry' order by 1";
    assert_eq!(c.column::<Uuid>(expired, &[]), users[..2]);
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 2);
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 1);
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 0);
    assert_eq!(c.column::<Uuid>(expired, &[]), users);
}

#[test]
fn run_due_skips_locked_accounts() {
    let db = Database::with_catalog();
    let (mut c, mut other) = (db.connect(), db.connect());
    for user in [ANN, BOB] {
        c.grant_for_days(user, 10, "gift", 1);
        c.expire_grants(user, "grant:gift");
    }
    other.run("set lock_timeout = '5s'");
    c.run("begin");
    c.run(&format!("select from billing.accounts where user_id = '{ANN}' for update"));
    assert_eq!(other.run_due(), 1, "BOB's, without waiting for ANN's");
    assert_eq!(other.ledger(BOB), ["grant 10", "expiry -10"]);
    c.run("rollback");
    assert_eq!(other.run_due(), 1);
    assert_eq!(other.ledger(ANN), ["grant 10", "expiry -10"]);
}

#[test]
fn run_due_posts_returns_and_expiries_of_many_accounts_as_each_access_would_have() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let users: Vec<Uuid> = (1..=20).map(user).collect();
    let mut expected = Vec::new();
    for (n, user) in users.iter().enumerate() {
        c.grant(*user, 100, "keeps");
        c.grant_for_days(*user, 50, "gift", 1);
        c.reserve(*user, 20, "job-1");
        c.reserve(*user, 60, "job-2");
        if n % 2 == 0 {
            c.expire_reservation(*user, "job-1");
        }
        if n % 3 == 0 {
            c.expire_grants(*user, "grant:gift");
        }
        expected.push(c.balance_and_debt(*user));
    }
    assert!(expected.iter().any(|read| *read != expected[1]), "they differ");
    let due = (0..20).filter(|n| n % 2 == 0 || n % 3 == 0).count();
    assert_eq!(c.run_due(), i64::try_from(due).expect("small"));
    let after: Vec<(i64, i64)> = users.iter().map(|user| c.balance_and_debt(*user)).collect();
    assert_eq!(after, expected);
}

#[test]
fn the_balance_at_a_time_is_the_ledgers_up_to_then() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 1);
    c.spend(ANN, 300, "job-1");
    c.reserve(ANN, 100, "job-2");
    c.commit(ANN, "job-2", Some(60));
    c.grant_for_days(ANN, 70, "soon", 1);
    c.expire_grants(ANN, "grant:soon");
    c.run_due();
    let wrong: Vec<String> = c.column(
        "select format('%s: %s is not %s', at, billing.balance_at($1, at), ledger)
         from (select distinct t.created_at + step as at
               from billing.credit_transactions t, unnest(array['-1 microsecond', '0', '1 microsecond']::interval[]) step
               where t.user_id = $1) times,
             lateral (select coalesce(sum(amount), 0) as ledger from billing.credit_transactions
                      where user_id = $1 and created_at <= at) upto
         where billing.balance_at($1, at) <> ledger",
        &[&ANN],
    );
    assert_eq!(wrong, [""; 0]);
    let at = |c: &mut Connection, time: &str| -> i64 {
        c.one(&format!("select billing.balance_at($1, {time})"), &[&ANN])
    };
    assert_eq!(at(&mut c, "now()"), 340);
    assert_eq!(
        (at(&mut c, "'-infinity'"), at(&mut c, "'infinity'"), at(&mut c, "'1970-01-01'")),
        (0, 340, 0)
    );
    let first = "(select min(created_at) from billing.credit_transactions)";
    assert_eq!(at(&mut c, first), 500);
    assert_eq!(c.one::<i64>("select billing.balance_at($1, now())", &[&BOB]), 0, "without an account");
}

#[test]
fn the_balance_at_a_time_falls_below_zero_while_there_is_debt() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let refund = stripe_credits_tests::refunds::refund("re_1", "pi_1", 1000).event("evt_r", "refund.created");
    assert_eq!(c.apply(&refund).summary(), "applied");
    assert_eq!(c.one::<i64>("select billing.balance_at($1, now())", &[&ANN]), -300);
    c.grant(ANN, 1000, "gift");
    assert_eq!(c.one::<i64>("select billing.balance_at($1, now())", &[&ANN]), 700);
}

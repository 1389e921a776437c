//! The database goes away and comes back while deliveries go on: every paid session is granted exactly once, and the shim
//! needs no restart. Each test has a cluster of its own, which it stops or kills.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::shim::{Setup, Shim, deliver_until_taken, until};
use stripe_credits_tests::{ANN, Connection, Event, catalog, paid_pack, user};
use xtask::cluster::{Cluster, Options, StopMode};

/// The database of [`cluster`].
pub(crate) const DATABASE: &str = "credits";
const SENDERS: usize = 6;
/// How soon an answer must come while the database is away.
const PROMPT: Duration = Duration::from_secs(10);

/// A cluster with the catalog loaded. Its commits survive the kill of its processes, as the xtask crate promises.
pub(crate) fn cluster() -> Cluster {
    let cluster = Cluster::start(Options::default()).expect("a cluster");
    cluster.create_database(DATABASE).expect("a database");
    books(&cluster).load_catalog(&catalog());
    cluster
}

pub(crate) fn books(cluster: &Cluster) -> Connection {
    Connection::new(cluster.connect(DATABASE).expect("the server is there"))
}

fn start(cluster: &Cluster) -> Shim {
    Setup::serve(&cluster.url(DATABASE)).start()
}

fn payment(sender: usize, n: usize) -> Event {
    let name = format!("{sender}_{n}");
    paid_pack(&format!("cs_{name}"), user(10 + sender as u128 / 2)).completed(&format!("evt_{name}"))
}

/// Stripe's part: many senders that never give up.
struct Stripe {
    taken: AtomicUsize,
    enough: AtomicBool,
}

impl Stripe {
    fn send(&self, sender: usize, address: SocketAddr) -> (usize, BTreeSet<u16>) {
        let mut statuses = BTreeSet::new();
        for n in 0.. {
            if self.enough.load(Ordering::Relaxed) {
                return (n, statuses);
            }
            statuses.extend(deliver_until_taken(|| address, &payment(sender, n)));
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        unreachable!("a range without an end")
    }

    /// Waits until so many more were taken.
    fn takes(&self, more: usize) {
        let aim = self.taken.load(Ordering::Relaxed) + more;
        until("Stripe's deliveries are taken", || self.taken.load(Ordering::Relaxed) >= aim);
    }
}

/// Sends payments without an end while `trouble` happens; then asserts that each was granted once, and that nothing but
/// 200 and 503 was ever answered.
fn through(cluster: &mut Cluster, trouble: impl FnOnce(&mut Cluster, &Shim, &Stripe)) {
    let shim = start(cluster);
    let stripe = Stripe { taken: AtomicUsize::new(0), enough: AtomicBool::new(false) };
    let mut sent = 0;
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (stripe, address) = (&stripe, shim.address());
                scope.spawn(move || stripe.send(sender, address))
            })
            .collect();
        // Ends the senders also when the trouble panics.
        let enough = Enough(&stripe.enough);
        stripe.takes(20);
        trouble(cluster, &shim, &stripe);
        stripe.takes(20);
        drop(enough);
        for sender in senders {
            let (count, statuses) = sender.join().expect("a sender");
            sent += count;
            assert!(statuses.is_subset(&BTreeSet::from([200, 503])), "{statuses:?}");
        }
    });
    let mut books = books(cluster);
    let sessions: Vec<String> =
        books.column("select stripe_checkout_session_id from billing.credit_transactions", &[]);
    let distinct: BTreeSet<&String> = sessions.iter().collect();
    assert_eq!(sessions.len(), distinct.len(), "a session was granted twice");
    assert_eq!(sessions.len(), sent, "sessions in the ledger, sessions answered 200");
    let sum: i64 = books.one("select sum(credits_balance)::bigint from billing.user_credits", &[]);
    assert_eq!(sum, 500 * i64::try_from(sent).expect("a few thousand"));
    let payments: i64 = books.one("select count(*) from billing.payments", &[]);
    assert_eq!(payments, i64::try_from(sent).expect("a few thousand"));
    let faults: i64 = books.one("select count(*) from billing.validate_credits_consistency()", &[]);
    assert_eq!(faults, 0);
    until("the shim is ready, without a restart", || shim.ops("/readyz").status == 200);
}

/// Tells the threads that look at it that it is over, when the test ends or panics.
pub(crate) struct Enough<'a>(pub(crate) &'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the shim says while there is no database.
fn assert_away(shim: &Shim) {
    let prompt = |what: &str, ask: &dyn Fn() -> stripe_credits_tests::wire::Answer| {
        let since = Instant::now();
        let answer = ask();
        assert!(since.elapsed() < PROMPT, "{what} took {:?}", since.elapsed());
        answer
    };
    let event = paid_pack("cs_away", ANN).completed("evt_away");
    let answer = prompt("a delivery", &|| shim.deliver(&event));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.headers["retry-after"], "10");
    assert!(!answer.body.contains("127.0.0.1"), "{answer:?}");
    // The last answers are kept for a moment.
    until("the shim is not ready", || prompt("/readyz", &|| shim.ops("/readyz")).status == 503);
    assert_eq!(shim.ops("/readyz").headers["retry-after"], "10");
    assert_eq!(prompt("/healthz", &|| shim.ops("/healthz")).status, 200);
    until("the number of parked events is not known", || {
        let metrics = prompt("/metrics", &|| shim.ops("/metrics"));
        assert_eq!(metrics.status, 200);
        !metrics.body.contains("parked_events")
    });
    // Refused before the database would be asked.
    assert_eq!(shim.post(b"{}", &["t=1,v1=00"]).summary(), "400 signature_mismatch");
}

#[test]
fn a_server_that_is_stopped_and_started_again_under_load_grants_everything_once() {
    let mut cluster = cluster();
    through(&mut cluster, |cluster, shim, stripe| {
        for mode in [StopMode::Fast, StopMode::Immediate] {
            cluster.stop(mode);
            assert_away(shim);
            cluster.start_again().expect("the server starts again");
            until("the shim is ready again", || shim.ops("/readyz").status == 200);
            stripe.takes(20);
        }
    });
    assert_eq!(books(&cluster).ledger(ANN), [""; 0], "what was refused while it was away");
}

#[test]
fn scenario_38_kill_9_of_a_backend_under_load_grants_everything_once() {
    let mut cluster = cluster();
    through(&mut cluster, |cluster, shim, stripe| {
        for _ in 0..3 {
            let mut observer = books(cluster);
            let pid: i32 = observer.one(
                "select pid from pg_stat_activity where application_name = 'stripe-credits'
                 order by state = 'active' desc, state_change desc limit 1",
                &[],
            );
            let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
            assert!(killed.expect("kill can be started").success());
            // The postmaster notices, ends every session and recovers by itself.
            until("every session has ended", || observer.is_valid(Duration::from_secs(1)).is_err());
            until("the server has recovered", || cluster.connect(DATABASE).is_ok());
            until("the shim is ready again", || shim.ops("/readyz").status == 200);
            stripe.takes(20);
        }
    });
}

#[test]
fn scenario_38_kill_9_of_the_whole_server_under_load_grants_everything_once() {
    let mut cluster = cluster();
    through(&mut cluster, |cluster, shim, stripe| {
        for _ in 0..2 {
            cluster.kill_server();
            assert_away(shim);
            cluster.start_again().expect("the server recovers");
            until("the shim is ready again", || shim.ops("/readyz").status == 200);
            stripe.takes(20);
        }
    });
}

#[test]
fn sessions_that_the_server_ends_are_replaced_without_a_single_refusal() {
    let cluster = cluster();
    let shim = start(&cluster);
    let mut books = books(&cluster);
    for n in 0..20 {
        assert_eq!(shim.deliver(&payment(0, n)).summary(), "200 applied");
        let ended: i64 = books.one(
            "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity
             where application_name = 'stripe-credits'",
            &[],
        );
        assert!(ended > 0);
    }
    assert_eq!(books.balance(user(10)), 20 * 500);
}

#[test]
fn a_shim_that_starts_while_the_database_is_away_serves_once_it_is_there() {
    let mut cluster = cluster();
    cluster.stop(StopMode::Fast);
    let shim = Setup::serve(&cluster.url(DATABASE)).with("STRIPE_SECRET_KEY", "sk_test_unused").start();
    assert_away(&shim);
    cluster.start_again().expect("the server starts again");
    let event = paid_pack("cs_1", ANN).completed("evt_1");
    deliver_until_taken(|| shim.address(), &event);
    assert_eq!(books(&cluster).ledger(ANN), ["purchase 500"]);
    until("the shim is ready", || shim.ops("/readyz").status == 200);
}

#[test]
fn a_server_without_a_free_connection_is_503_and_taken_later() {
    let mut options = Options { max_connections: 12, ..Options::default() };
    options.settings.push(("superuser_reserved_connections".to_owned(), "0".to_owned()));
    let cluster = Cluster::start(options).expect("a cluster");
    cluster.create_database(DATABASE).expect("a database");
    books(&cluster).load_catalog(&catalog());
    let shim = start(&cluster);
    let end_of_the_shims = "select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'stripe-credits'";
    let mut hogs = Vec::new();
    while let Ok(hog) = cluster.connect(DATABASE) {
        hogs.push(hog);
    }
    // Also the connection that the shim has already, until it finds none: others may be faster.
    let mut delivered = 0;
    until("the shim has no connection", || {
        hogs[0].batch_execute(end_of_the_shims).expect("a superuser may");
        while let Ok(hog) = cluster.connect(DATABASE) {
            hogs.push(hog);
        }
        delivered += 1;
        let answer = shim.deliver(&payment(0, delivered));
        assert!(answer.status == 200 || answer.headers.contains_key("retry-after"), "{answer:?}");
        answer.status != 200 && answer.summary() == "503 database_unavailable"
    });
    hogs.clear();
    (1..=delivered).for_each(|n| drop(deliver_until_taken(|| shim.address(), &payment(0, n))));
    assert_eq!(books(&cluster).ledger(user(10)), vec!["purchase 500"; delivered]);
}

#[test]
fn a_locked_account_is_given_up_after_the_lock_timeout_and_no_statement_stays() {
    let cluster = cluster();
    let shim = Setup::serve(&cluster.url(DATABASE)).with("DATABASE_LOCK_TIMEOUT", "1").start();
    let (mut books, mut locker) = (books(&cluster), books(&cluster));
    assert_eq!(shim.deliver(&paid_pack("cs_0", ANN).completed("evt_0")).summary(), "200 applied");
    locker.run("begin");
    locker.run(&format!("select from billing.accounts where user_id = '{ANN}' for update"));
    let event = paid_pack("cs_1", ANN).completed("evt_1");
    let since = Instant::now();
    let answer = shim.deliver(&event);
    assert_eq!(answer.summary(), "503 database_locked");
    assert_eq!(answer.headers["retry-after"], "10");
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "it took {took:?}");
    // Otherwise each of Stripe's retries would leave one more waiting for the lock.
    let waiting = "select not exists (select from pg_stat_activity
        where application_name = 'stripe-credits' and wait_event_type = 'Lock')";
    until("the statement was cancelled", || books.one::<bool>(waiting, &[]));
    locker.run("commit");
    assert_eq!(books.inbox("evt_1"), None);
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    assert_eq!(shim.deliver(&event).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500", "purchase 500"]);
}

#[test]
fn a_server_that_became_read_only_is_503_until_it_takes_writes_again() {
    let cluster = cluster();
    let shim = start(&cluster);
    let mut books = books(&cluster);
    assert_eq!(shim.deliver(&payment(0, 0)).summary(), "200 applied");
    // What an old primary does after a failover, to the sessions that it has already.
    let read_only = |books: &mut Connection, on: &str| {
        books.run(&format!("alter system set default_transaction_read_only = {on}"));
        books.run("select pg_reload_conf()");
        until("the setting is in force", || {
            cluster.connect(DATABASE).is_ok_and(|mut client| {
                client
                    .query_one("show default_transaction_read_only", &[])
                    .is_ok_and(|row| row.get::<_, &str>(0) == on)
            })
        });
    };
    read_only(&mut books, "on");
    let answer = shim.deliver(&payment(0, 1));
    assert_eq!(answer.summary(), "503 database_unavailable", "no connection to it is made");
    assert!(answer.headers.contains_key("retry-after"));
    books.run("set default_transaction_read_only = off");
    read_only(&mut books, "off");
    assert_eq!(shim.deliver(&payment(0, 1)).summary(), "200 applied");
    assert_eq!(books.balance(user(10)), 1000);
}

#[test]
fn scenario_60_the_shim_is_right_in_a_database_whose_default_isolation_is_stricter() {
    let cluster = cluster();
    let shim = start(&cluster);
    let levels = ["repeatable read", "serializable"];
    for (round, level) in levels.iter().enumerate() {
        books(&cluster)
            .run(&format!("alter database {DATABASE} set default_transaction_isolation = '{level}'"));
        // All of one user, so that they meet: each purchase at once with its refund, which finds it or waits for it.
        let events: Vec<Event> = (0..8)
            .flat_map(|n| {
                let name = format!("{round}_{n}");
                let bought = paid_pack(&format!("cs_{name}"), ANN).completed(&format!("evt_{name}"));
                [bought, refunded(&format!("re_{name}"), &format!("pi_{name}"), 1000)]
            })
            .collect();
        let statuses: Vec<u16> = thread::scope(|scope| {
            let address = shim.address();
            let senders: Vec<_> = events
                .iter()
                .map(|event| scope.spawn(move || deliver_until_taken(|| address, event)))
                .collect();
            senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect()
        });
        assert_eq!(statuses, [200; 16], "{level}");
        let mut books = books(&cluster);
        assert_eq!(books.balance(ANN), 0, "{level}: every purchase was refunded");
        let purchases = books.ledger(ANN).iter().filter(|row| *row == "purchase 500").count();
        assert!(purchases <= 8 * (round + 1), "{level}: {purchases} purchases");
    }
}

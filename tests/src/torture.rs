//! Everything at once while everything fails: Stripe sells and delivers, the app spends, reserves and refunds, and the
//! shim, the server, its disk, Redis and Stripe are killed, cut off and replaced. At the end the books must be what was
//! paid for and asked for, and nothing may be left over.
//!
//! All decisions follow from the seed. What follows from them does not, because the threads' timing differs from run to
//! run; so the harness keeps a journal of what it was answered, and [`verdict`] compares the books with that.

mod app; // the app's server: spends and reservations
mod faults; // what goes wrong
mod leftovers; // locks, descriptors, memory, processes
mod progress; // what the threads share
mod report; // what a person reads
mod sales; // what is bought, and the events about it
mod stripe; // who delivers them
pub mod verdict; // whether the books are right
mod world; // what runs

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use xtask::{Error, Result};

use self::app::App;
use self::faults::Chaos;
use self::leftovers::{held, held_too_long, left};
use self::progress::{EndOnDrop, Progress, until};
pub use self::report::Report;
use self::stripe::Sender;
use self::verdict::{Books, Granted, Journal, Posted, compare};
use self::world::World;
use crate::connection::Connection;
use crate::database::broken_invariants;
use crate::fake_redis::FakeRedis;
use crate::fake_stripe::FakeStripe;
use crate::seeds::Rng;

/// Stripe's workers, and the app's.
const SENDERS: usize = 8;
const APPS: usize = 6;
/// How many deliveries are acknowledged before what is held is measured first.
const WARM_UP: usize = 100;

/// Runs it all with faults until so long after its start, and longer if not every kind has come by then.
///
/// # Errors
/// Something could not be started, or did not recover. What is wrong in the end is in the report instead.
pub fn run(seed: u64, lasts: Duration) -> Result<Report> {
    let since = Instant::now();
    println!("seed {seed}");
    let (stripe, redis) = (FakeStripe::start(), FakeRedis::start());
    let mut world = World::start(&stripe, &redis)?;
    if world.disk.is_none() {
        println!("skipped, for want of a C compiler: the disk refuses fsync");
    }
    let shim = world.shim.address();
    let mut senders: Vec<Sender> = (0..SENDERS).map(|name| Sender::new(seed, name)).collect();
    let mut apps: Vec<App> =
        (0..APPS).map(|name| App::new(seed, name, &world.database_url(), shim)).collect();
    warm_up(&mut senders, shim, &stripe)?;
    let before = held(&world)?;

    let progress = Progress::new();
    let mut chaos = Chaos {
        world: &mut world,
        progress: &progress,
        stripe: &stripe,
        redis: &redis,
        rng: Rng::new(seed),
        happened: BTreeMap::new(),
        began: Instant::now(),
    };
    endure(&mut senders, &mut apps, &mut chaos, since + lasts)?;
    let happened = std::mem::take(&mut chaos.happened);

    let journal = Journal {
        payments: senders.iter().flat_map(Sender::payments).collect(),
        requests: apps.iter().flat_map(|app| app.requests.clone()).collect(),
    };
    let mut findings = prove(&mut world.books()?, &journal)?;
    let (after, held_too_long) = held_too_long(&world, before)?;
    findings.extend(held_too_long);
    let sent: Vec<stripe::Tally> = senders.into_iter().map(|sender| sender.tally).collect();
    findings.extend(sent.iter().flat_map(|tally| report::odd_answers(&tally.answers)));
    let ledger_rows =
        world.books()?.query_one("select count(*) from billing.credit_transactions", &[])?.get(0);
    let traces = std::mem::take(&mut world.traces);
    drop(world);
    findings.extend(left(&traces).into_iter().map(|what| format!("left over: {what}")));
    let called = apps.into_iter().map(|app| app.tally).collect();
    let (took, held) = (since.elapsed(), [before, after]);
    Ok(Report { seed, took, findings, happened, sent, called, journal, ledger_rows, held })
}

/// Some deliveries in peace, so that what is held once everything has been used can be measured.
fn warm_up(senders: &mut [Sender], shim: SocketAddr, stripe: &FakeStripe) -> Result<()> {
    let progress = Progress::new();
    thread::scope(|scope| {
        let senders = senders.iter_mut().map(|sender| scope.spawn(|| sender.run(&progress, shim, stripe)));
        let running: Vec<_> = senders.collect();
        let end = EndOnDrop(&progress);
        let warm = progress.wait_for(WARM_UP);
        drop(end);
        joined(running).and(warm)
    })
}

/// Everything at once, with every fault, until `end`; then what was begun is finished in peace.
fn endure(senders: &mut [Sender], apps: &mut [App], chaos: &mut Chaos, end: Instant) -> Result<()> {
    let (progress, stripe) = (chaos.progress, chaos.stripe);
    let (shim, url) = (chaos.world.shim.address(), chaos.world.database_url());
    thread::scope(|scope| {
        let mut running: Vec<_> = senders
            .iter_mut()
            .map(|sender| scope.spawn(move || sender.run(progress, shim, stripe)))
            .collect();
        running.extend(apps.iter_mut().map(|app| scope.spawn(|| app.run(progress))));
        scope.spawn(|| app::upkeep(progress, &url));
        let over = EndOnDrop(progress);
        let chaos = chaos.run(end);
        drop(over);
        // What ended a worker is more telling than what then did not recover.
        joined(running).and(chaos)
    })
}

/// Everything in which the books are wrong.
fn prove(books: &mut Connection, journal: &Journal) -> Result<Vec<String>> {
    // Reservations that have run out are posted first.
    until("what is due is posted", || {
        let is_due = "select exists (select from billing.reservations
                          where status = 'held' and expires_at < statement_timestamp() + interval '1 minute')";
        Ok(books.run_due() == 0 && !books.one::<bool>(is_due, &[]))
    })?;
    let mut findings: Vec<String> = compare(journal, &read(books)?).iter().map(ToString::to_string).collect();
    findings.extend(broken_invariants(books));
    findings.extend(books.column::<String>(
        "select format('security_selfcheck: %s: %s', check_name, detail) from billing.security_selfcheck() where not ok",
        &[],
    ));
    findings.extend(books.column::<String>(
        "select format('%s still waits: %s %s', event_id, outcome, reason) from billing.stripe_events
         where outcome in ('parked', 'needs_fetch')",
        &[],
    ));
    Ok(findings)
}

/// What the ledger and the grants say of each payment and each request.
fn read(books: &mut Connection) -> Result<Books> {
    let granted = books.query(
        // A month that is paid late takes over what was drawn in its place: a transfer in the same operation.
        "with operations as (
             select user_id, min(grant_id) filter (where transaction_type <> 'transfer') as grant_id, sum(amount) as credits
             from billing.credit_transactions
             where transaction_type in ('purchase', 'subscription_grant', 'transfer') group by user_id, operation_id),
         posted as (select user_id, grant_id, sum(credits) as credits from operations group by user_id, grant_id)
         select coalesce(g.stripe_subscription_id || '@' || extract(epoch from g.period_start)::bigint, g.source_id::text),
                g.user_id, coalesce(sum(p.credits), 0)::bigint, sum(g.amount)::bigint
         from billing.credit_grants g left join posted p on p.user_id = g.user_id and p.grant_id = g.id
         where g.bought is not null or g.stripe_subscription_id is not null
         group by 1, 2",
        &[],
    )?;
    let posted = books.query(
        "select request_id::text, user_id, sum(amount)::bigint from billing.credit_transactions
         where transaction_type in ('spend', 'spend_refund', 'reservation', 'release') and request_id is not null
         group by request_id, user_id",
        &[],
    )?;
    Ok(Books {
        granted: granted
            .iter()
            .map(|row| Granted {
                payment: row.get(0),
                user: row.get(1),
                posted: row.get(2),
                worth: row.get(3),
            })
            .collect(),
        posted: posted
            .iter()
            .map(|row| Posted { request: row.get(0), user: row.get(1), sum: row.get(2) })
            .collect(),
    })
}

/// Waits for all workers; the first error of theirs.
fn joined(workers: Vec<ScopedJoinHandle<Result<()>>>) -> Result<()> {
    let results: Vec<Result<()>> = workers
        .into_iter()
        .map(|worker| worker.join().unwrap_or_else(|_| Err(Error::Unmet("a worker panicked".to_owned()))))
        .collect();
    results.into_iter().collect()
}

//! What goes wrong, one after the other, and how long it takes until deliveries are acknowledged again.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use xtask::cluster::StopMode;
use xtask::{Error, Result, process, signals};

use super::progress::{Progress, until};
use super::world::{World, address_of};
use crate::fake_redis::{Behaviour, FakeRedis};
use crate::fake_stripe::{self, FakeStripe};
use crate::seeds::Rng;

/// How many deliveries are acknowledged before the next fault, at least and at most.
const CALM: (i64, i64) = (10, 40);
/// How long what is away stays away, in milliseconds.
const AWAY: (i64, i64) = (200, 1500);
/// How many deliveries commit on both servers before the first one is lost.
const SYNCHRONOUS: usize = 20;
/// How long a server may take to recover by itself before it is started again.
const OWN_RECOVERY: Duration = Duration::from_secs(5);
/// How long a session may take to answer whether its connection lives.
const PROBE: Duration = Duration::from_secs(1);
/// A Redis or a Stripe that is slow answers after this time.
const SLOW: Duration = Duration::from_millis(300);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    ShimKilled,
    ShimRestarted,
    BackendKilled,
    BackendsTerminated,
    ServerStopped,
    ServerKilled,
    FailedOver,
    FsyncRefused,
    DatabaseCutOff,
    RedisAway,
    StripeAway,
}

/// First those that end the shim, so that the last one lives through all the others of the last round.
const SHIM_FAULTS: [Fault; 2] = [Fault::ShimKilled, Fault::ShimRestarted];
const OTHER_FAULTS: [Fault; 9] = [
    Fault::BackendKilled,
    Fault::BackendsTerminated,
    Fault::ServerStopped,
    Fault::ServerKilled,
    Fault::FailedOver,
    Fault::FsyncRefused,
    Fault::DatabaseCutOff,
    Fault::RedisAway,
    Fault::StripeAway,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Fault::ShimKilled => "shim: kill -9",
            Fault::ShimRestarted => "shim: SIGTERM and start",
            Fault::BackendKilled => "backend: kill -9",
            Fault::BackendsTerminated => "backends: pg_terminate_backend",
            Fault::ServerStopped => "server: immediate stop and start",
            Fault::ServerKilled => "server: kill -9 of every process",
            Fault::FailedOver => "server lost, address moved to a standby",
            Fault::FsyncRefused => "disk refuses fsync (EIO)",
            Fault::DatabaseCutOff => "connections to the database cut",
            Fault::RedisAway => "Redis away, slow or wrong",
            Fault::StripeAway => "Stripe away, slow or wrong",
        })
    }
}

/// What happened of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Happened {
    pub(super) times: u32,
    /// The longest time from a fault to the first delivery that was sent after its end and acknowledged.
    pub(super) longest: Duration,
}

/// What the faults need.
pub(super) struct Chaos<'a> {
    pub(super) world: &'a mut World,
    pub(super) progress: &'a Progress,
    pub(super) stripe: &'a FakeStripe,
    pub(super) redis: &'a FakeRedis,
    pub(super) rng: Rng,
    pub(super) happened: BTreeMap<Fault, Happened>,
    /// When the current fault began.
    pub(super) began: Instant,
}

impl Chaos<'_> {
    /// Every fault in an order of chance, again and again until the time is up, and at least once.
    pub(super) fn run(&mut self, end: Instant) -> Result<()> {
        loop {
            for fault in self.round() {
                if Instant::now() > end && self.happened.contains_key(&fault) {
                    return Ok(());
                }
                let calm = usize::try_from(self.rng.between(CALM.0, CALM.1)).unwrap_or_default();
                self.progress.wait_for(calm)?;
                self.happen(fault)?;
            }
        }
    }

    fn round(&mut self) -> Vec<Fault> {
        let mut round = SHIM_FAULTS.to_vec();
        let mut others: Vec<Fault> = OTHER_FAULTS
            .into_iter()
            .filter(|fault| *fault != Fault::FsyncRefused || self.world.disk.is_some())
            .collect();
        while !others.is_empty() {
            round.push(others.swap_remove(self.rng.below(others.len())));
        }
        round
    }

    fn happen(&mut self, fault: Fault) -> Result<()> {
        signals::check()?;
        self.world.trace_processes();
        self.began = Instant::now();
        let named = |error: Error| Error::Unmet(format!("{fault}: {error}"));
        self.inflict(fault).map_err(named)?;
        self.progress.wait_for_recovery(Instant::now()).map_err(named)?;
        let took = self.began.elapsed();
        eprintln!("{fault}: {:.1} s", took.as_secs_f64());
        let happened = self.happened.entry(fault).or_default();
        happened.times += 1;
        happened.longest = happened.longest.max(took);
        Ok(())
    }

    /// Does it, and undoes it again.
    fn inflict(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::ShimKilled => self.shim_is_killed(),
            Fault::ShimRestarted => self.shim_is_restarted(),
            Fault::BackendKilled => self.backend_is_killed()?,
            Fault::BackendsTerminated => self.backends_are_terminated()?,
            Fault::ServerStopped => self.server_is_stopped()?,
            Fault::ServerKilled => self.server_is_killed()?,
            Fault::FailedOver => self.server_is_replaced()?,
            Fault::FsyncRefused => self.disk_refuses()?,
            Fault::DatabaseCutOff => self.database_is_cut_off(),
            Fault::RedisAway => self.redis_is_away(),
            Fault::StripeAway => self.stripe_is_away(),
        }
        Ok(())
    }

    fn shim_is_killed(&mut self) {
        self.world.shim.kill();
        self.rest();
        self.world.start_shim();
    }

    fn shim_is_restarted(&mut self) {
        self.world.shim.ended();
        self.world.start_shim();
    }

    /// The postmaster ends every session and recovers.
    fn backend_is_killed(&mut self) -> Result<()> {
        let mut observer = self.world.books()?;
        let pid: i32 = observer
            .query_one(
                "select pid from pg_stat_activity
                 where backend_type = 'client backend' and pid <> pg_backend_pid()
                 order by state = 'active' desc, random() limit 1",
                &[],
            )?
            .get(0);
        process::run(Command::new("kill").args(["-9", &pid.to_string()]))?;
        until("every session has ended", || Ok(observer.is_valid(PROBE).is_err()))?;
        until("the server has recovered", || Ok(self.world.books().is_ok()))
    }

    fn backends_are_terminated(&mut self) -> Result<()> {
        let mut observer = self.world.books()?;
        observer.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid()",
            &[],
        )?;
        Ok(())
    }

    fn server_is_stopped(&mut self) -> Result<()> {
        self.world.cluster.stop(StopMode::Immediate);
        self.rest();
        self.world.cluster.start_again()
    }

    fn server_is_killed(&mut self) -> Result<()> {
        self.world.cluster.kill_server();
        self.rest();
        self.world.cluster.start_again()
    }

    /// The server is lost with its disk. The address moves to a standby that has every acknowledged commit; at first it
    /// only reads, and then it is promoted.
    fn server_is_replaced(&mut self) -> Result<()> {
        let standby = self.world.cluster.standby()?;
        self.make_synchronous()?;
        self.progress.wait_for(SYNCHRONOUS)?;
        self.began = Instant::now();
        if self.rng.once_in(2) {
            self.world.cluster.kill_server();
        } else {
            self.world.cluster.stop(StopMode::Immediate);
        }
        self.world.forwarder.point_at(Some(address_of(&standby)));
        self.rest();
        standby.promote()?;
        self.world.replace_cluster(standby);
        Ok(())
    }

    /// From here on a commit is acknowledged only once the standby has it too.
    fn make_synchronous(&self) -> Result<()> {
        let mut books = self.world.books()?;
        // Until the next server, which is made before this is set.
        books.batch_execute("alter system set synchronous_standby_names = '*'")?;
        books.batch_execute("select pg_reload_conf()")?;
        until("the standby is synchronous", || {
            let found = "select count(*) = 1 from pg_stat_replication where sync_state = 'sync' and state = 'streaming'";
            Ok(books.query_one(found, &[])?.get(0))
        })?;
        // It is the checkpointer that tells the sessions, at the latest before it begins a checkpoint.
        books.batch_execute("checkpoint")?;
        // What was committed before is on the standby too, before the first server is lost.
        let written: String = books.query_one("select pg_current_wal_insert_lsn()::text", &[])?.get(0);
        until("the standby has caught up", || {
            let found =
                "select coalesce(min(flush_lsn) >= ($1::text)::pg_lsn, false) from pg_stat_replication";
            Ok(books.query_one(found, &[&written])?.get(0))
        })
    }

    /// A server that cannot sync what it has written panics: it does not know what is on the disk. It recovers from the
    /// log once the disk works again.
    fn disk_refuses(&mut self) -> Result<()> {
        let Some(disk) = &self.world.disk else { return Ok(()) };
        let mut observer = self.world.books()?;
        disk.refuse()?;
        let panicked = until("the server has panicked", || Ok(observer.is_valid(PROBE).is_err()));
        self.rest();
        if let Some(disk) = &self.world.disk {
            disk.accept();
        }
        panicked?;
        let since = Instant::now();
        while self.world.books().is_err() {
            signals::check()?;
            if since.elapsed() > OWN_RECOVERY {
                // It gave up while it recovered, because that needs the disk too.
                return self.world.cluster.start_again();
            }
            thread::sleep(PROBE / 10);
        }
        Ok(())
    }

    fn database_is_cut_off(&mut self) {
        self.world.forwarder.point_at(None);
        self.rest();
        self.world.forwarder.point_at(Some(address_of(&self.world.cluster)));
    }

    fn redis_is_away(&mut self) {
        let faults = [
            Behaviour::Gone,
            Behaviour::Slow(SLOW),
            Behaviour::Failing,
            Behaviour::Lying("{\"credits\": {\"credits_balance\": 1}}".to_owned()),
        ];
        self.redis.behave(self.rng.one_of(&faults).clone());
        self.rest();
        self.redis.behave(Behaviour::Good);
    }

    fn stripe_is_away(&mut self) {
        let faults = [
            fake_stripe::Fault::RateLimited,
            fake_stripe::Fault::Failing,
            fake_stripe::Fault::Silent,
            fake_stripe::Fault::Cut,
            fake_stripe::Fault::CutInBody,
            fake_stripe::Fault::Garbage,
            fake_stripe::Fault::Slow(SLOW),
        ];
        self.stripe.fail(*self.rng.one_of(&faults));
        self.rest();
        self.stripe.recover();
    }

    fn rest(&mut self) {
        let milliseconds = u64::try_from(self.rng.between(AWAY.0, AWAY.1)).unwrap_or_default();
        thread::sleep(Duration::from_millis(milliseconds));
    }
}

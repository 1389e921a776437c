//! One database per test: a copy of the template, dropped at the end of the test, after a panic too.

use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};

use crate::connection::Connection;
use crate::stripe;

/// What must hold at the end of every test, beside its own assertions: the name of a fault, and the query that lists it.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "an event in the inbox is none that jsonb holds, or is too long for it",
        "select event_id::text from billing.stripe_events
         where length(payload::jsonb::text) > 16 * 1024 * 1024 or length(fetched::jsonb::text) > 16 * 1024 * 1024",
    ),
    (
        "validate_credits_consistency() is not empty",
        "select to_jsonb(v)::text from billing.validate_credits_consistency() v",
    ),
    (
        "a grant's ledger rows do not add up to what remains of it",
        "select to_jsonb(g)::text from billing.credit_grants g
         left join (
             select user_id, grant_id, sum(amount) as amount from billing.credit_transactions group by user_id, grant_id
         ) t on t.user_id = g.user_id and t.grant_id = g.id
         where g.remaining <> coalesce(t.amount, 0)",
    ),
    (
        "a ledger row's balance_after is not the sum of the rows up to it",
        "select to_jsonb(t)::text from (
             select *, sum(amount) over (partition by user_id order by id) as running
             from billing.credit_transactions) t
         where t.running <> t.balance_after",
    ),
    (
        "ledger ids of a user do not count 1, 2, 3",
        "select user_id || ': ' || count(*) || ' rows, ids to ' || max(id) from billing.credit_transactions
         group by user_id having count(*) <> max(id) or min(id) <> 1",
    ),
    (
        "a ledger row of a grant that does not exist",
        "select to_jsonb(t)::text from billing.credit_transactions t
         where t.grant_id is not null and not exists (
             select from billing.credit_grants g where g.user_id = t.user_id and g.id = t.grant_id)",
    ),
    (
        "a payment's grants are another user's",
        "select to_jsonb(p)::text from billing.payments p
         join billing.credit_grants g on g.source_id = p.source_id and g.user_id <> p.user_id and g.moved_with is null",
    ),
    (
        "a payment that is not known by its own name, or by the name of another payment that it is not",
        "select to_jsonb(p)::text from billing.payments p
         left join billing.payment_names n on n.name = p.source_id
         where p.paid_at is not null and n.source_id is distinct from coalesce(p.joined_to, p.source_id)",
    ),
    (
        "a pack's payment bought more than it is worth",
        "select to_jsonb(p)::text from billing.payments p
         where p.worth < (select sum(g.bought) from billing.credit_grants g
                          where g.user_id = p.user_id and g.source_id = p.source_id)",
    ),
    (
        "an account's tier or status is not its subscriptions'",
        "select to_jsonb(a)::text from billing.accounts a
         left join lateral (
             select s.tier, s.status from billing.subscriptions s
             where s.user_id = a.user_id and s.status in ('active', 'trialing', 'past_due') and s.price_id is not null
             order by s.rank desc nulls last, s.as_of desc, s.subscription_id limit 1
         ) best on true
         where a.tier <> coalesce(best.tier, 'free')
             or a.subscription_status <> coalesce(best.status, a.subscription_status)
             or (best.status is null and a.subscription_status <> 'none' and not exists (
                 select from billing.subscriptions s
                 where s.user_id = a.user_id and s.status = a.subscription_status and s.price_id is not null))
             or (a.subscription_status = 'none' and exists (
                 select from billing.subscriptions s where s.user_id = a.user_id and s.price_id is not null))",
    ),
    (
        "a subscription of a user without an account",
        "select to_jsonb(s)::text from billing.subscriptions s
         where s.user_id is not null and not exists (select from billing.accounts a where a.user_id = s.user_id)",
    ),
    (
        "what was drawn of a grant is not what its ledger rows say",
        "select to_jsonb(g)::text from billing.credit_grants g
         left join (
             select user_id, grant_id, -sum(amount) filter (where transaction_type in (
                     'spend', 'spend_refund', 'reservation', 'release', 'debt_settlement')
                     or transaction_type = 'adjustment' and amount < 0) as drawn
             from billing.credit_transactions group by user_id, grant_id
         ) t on t.user_id = g.user_id and t.grant_id = g.id
         where g.drawn <> coalesce(t.drawn, 0)",
    ),
    (
        "an account's debt is not what its grants owe and did not settle",
        "select to_jsonb(a)::text from billing.accounts a
         where a.debt <> (select greatest(coalesce(sum(g.owed) - sum(g.settled), 0), 0)
                          from billing.credit_grants g where g.user_id = a.user_id)",
    ),
];

/// A database of one test.
pub struct Database {
    name: String,
    server: String,
    broken: bool,
}

impl Database {
    /// A copy of the template: the extension is there, nothing else.
    pub fn new() -> Database {
        Database::copy_of(&setting("STRIPE_CREDITS_TEMPLATE"))
    }

    /// The same with `catalog.example.json` loaded.
    pub fn with_catalog() -> Database {
        let database = Database::new();
        database.connect().load_catalog(&stripe::catalog());
        database
    }

    /// A database without the extension.
    pub fn empty() -> Database {
        let mut database = Database::copy_of("template0");
        database.breaks_its_books();
        database
    }

    fn copy_of(template: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = setting("STRIPE_CREDITS_TEST_URL");
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        open(&server, "postgres")
            .batch_execute(&format!("create database {name} template {template}"))
            .expect("the template can be copied");
        Database { name, server, broken: false }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection string as the superuser.
    pub fn url(&self) -> String {
        url(&self.server, &self.name)
    }

    /// A connection as the superuser.
    pub fn connect(&self) -> Connection {
        Connection::new(open(&self.server, &self.name))
    }

    /// A connection that acts as `role`.
    pub fn connect_as(&self, role: &str) -> Connection {
        let mut connection = self.connect();
        connection.run(&format!("set role {role}"));
        connection
    }

    /// For a test that breaks the books on purpose: they are not checked at its end.
    pub fn breaks_its_books(&mut self) {
        self.broken = true;
    }

    /// Fails if the books are inconsistent.
    pub fn check_books(&self) {
        let faults = broken_invariants(&mut self.connect());
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// Everything in which the books are inconsistent.
pub fn broken_invariants(books: &mut Connection) -> Vec<String> {
    let mut broken = Vec::new();
    for (fault, query) in INVARIANTS {
        let rows: Vec<String> = books.column(query, &[]);
        broken.extend(rows.into_iter().map(|row| format!("{fault}: {row}")));
    }
    broken
}

impl Default for Database {
    fn default() -> Database {
        Database::new()
    }
}

/// The end of every test: the books are checked unless it has failed already, and the database goes either way.
impl Drop for Database {
    fn drop(&mut self) {
        struct Dropping<'a>(&'a Database);
        impl Drop for Dropping<'_> {
            fn drop(&mut self) {
                let Database { server, name, .. } = self.0;
                let dropped = Client::connect(&url(server, "postgres"), NoTls).and_then(|mut client| {
                    client.batch_execute(&format!("drop database {name} with (force)"))
                });
                if let Err(fault) = dropped {
                    eprintln!("{name} was not dropped: {fault}");
                }
            }
        }
        let dropping = Dropping(self);
        if !self.broken && !std::thread::panicking() {
            dropping.0.check_books();
        }
    }
}

fn open(server: &str, database: &str) -> Client {
    Client::connect(&url(server, database), NoTls).expect("the test server accepts connections")
}

fn url(server: &str, database: &str) -> String {
    format!("{}/{database}", server.trim_end_matches('/'))
}

/// A variable that `cargo xtask test` sets.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run cargo xtask test"))
}

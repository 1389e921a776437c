//! The mirror: the app's own database, and whether it is what the books say.

use crate::connection::Connection;
use crate::shim::{Ended, Setup, until};

/// What the mirror should have: the read model of every user but forgotten ones, and so many last ledger rows of each.
pub fn expected(books: &mut Connection, ledger_rows: i64) -> Vec<String> {
    books.column(
        "select row from (
             select c.user_id, 0 as id, to_jsonb(c)::text as row from billing_fdw.user_credits c
             union all
             select t.user_id, t.id, to_jsonb(t)::text
             from billing.accounts a
             cross join lateral (
                 select * from billing_fdw.credit_transactions t
                 where t.user_id = a.user_id order by t.id desc limit $1
             ) t
         ) r
         where not exists (select from billing.forgotten_users f where f.user_id = r.user_id)
         order by user_id, id",
        &[&ledger_rows],
    )
}

/// What it has.
pub fn mirrored(app: &mut Connection) -> Vec<String> {
    app.column(
        "select row from (
             select m.user_id, 0 as id, (to_jsonb(m) - 'mirrored_at')::text as row from billing_mirror.user_credits m
             union all
             select t.user_id, t.id, to_jsonb(t)::text from billing_mirror.credit_transactions t
         ) r
         order by user_id, id",
        &[],
    )
}

/// Waits until the mirror is what the books say.
pub fn until_equal(books: &mut Connection, app: &mut Connection, ledger_rows: i64) {
    until("the mirror is what the books say", || expected(books, ledger_rows) == mirrored(app));
}

/// `mirror …` with these databases.
pub fn mirror(arguments: &[&str], books_url: &str, app_url: &str) -> Setup {
    Setup::command(&[&["mirror"], arguments].concat())
        .with("DATABASE_URL", books_url)
        .with("MIRROR_DATABASE_URL", app_url)
}

/// Makes the mirror's tables.
pub fn init(app_url: &str) -> Ended {
    let ended = Setup::command(&["mirror", "init"]).with("MIRROR_DATABASE_URL", app_url).run();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    ended
}

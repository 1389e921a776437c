//! Table `test_clocks`: what time it is for the customers of each of Stripe's test clocks (rule 16).

use stripe_credits_rules::calendar::Time;

use crate::pg::convert::timestamp;
use crate::pg::sql::Sql;

/// Merges the frozen time of a clock with what is known of it: it only rises. Returns whether it rose.
pub(crate) fn freeze(sql: &mut Sql, clock_id: &str, frozen_time: Time) -> bool {
    sql.query_opt(
        "insert into billing.test_clocks as c (clock_id, frozen_time) values ($1, $2)
         on conflict (clock_id) do update set frozen_time = excluded.frozen_time
         where c.frozen_time is null or c.frozen_time < excluded.frozen_time
         returning 1",
        &[clock_id.into(), timestamp(frozen_time).into()],
    )
    .is_some()
}

/// Records a time that an object of a clock's customer names: the clock has reached it.
pub(crate) fn name(sql: &mut Sql, clock_id: &str, time: Time) {
    sql.execute(
        "insert into billing.test_clocks as c (clock_id, named_time) values ($1, $2)
         on conflict (clock_id) do update set named_time = excluded.named_time
         where c.named_time is null or c.named_time < excluded.named_time",
        &[clock_id.into(), timestamp(time).into()],
    );
}

/// What time it is by a clock; `None` if nothing is known of it.
pub(crate) fn time(sql: &mut Sql, clock_id: &str) -> Option<Time> {
    sql.query_opt(
        "select coalesce(frozen_time, named_time) from billing.test_clocks where clock_id = $1",
        &[clock_id.into()],
    )
    .and_then(|mut row| row.get_opt())
}

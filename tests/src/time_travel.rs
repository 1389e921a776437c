//! Makes time pass without waiting for it: a superuser moves the times in the tables into the past.

use uuid::Uuid;

use crate::connection::Connection;

/// A moment ago, so that it is past for the very next statement.
const A_MOMENT_AGO: &str = "clock_timestamp() - interval '1 millisecond'";

impl Connection {
    /// Lets the grants of a source expire a moment ago; nothing has posted that yet.
    pub fn expire_grants(&mut self, user: Uuid, source_id: &str) {
        let moved = self.execute(
            &format!(
                "update billing.credit_grants g set (expires_at, priority_at) = (ago.at, ago.at)
                 from (select {A_MOMENT_AGO} as at) ago where g.user_id = $1 and g.source_id = $2"
            ),
            &[&user, &source_id],
        );
        assert!(moved.expect("a superuser may") > 0, "{user} has no grant of {source_id}");
        self.make_due(user);
    }

    /// Lets a reservation expire a moment ago; nothing has posted that yet.
    pub fn expire_reservation(&mut self, user: Uuid, request_id: &str) {
        let moved = self.execute(
            &format!(
                "update billing.reservations set expires_at = {A_MOMENT_AGO} where user_id = $1 and request_id = $2"
            ),
            &[&user, &request_id],
        );
        assert_eq!(moved.expect("a superuser may"), 1, "{user} has no reservation {request_id}");
        self.make_due(user);
    }

    /// Lets so much time pass for a user, such as `1 month`: the account lives by a test clock that stands so much later. Nothing
    /// has posted yet what that causes.
    pub fn advance_time(&mut self, user: Uuid, span: &str) {
        let clock = format!("clock_{user}");
        self.execute(
            "insert into billing.test_clocks as c (clock_id, frozen_time)
             select $2::text, billing.account_time(a.test_clock) + $3::text::interval
             from billing.accounts a where a.user_id = $1
             on conflict (clock_id) do update set frozen_time = c.frozen_time + $3::text::interval",
            &[&user, &clock, &span],
        )
        .expect("a superuser may");
        let moved = self.execute(
            "update billing.accounts set test_clock = $2::text where user_id = $1",
            &[&user, &clock],
        );
        assert_eq!(moved.expect("a superuser may"), 1, "{user} has no account");
    }

    fn make_due(&mut self, user: Uuid) {
        self.execute(
            &format!("update billing.accounts set next_due_at = {A_MOMENT_AGO} where user_id = $1"),
            &[&user],
        )
        .expect("a superuser may");
    }
}

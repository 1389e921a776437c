//! Time that has passed, without waiting for it: what would lapse or run out later has done so a moment ago. Only a
//! superuser can say so.

use uuid::Uuid;

use crate::connection::Connection;

/// A moment ago, so that it is past for the very next statement.
const A_MOMENT_AGO: &str = "clock_timestamp() - interval '1 millisecond'";

impl Connection {
    /// The grants of a source lapsed a moment ago; nothing has posted that yet.
    pub fn lapses_now(&mut self, user: Uuid, source_id: &str) {
        let moved = self.execute(
            &format!("update billing.credit_grants set lapses_at = {A_MOMENT_AGO} where user_id = $1 and source_id = $2"),
            &[&user, &source_id],
        );
        assert!(moved.expect("a superuser may") > 0, "{user} has no grant of {source_id}");
        self.is_due_now(user);
    }

    /// A reservation ran out a moment ago; nothing has posted that yet.
    pub fn runs_out_now(&mut self, user: Uuid, request_id: &str) {
        let moved = self.execute(
            &format!(
                "update billing.reservations set expires_at = {A_MOMENT_AGO} where user_id = $1 and request_id = $2"
            ),
            &[&user, &request_id],
        );
        assert_eq!(moved.expect("a superuser may"), 1, "{user} has no reservation {request_id}");
        self.is_due_now(user);
    }

    fn is_due_now(&mut self, user: Uuid) {
        self.execute(
            &format!("update billing.accounts set next_due_at = {A_MOMENT_AGO} where user_id = $1"),
            &[&user],
        )
        .expect("a superuser may");
    }
}

//! Makes time pass without waiting for it: a superuser moves the times in the tables into the past.

use uuid::Uuid;

use crate::connection::Connection;

/// A moment ago, so that it is past for the very next statement.
const A_MOMENT_AGO: &str = "clock_timestamp() - interval '1 millisecond'";

impl Connection {
    /// Lets the grants of a source, or of a request of `grant_credits`, expire a moment ago; nothing has posted that yet.
    pub fn expire_grants(&mut self, user: Uuid, source_id: &str) {
        let moved = self.execute(
            &format!(
                "update billing.credit_grants set expires_at = {A_MOMENT_AGO}
                 where user_id = $1 and source_id in ($2, 'grant:' || $2)"
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

    /// Lets so much time pass for a user, such as `1 month`; nothing has posted yet what it causes. Whole months for what is
    /// counted in months, since months are not equally long.
    pub fn advance_time(&mut self, user: Uuid, span: &str) {
        // The item of a free month is its start, in the format that the extension writes.
        self.execute(
            "update billing.credit_grants g
             set item = to_char(began, 'YYYY-MM-DD\"T\"HH24:MI:SS')
                 || case extract(microseconds from began)::bigint % 1000000
                    when 0 then '' else to_char(began, '.US') end || '+00:00'
             from (select user_id, id, (item::timestamptz at time zone 'utc') - $2::text::interval as began
                   from billing.credit_grants where source_id = 'free_plan') b
             where g.user_id = $1 and (b.user_id, b.id) = (g.user_id, g.id)",
            &[&user, &span],
        )
        .expect("a superuser may");
        for (table, columns) in [
            ("credit_grants", &["available_from", "expires_at", "period_start", "period_end", "paid_at"][..]),
            ("accounts", &["signed_up_at", "free_next_at", "next_due_at"]),
            (
                "subscriptions",
                &["current_period_start", "current_period_end", "trial_end", "ended_at", "as_of"],
            ),
            ("reservations", &["expires_at"]),
        ] {
            let earlier: Vec<String> =
                columns.iter().map(|column| format!("{column} = {column} - $2::text::interval")).collect();
            let passed = format!("update billing.{table} set {} where user_id = $1", earlier.join(", "));
            self.execute(&passed, &[&user, &span]).expect("a superuser may");
        }
    }

    fn make_due(&mut self, user: Uuid) {
        self.execute(
            &format!("update billing.accounts set next_due_at = {A_MOMENT_AGO} where user_id = $1"),
            &[&user],
        )
        .expect("a superuser may");
    }
}

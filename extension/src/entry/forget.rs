//! A user to forget: what the inbox keeps of them is reduced, now and for whatever arrives later, and nothing more is bought.

use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::outcome::Outcome;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::top_up;
use crate::tables::{forgotten, inbox, read_changes};

/// Records that a user is forgotten, and reduces the events of theirs to what the rules read. The ledger stays.
pub(crate) fn user(sql: &mut Sql, user: Uuid) -> Outcome {
    // Everything that writes to the inbox holds it in share mode, and so sees the user as forgotten from now on.
    locks::catalog_exclusive();
    let is_new = forgotten::insert(sql, user);
    // The mirror keeps no rows of a forgotten user.
    read_changes::insert(sql, user);
    let events = inbox::reduce_events_of(sql, user);
    let _ = top_up::set(sql, user, false);
    let verdict = if is_new || events > 0 { Verdict::Applied } else { Verdict::AlreadyApplied };
    Outcome { user: Some(user), ..Outcome::of(verdict) }.with("events", events)
}

//! The names of a payment: joined as events bring them. What had been granted twice is taken back.

use std::collections::BTreeSet;

use stripe_credits_rules::name::Name;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{Accounts, Origin};
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Joined, Known, Payment, SourceType};

/// Joins the names of one payment; `own` is that of the object that was paid, if the event is about it. `known` was read under
/// the locks of all names. What was granted under a name that turns out to be another's is to be taken back: by
/// [`take_back`] among the accounts of the posting that follows, or by [`take_back_first`] if that opens this user's only.
pub(crate) fn join(sql: &mut Sql, known: &Known, own: Option<&str>, names: &[Name]) -> Joined {
    let joined = payments::join(sql, known, own, names);
    if let Some(stays) = &joined.payment {
        for duplicate in &joined.duplicates {
            payments::set_joined(sql, &duplicate.source_id, &stays.source_id);
        }
    }
    joined
}

/// Takes back what was granted for payments that turned out to be others, in accounts that are open: they are locked in the
/// order of their users, and so all at once (rule 15).
pub(crate) fn take_back(sql: &mut Sql, event_id: &str, duplicates: &[Payment], accounts: &mut Accounts) {
    for duplicate in duplicates {
        let origin = Origin { event_id: Some(event_id), ..origin(duplicate) };
        accounts.of(duplicate.user).touch_reversals(sql, &duplicate.source_id, &origin);
    }
}

/// Does so before a posting that opens no account but that of the payment's user, or none. Joined payments are of one user.
pub(crate) fn take_back_first(sql: &mut Sql, event_id: &str, duplicates: &[Payment]) {
    if duplicates.is_empty() {
        return;
    }
    let users: BTreeSet<Uuid> = duplicates.iter().map(|duplicate| duplicate.user).collect();
    let mut accounts = Accounts::open(sql, &users);
    take_back(sql, event_id, duplicates, &mut accounts);
    // It fits: it is less than was held before. The answer is the outcome of the event that joins the names.
    let _ = accounts.settle(sql, &Origin { event_id: Some(event_id), ..Origin::default() });
    let _ = accounts.close_each(sql, Verdict::Applied);
}

/// What a ledger row about a payment names.
pub(crate) fn origin(payment: &Payment) -> Origin<'_> {
    let of = |source_type| (payment.source_type == source_type).then_some(payment.source_id.as_str());
    Origin {
        session_id: of(SourceType::CheckoutSession),
        invoice_id: of(SourceType::Invoice),
        payment_intent_id: of(SourceType::PaymentIntent),
        ..Origin::default()
    }
}

//! The names of a payment: joined as events bring them. What had been granted twice is taken back.

use stripe_credits_rules::name::Name;
use stripe_credits_rules::verdict::Verdict;

use crate::ledger::{Account, Origin};
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Known, Payment, SourceType};

/// A payment whose names were joined.
pub(crate) struct Joined {
    /// If it was applied.
    pub(crate) payment: Option<Payment>,
    /// Whether something was not known before.
    pub(crate) is_new: bool,
    /// Whether nothing was: no payment, no name of it, and so no reversal.
    pub(crate) is_first: bool,
}

/// Joins the names of one payment; `own` is that of the object that was paid, if the event is about it. What was granted
/// under a name that turns out to be another's is taken back. `known` was read under the locks of all
/// names.
pub(crate) fn join(
    sql: &mut Sql,
    event_id: &str,
    known: &Known,
    own: Option<&str>,
    names: &[Name],
) -> Joined {
    let payments::Joined { payment, duplicates, is_new, is_first } = payments::join(sql, known, own, names);
    if let Some(stays) = &payment {
        for duplicate in duplicates {
            payments::set_joined(sql, &duplicate.source_id, &stays.source_id);
            let mut account = Account::open(sql, duplicate.user);
            let origin = Origin { event_id: Some(event_id), ..origin(&duplicate) };
            account.settle_reversals(sql, &duplicate.source_id, &origin);
            // The answer is the outcome of the event that joins the names.
            let _ = account.close(sql, Verdict::Applied);
        }
    }
    Joined { payment, is_new, is_first }
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

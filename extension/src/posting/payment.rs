//! The names of a payment: joined as events bring them. What had been granted twice is taken back.

use stripe_credits_rules::name::Name;
use stripe_credits_rules::verdict::Verdict;

use crate::ledger::{Account, Origin};
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Joined, Known, Payment, SourceType};

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
    let mut joined = payments::join(sql, known, own, names);
    let duplicates = std::mem::take(&mut joined.duplicates);
    if let Some(stays) = &joined.payment {
        for duplicate in duplicates {
            payments::set_joined(sql, &duplicate.source_id, &stays.source_id);
            let mut account = Account::open(sql, duplicate.user);
            let origin = Origin { event_id: Some(event_id), ..origin(&duplicate) };
            account.settle_reversals(sql, &duplicate.source_id, &origin);
            // The answer is the outcome of the event that joins the names.
            let _ = account.close(sql, Verdict::Applied);
        }
    }
    joined
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

//! A paid credit pack: what it is worth, and the posting of it.

use serde_json::json;
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::lot::{self, NewGrant};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::Session;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::{NoGrant, session as rules};
use uuid::Uuid;

use crate::ledger::{Account, Origin, TransactionType};
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::payments::{self, Payment, PaymentFacts, SourceType};

/// What a session's lines are worth by the catalog, or why it is worth nothing, yet or ever.
pub(crate) fn worth(
    sql: &mut Sql,
    settings: &Settings,
    session: &Session,
    fetched: Option<&Fetched>,
) -> Result<Vec<NewGrant>, NoGrant> {
    let lines = rules::lines(session, settings.no_payment_required, fetched)?;
    let prices = catalog::prices_sold_once(sql, lines.iter().map(|line| &line.item), session.created);
    rules::worth(&lines, &prices, session.created)
}

/// A payment, as an event or a call describes it.
pub(crate) struct Purchase<'a> {
    pub(crate) session_id: &'a str,
    /// An earlier claim of it, which may be under another session's id.
    pub(crate) known: Option<&'a Payment>,
    pub(crate) facts: PaymentFacts<'a>,
    pub(crate) origin: Origin<'a>,
}

/// Claims a session's payment and posts the difference between what it is worth and what was granted for it.
pub(crate) fn post_session(
    sql: &mut Sql,
    event_id: &str,
    session: &Session,
    known: Option<&Payment>,
    user: Uuid,
    grants: &[NewGrant],
) -> Outcome {
    let payment_intent_id = session.payment_intent_id.as_deref();
    let purchase = Purchase {
        session_id: &session.id,
        known,
        facts: PaymentFacts {
            payment_intent_ids: payment_intent_id.into_iter().collect(),
            customer_id: session.customer_id.as_deref(),
            amount_total: session.amount_total,
            currency: session.currency.as_deref(),
            ..PaymentFacts::default()
        },
        origin: Origin {
            event_id: Some(event_id),
            session_id: Some(&session.id),
            payment_intent_id,
            ..Origin::default()
        },
    };
    let account = Account::open(sql, user);
    let worth: i64 = grants.iter().map(|grant| grant.credits.0).sum();
    let price_ids: Vec<String> = grants.iter().map(|grant| grant.item.clone()).collect();
    let outcome = post(sql, account, &purchase, grants).with("price_ids", price_ids);
    match &session.stated_credits {
        Some(stated) if *stated != worth.to_string() => {
            outcome.with("discrepancy", json!({ "metadata_credits": stated, "worth": worth }))
        }
        _ => outcome,
    }
}

/// Claims a payment for an account and posts the difference between its grants and what was granted for it.
pub(crate) fn post(sql: &mut Sql, mut account: Account, purchase: &Purchase, grants: &[NewGrant]) -> Outcome {
    let Purchase { session_id, known, facts, origin } = purchase;
    let (source_id, existing) = match known {
        Some(known) => (known.source_id.as_str(), account.granted_for(sql, &known.source_id)),
        // A grant under the id of an unknown session is of a request with that id, not of the session.
        None => (*session_id, Vec::new()),
    };
    let Some(difference) = lot::difference(&existing, grants) else {
        return Outcome::rejected(Reason::OutOfRange);
    };
    if let Err(reason) = account.grant(sql, source_id, &difference.add, TransactionType::Purchase, origin) {
        return Outcome::rejected(reason);
    }
    payments::claim(sql, SourceType::CheckoutSession, source_id, facts, account.user(), account.now());
    // A refund may have come before its purchase, or its share may be known only now that the total is.
    account.settle_reversals(sql, source_id, origin);
    let verdict = if account.is_changed() { Verdict::Applied } else { Verdict::AlreadyApplied };
    account.close(sql, verdict).with_excess(difference.excess)
}

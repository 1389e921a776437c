//! A paid credit pack: what it is worth, and the posting of it, for every door that a payment comes in by.

use serde_json::json;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::{Item, Settings};
use stripe_credits_rules::event::{Event, Keys};
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::identity::{Identity, Source, Tie};
use stripe_credits_rules::lot::{self, Lot, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::Session;
use stripe_credits_rules::worth::Refusal;
use stripe_credits_rules::worth::session as rules;
use uuid::Uuid;

use crate::entry::event as apply;
use crate::ledger::{self, Account, Closed, Origin, TransactionType};
use crate::outcome::{Outcome, Verdict};
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Payment, Said, SourceType};
use crate::tables::{catalog, customers};

/// The item of a direct purchase that names neither price nor pack.
const DIRECT: &str = "credit_pack";

/// What a session's lines are worth by the catalog, or why it is worth nothing, yet or ever.
pub(crate) fn worth(
    sql: &mut Sql,
    settings: &Settings,
    session: &Session,
    fetched: Option<&Fetched>,
) -> Result<Vec<Lot>, Refusal> {
    let lines = rules::lines(session, settings.no_payment_required, fetched)?;
    let prices = catalog::prices_in_force(sql, lines.iter().map(|line| &line.item), session.created);
    rules::worth(&lines, &prices, session.created)
}

/// Claims the payment and posts the difference between what it is worth and what was granted for it.
pub(crate) fn session(
    sql: &mut Sql,
    event: &Event,
    session: &Session,
    known: Option<&Payment>,
    identity: Identity,
    lots: &[Lot],
) -> Outcome {
    let account = ledger::lock(sql, identity.user);
    let said = Said {
        payment_intent_ids: session.payment_intent_id.as_deref().into_iter().collect(),
        customer_id: session.customer_id.as_deref(),
        amount_total: session.amount_total,
        currency: session.currency.as_deref(),
        ..Said::default()
    };
    let origin = Origin {
        event_id: Some(&event.id),
        session_id: Some(&session.id),
        payment_intent_id: session.payment_intent_id.as_deref(),
        ..Origin::default()
    };
    let worth: i64 = lots.iter().map(|lot| lot.credits.0).sum();
    let outcome = post(sql, account, known, &said, &origin, lots)
        .with("price_ids", lots.iter().map(|lot| lot.item.clone()).collect::<Vec<_>>());
    match &session.stated_credits {
        Some(stated) if *stated != worth.to_string() => {
            outcome.with("discrepancy", json!({ "metadata_credits": stated, "worth": worth }))
        }
        _ => outcome,
    }
}

/// Claims a payment for an account and posts what its evidence is worth more than it holds.
fn post(
    sql: &mut Sql,
    mut account: Account,
    known: Option<&Payment>,
    said: &Said,
    origin: &Origin,
    lots: &[Lot],
) -> Outcome {
    let (source_id, held) = match known {
        Some(known) => (known.source_id.as_str(), account.held(sql, &known.source_id)),
        None => (origin.session_id.expect("a purchase names its session"), Vec::new()),
    };
    let Some(difference) = lot::difference(&held, lots) else {
        return Outcome::of(Verdict::Rejected(Reason::OutOfRange));
    };
    if let Err(reason) = account.grant(sql, source_id, &difference.add, TransactionType::Purchase, origin) {
        return Outcome::of(Verdict::Rejected(reason));
    }
    payments::claim(sql, SourceType::CheckoutSession, source_id, said, account.user(), account.now());
    // A refund may have come before its purchase, or the claim may have said what was charged.
    account.settle_reversals(sql, source_id, origin);
    let verdict = if account.is_changed() { Verdict::Applied } else { Verdict::AlreadyApplied };
    let mut outcome = close(sql, account, verdict);
    if difference.excess > Credits::ZERO {
        outcome = outcome.with("granted_beyond_this_evidence", difference.excess.0);
    }
    outcome
}

/// Closes the account and answers what it holds now.
pub(crate) fn close(sql: &mut Sql, account: Account, verdict: Verdict) -> Outcome {
    let Closed { user, change, balances, postings } = account.close(sql);
    let outcome =
        Outcome { user: Some(user), credits: change, balances: Some(balances), ..Outcome::of(verdict) };
    if postings.is_empty() { outcome } else { outcome.with("postings", postings) }
}

/// A purchase by a direct SQL call.
pub(crate) struct DirectPurchase {
    pub(crate) user: Uuid,
    /// The caller's word for what it is worth.
    pub(crate) credits: Credits,
    pub(crate) event_id: String,
    pub(crate) session_id: String,
    pub(crate) payment_intent_id: Option<String>,
    pub(crate) customer_id: Option<String>,
    pub(crate) price_id: Option<String>,
    pub(crate) pack: Option<String>,
}

/// Applies a direct purchase: one payment with its webhook and its reconcile, whichever comes first.
pub(crate) fn direct(sql: &mut Sql, call: &DirectPurchase) -> Outcome {
    let (session_id, payment_intent_id) = (call.session_id.as_str(), call.payment_intent_id.as_deref());
    let said = Said {
        payment_intent_ids: payment_intent_id.into_iter().collect(),
        customer_id: call.customer_id.as_deref(),
        ..Said::default()
    };
    locks::catalog_shared();
    let keys = Keys {
        sources: vec![session_id],
        payment_intents: said.payment_intent_ids.clone(),
        ..Keys::default()
    };
    let waiting = apply::lock_payment(sql, said.customer_id, &keys);
    let known = payments::of_source(sql, session_id, payment_intent_id);
    let paid = known.as_ref().filter(|payment| payment.paid);
    if paid.is_some_and(|payment| payment.user != call.user) {
        return Outcome::of(Verdict::Rejected(Reason::Conflict));
    }
    let account = ledger::lock(sql, call.user);
    if let Some(paid) = paid {
        let held: i64 = account.held(sql, &paid.source_id).iter().map(|held| held.credits.0).sum();
        if held != call.credits.0 {
            let outcome = close(sql, account, Verdict::Rejected(Reason::Conflict));
            return outcome.with("granted", held);
        }
    }
    let origin = Origin {
        event_id: Some(&call.event_id),
        session_id: Some(session_id),
        payment_intent_id,
        ..Origin::default()
    };
    let lot = direct_lot(sql, call, &account);
    let mut outcome = post(sql, account, known.as_ref(), &said, &origin, &[lot]);
    let Some(customer_id) = said.customer_id else { return outcome };
    let tie = customers::tie(sql, customer_id);
    let said = Tie { user: call.user, source: Source::Server, as_of: clock() };
    if customers::say(sql, customer_id, tie, said) {
        let settings = catalog::settings(sql);
        outcome = apply::follow_into(sql, settings.as_ref(), &waiting, outcome);
    }
    outcome
}

/// The lot of a direct purchase: worth what the caller says, in the grant that the catalog's price would have.
fn direct_lot(sql: &mut Sql, call: &DirectPurchase, account: &Account) -> Lot {
    let item = match (&call.price_id, &call.pack) {
        (Some(price_id), _) => Some(Item::Price(price_id.clone())),
        (None, Some(pack)) => Some(Item::Pack(pack.clone())),
        (None, None) => None,
    };
    let price = item.and_then(|item| catalog::prices_in_force(sql, [&item], account.now()).remove(&item));
    let (item, name, expires_after) = if let Some(price) = price {
        (price.price_id, price.name, price.expires_after)
    } else {
        let named = call.price_id.as_deref().or(call.pack.as_deref()).unwrap_or(DIRECT);
        (named.to_owned(), named.to_owned(), None)
    };
    let lapses_at = expires_after.and_then(|span| span.after(account.now()));
    Lot { lapses_at, ..Lot::new(item, name, call.credits, Pool::Purchased) }
}

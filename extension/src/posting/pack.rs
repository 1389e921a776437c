//! A paid credit pack: what it is worth, and the posting of it.

use serde_json::json;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{Item, Settings};
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::invoice::Invoice;
use stripe_credits_rules::lot::{Evidence, NewGrant};
use stripe_credits_rules::payment_intent::PaymentIntent;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::{LineItem, Session};
use stripe_credits_rules::streams::facts::CameBack;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::session::Bought;
use stripe_credits_rules::worth::{NoGrant, pack_invoice, session as rules};
use uuid::Uuid;

use crate::ledger::{self, Account, Cause, Origin};
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::payments::{self, Joined, PaymentFacts, SourceType};

/// What a session's lines are worth by the catalog and what says so, or why it is worth nothing, yet or ever. `succeeded`:
/// whether its payment intent took the money.
pub(crate) fn worth(
    sql: &mut Sql,
    settings: &Settings,
    session: &Session,
    succeeded: bool,
    fetched: Option<&Fetched>,
) -> Result<(Evidence, Bought), NoGrant> {
    let (evidence, lines) = rules::lines(session, settings.no_payment_required, succeeded, fetched)?;
    Ok((evidence, worth_of(sql, &lines, session.created)?))
}

/// What lines that were sold at a time are worth by the catalog. If it knows none of them, they wait for it.
pub(crate) fn worth_of(sql: &mut Sql, lines: &[LineItem], created: Time) -> Result<Bought, NoGrant> {
    let bought = priced(sql, lines, created)?;
    if bought.grants.is_empty() {
        Err(NoGrant::Parked(Reason::UnknownPrice, bought.unknown))
    } else {
        Ok(bought)
    }
}

fn priced(sql: &mut Sql, lines: &[LineItem], created: Time) -> Result<Bought, NoGrant> {
    let items: Vec<&Item> =
        lines.iter().flat_map(|line| [Some(&line.item), line.named_as.as_ref()]).flatten().collect();
    let prices = catalog::prices_sold_once(sql, items, created);
    rules::worth(lines, &prices, created)
}

/// What the packs on an invoice without a subscription are worth by the catalog. What is sold once and not known is not ours.
pub(crate) fn worth_of_invoice(
    sql: &mut Sql,
    settings: &Settings,
    invoice: &Invoice,
    billed_at: Time,
    fetched: Option<&Fetched>,
) -> Result<Bought, NoGrant> {
    let lines = pack_invoice::lines(invoice, settings.no_payment_required, fetched)?;
    let mut bought = priced(sql, &lines.items, lines.sold_at.unwrap_or(billed_at))?;
    // A plan's price is known: without a subscription there is nothing that it could count for.
    let known = catalog::prices_in_force(sql, &bought.unknown, lines.sold_at.unwrap_or(billed_at));
    bought.unknown.retain(|item| lines.recurring.contains(item) && !known.contains_key(item));
    match (bought.grants.is_empty(), bought.unknown.is_empty()) {
        (false, _) => Ok(bought),
        (true, false) => Err(NoGrant::Parked(Reason::UnknownPrice, bought.unknown)),
        (true, true) => Err(NoGrant::Ignored(Reason::NotCredits)),
    }
}

/// A payment, as an event or a call describes it.
pub(crate) struct Purchase<'a> {
    pub(crate) source_type: SourceType,
    /// The id of the object that was paid.
    pub(crate) source_id: &'a str,
    /// What its names brought to light: an earlier claim of it, which may be under another of its names.
    pub(crate) joined: &'a Joined,
    pub(crate) facts: PaymentFacts<'a>,
    pub(crate) origin: Origin<'a>,
    pub(crate) evidence: Evidence,
    /// When its prices were those in force.
    pub(crate) bought_at: Time,
}

/// Claims a session's payment and posts the difference between what it is worth and what was granted for it.
pub(crate) fn post_session(
    sql: &mut Sql,
    event_id: &str,
    session: &Session,
    joined: &Joined,
    user: Uuid,
    (evidence, bought): &(Evidence, Bought),
) -> Outcome {
    let purchase = Purchase {
        source_type: SourceType::CheckoutSession,
        source_id: &session.id,
        joined,
        facts: PaymentFacts {
            customer_id: session.customer_id.as_deref(),
            subscription_id: None,
            amount_total: session.amount_total,
            currency: session.currency.as_deref(),
            worth: None,
        },
        origin: Origin {
            event_id: Some(event_id),
            session_id: Some(&session.id),
            invoice_id: session.invoice_id.as_deref(),
            payment_intent_id: session.payment_intent_id.as_deref(),
            ..Origin::default()
        },
        evidence: *evidence,
        bought_at: session.created,
    };
    let worth: i64 = bought.grants.iter().map(|grant| grant.credits.0).sum();
    let outcome = post_bought(sql, user, &purchase, bought);
    match &session.stated_credits {
        Some(stated) if *stated != worth.to_string() => {
            outcome.with("discrepancy", json!({ "metadata_credits": stated, "worth": worth }))
        }
        _ => outcome,
    }
}

/// Claims the payment of an invoice without a subscription, and posts what its packs are worth.
pub(crate) fn post_invoice(
    sql: &mut Sql,
    event_id: &str,
    invoice: &Invoice,
    billed_at: Time,
    joined: &Joined,
    user: Uuid,
    bought: &Bought,
) -> Outcome {
    let purchase = Purchase {
        source_type: SourceType::Invoice,
        source_id: &invoice.id,
        joined,
        facts: PaymentFacts {
            customer_id: invoice.customer_id.as_deref(),
            subscription_id: None,
            amount_total: invoice.total,
            currency: invoice.currency.as_deref(),
            worth: None,
        },
        origin: Origin {
            event_id: Some(event_id),
            invoice_id: Some(&invoice.id),
            payment_intent_id: invoice.payment_intent_ids.first().map(String::as_str),
            ..Origin::default()
        },
        evidence: Evidence::Lines,
        bought_at: billed_at,
    };
    post_bought(sql, user, &purchase, bought)
}

/// Claims a payment intent that is behind no session and no invoice, and posts what its metadata name.
pub(crate) fn post_payment_intent(
    sql: &mut Sql,
    event_id: &str,
    intent: &PaymentIntent,
    joined: &Joined,
    user: Uuid,
    bought: &Bought,
) -> Outcome {
    let purchase = Purchase {
        source_type: SourceType::PaymentIntent,
        source_id: &intent.id,
        joined,
        facts: PaymentFacts {
            customer_id: intent.customer_id.as_deref(),
            subscription_id: None,
            amount_total: intent.amount_received,
            currency: intent.currency.as_deref(),
            worth: None,
        },
        origin: Origin { event_id: Some(event_id), payment_intent_id: Some(&intent.id), ..Origin::default() },
        evidence: Evidence::PaymentIntent,
        bought_at: intent.created,
    };
    post_bought(sql, user, &purchase, bought)
}

/// Posts what is known of a purchase. For what the catalog does not know the event is parked, and nothing else waits for it.
fn post_bought(sql: &mut Sql, user: Uuid, purchase: &Purchase, bought: &Bought) -> Outcome {
    let account = Account::open(sql, user);
    let price_ids: Vec<String> = bought.grants.iter().map(|grant| grant.item.clone()).collect();
    let outcome = post(sql, account, purchase, &bought.grants);
    if bought.unknown.is_empty() || matches!(outcome.verdict, Verdict::Rejected(_)) {
        return outcome.with("price_ids", price_ids);
    }
    outcome.and_then(NoGrant::Parked(Reason::UnknownPrice, bought.unknown.clone()).into())
}

/// Claims a payment for an account and posts the difference between its grants and what was granted for it.
pub(crate) fn post(sql: &mut Sql, mut account: Account, purchase: &Purchase, grants: &[NewGrant]) -> Outcome {
    let Purchase { source_type, source_id, joined, facts, origin, evidence, bought_at } = purchase;
    let known = joined.payment.as_ref().filter(|known| known.paid);
    let (source_type, source_id) = match known {
        Some(known) => (known.source_type, known.source_id.as_str()),
        None => (*source_type, *source_id),
    };
    let worth = grants.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits));
    // Asked before anything is written: what is refused claims nothing.
    let Some(worth) = worth.filter(|worth| account.fits(sql, *worth)) else {
        return Outcome::rejected(Reason::OutOfRange);
    };
    let stated = known.and_then(|known| known.worth);
    let is_better = stated.is_none_or(|stated| stated < (*evidence, worth));
    let facts = PaymentFacts { worth: is_better.then_some((*evidence, worth)), ..*facts };
    payments::claim(sql, source_type, source_id, &facts, account.user(), account.now());
    // A refund may have come before its purchase, or its share may be known only now that the total is.
    let came_back = if joined.is_first { CameBack::NOTHING } else { ledger::came_back(sql, source_id).0 };
    // Better evidence of the same worth changes nothing, whatever it calls the items.
    let differs = is_better && stated.is_none_or(|(_, stated)| stated != worth);
    let bought = ledger::Bought { grants, at: *bought_at, is_first: joined.is_first };
    let bought = differs.then_some(&bought);
    if let Err(reason) = account.settle_purchase(sql, source_id, bought, came_back, Cause::Payment, origin) {
        return Outcome::rejected(reason);
    }
    // A payment of which all came back before it was known grants nothing, and is applied all the same.
    let is_applied = known.is_none() || account.is_changed();
    let verdict = if is_applied { Verdict::Applied } else { Verdict::AlreadyApplied };
    let outcome = account.close(sql, verdict);
    // Better evidence, or the same, says more than this event or call does.
    match stated {
        Some((_, stated)) if !is_better && stated > worth => {
            outcome.with("granted_beyond_this_evidence", stated.0 - worth.0)
        }
        _ => outcome,
    }
}

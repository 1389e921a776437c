//! A subscription's paid invoice: what it is worth, and the posting of it, for every door that it comes in by.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::invoice::Invoice;
use stripe_credits_rules::lot::{self, ExistingGrant, NewGrant, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::NoGrant;
use stripe_credits_rules::worth::invoice::{self as rules, TRIAL, Trial, Worth};
use uuid::Uuid;

use crate::ledger::{Account, FIRST_PURCHASE_BONUS, Origin, TransactionType};
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::payments::{self, Said, SourceType};
use crate::tables::subscriptions::Subscription;

/// What a paid invoice's lines are worth by the catalog, or why it is worth nothing, yet or ever.
pub(crate) fn worth(
    sql: &mut Sql,
    settings: &Settings,
    invoice: &Invoice,
    subscription: Option<&Subscription>,
    fetched: Option<&Fetched>,
) -> Result<Worth, NoGrant> {
    let (subscription_id, lines) = rules::lines(invoice, fetched)?;
    let mut priced = Vec::new();
    for line in lines {
        let price = catalog::prices_in_force(sql, [&line.item], line.period.0).remove(&line.item);
        priced.push((line.clone(), price));
    }
    let known = subscription.map(|subscription| subscription.state.trial_end);
    let answered = || fetched?.subscription(subscription_id).map(|subscription| subscription.trial_end);
    let trial = known.or_else(answered).map(|end| Trial { end });
    rules::worth(invoice, subscription_id, &priced, settings.no_payment_required, trial, fetched)
}

/// Claims the payment and posts the difference between what the invoice is worth and what was granted for it.
pub(crate) fn post(sql: &mut Sql, event_id: &str, invoice: &Invoice, user: Uuid, worth: Worth) -> Outcome {
    let mut account = Account::open(sql, user);
    let held = account.held(sql, &invoice.id);
    let lots = once(sql, &account, invoice, worth, &held);
    let Some(difference) = lot::difference(&held, &lots) else {
        return Outcome::rejected(Reason::OutOfRange);
    };
    let origin = Origin {
        event_id: Some(event_id),
        invoice_id: Some(&invoice.id),
        payment_intent_id: invoice.payment_intent_ids.first().map(String::as_str),
        ..Origin::default()
    };
    for (pool, transaction_type) in [
        (Pool::Subscription, TransactionType::SubscriptionGrant),
        (Pool::Purchased, TransactionType::Purchase),
        (Pool::Promotional, TransactionType::Bonus),
    ] {
        let lots: Vec<NewGrant> = difference.add.iter().filter(|lot| lot.pool == pool).cloned().collect();
        if let Err(reason) = account.grant(sql, &invoice.id, &lots, transaction_type, &origin) {
            return Outcome::rejected(reason);
        }
    }
    let said = Said {
        payment_intent_ids: invoice.payment_intent_ids.iter().map(String::as_str).collect(),
        customer_id: invoice.customer_id.as_deref(),
        subscription_id: invoice.subscription_id.as_deref(),
        amount_total: invoice.total,
        currency: invoice.currency.as_deref(),
    };
    payments::claim(sql, SourceType::Invoice, &invoice.id, &said, user, account.now());
    // A refund may have come before its purchase, or the claim may have said what was charged.
    account.settle_reversals(sql, &invoice.id, &origin);
    let unchanged = difference.add.is_empty() && !account.is_changed();
    let verdict = if unchanged { Verdict::AlreadyApplied } else { Verdict::Applied };
    let price = |lot: &NewGrant| lot.cycle.as_ref().map_or(&lot.item, |cycle| &cycle.price_id).clone();
    let mut prices: Vec<String> = lots.iter().map(price).collect();
    prices.dedup();
    let outcome = account.close(sql, verdict).with("price_ids", prices);
    match difference.excess {
        Credits::ZERO => outcome,
        excess => outcome.with("granted_beyond_this_evidence", excess.0),
    }
}

/// The lots of an invoice, as far as a user gets them once: a trial's, and the bonus on the first purchase.
fn once(
    sql: &mut Sql,
    account: &Account,
    invoice: &Invoice,
    worth: Worth,
    held: &[ExistingGrant],
) -> Vec<NewGrant> {
    let Worth { grants: mut lots, bonus } = worth;
    for lot in lots.iter_mut().filter(|lot| lot.item.ends_with(TRIAL)) {
        let beside = account.trials_beside(sql, &invoice.id);
        lot.credits = Credits((lot.credits.0 - beside.0).max(0));
    }
    let purchased = lots.iter().filter(|lot| !lot.item.ends_with(TRIAL)).filter_map(|lot| lot.cycle.as_ref());
    let began = purchased.map(|cycle| cycle.start).min();
    let is_first = |first: Option<(_, String)>| {
        began.is_some_and(|began| first.is_none_or(|first| (began, &invoice.id) <= (first.0, &first.1)))
    };
    let granted = held.iter().any(|held| held.item == FIRST_PURCHASE_BONUS);
    if bonus > Credits::ZERO && (granted || is_first(account.first_purchase(sql))) {
        let name = "First purchase bonus".to_owned();
        lots.push(NewGrant::new(FIRST_PURCHASE_BONUS.to_owned(), name, bonus, Pool::Promotional));
    }
    lots.retain(|lot| lot.credits > Credits::ZERO);
    lots
}

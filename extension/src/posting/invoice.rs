//! A subscription's paid invoice: what it is worth, and the posting of it.

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
use crate::tables::payments::{self, PaymentFacts, SourceType};
use crate::tables::subscriptions::KnownSubscription;

/// What a paid invoice's lines are worth by the catalog, or why it is worth nothing, yet or ever.
pub(crate) fn worth(
    sql: &mut Sql,
    settings: &Settings,
    invoice: &Invoice,
    subscription: Option<&KnownSubscription>,
    fetched: Option<&Fetched>,
) -> Result<Worth, NoGrant> {
    let (subscription_id, lines) = rules::lines(invoice, fetched)?;
    let mut priced = Vec::new();
    for line in lines {
        let price = catalog::prices_in_force(sql, [&line.item], line.period.0).remove(&line.item);
        priced.push((line, price));
    }
    let known = subscription.map(|subscription| subscription.state.trial_end);
    let answered = || fetched?.subscription(subscription_id).map(|subscription| subscription.trial_end);
    let trial = known.or_else(answered).map(|end| Trial { end });
    rules::worth(invoice, subscription_id, &priced, settings.no_payment_required, trial, fetched)
}

/// Claims the payment and posts the difference between what the invoice is worth and what was granted for it.
pub(crate) fn post(sql: &mut Sql, event_id: &str, invoice: &Invoice, user: Uuid, worth: Worth) -> Outcome {
    let mut account = Account::open(sql, user);
    let existing = account.granted_for(sql, &invoice.id);
    let grants = first_time_only(sql, &account, invoice, worth, &existing);
    let Some(difference) = lot::difference(&existing, &grants) else {
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
        let of_pool: Vec<NewGrant> =
            difference.add.iter().filter(|grant| grant.pool == pool).cloned().collect();
        if let Err(reason) = account.grant(sql, &invoice.id, &of_pool, transaction_type, &origin) {
            return Outcome::rejected(reason);
        }
    }
    let facts = PaymentFacts {
        customer_id: invoice.customer_id.as_deref(),
        subscription_id: invoice.subscription_id.as_deref(),
        amount_total: invoice.total,
        currency: invoice.currency.as_deref(),
    };
    payments::claim(sql, SourceType::Invoice, &invoice.id, &facts, user, account.now());
    // A refund may have come before its purchase, or its share may be known only now that the total is.
    account.settle_reversals(sql, &invoice.id, &origin);
    let unchanged = difference.add.is_empty() && !account.is_changed();
    let verdict = if unchanged { Verdict::AlreadyApplied } else { Verdict::Applied };
    let price = |grant: &NewGrant| grant.cycle.as_ref().map_or(&grant.item, |cycle| &cycle.price_id).clone();
    let mut prices: Vec<String> = grants.iter().map(price).collect();
    prices.dedup();
    account.close(sql, verdict).with("price_ids", prices).with_excess(difference.excess)
}

/// Reduces an invoice's grants by what a user gets only once: trial credits, and the bonus on the first purchase.
fn first_time_only(
    sql: &mut Sql,
    account: &Account,
    invoice: &Invoice,
    worth: Worth,
    existing: &[ExistingGrant],
) -> Vec<NewGrant> {
    let Worth { mut grants, bonus } = worth;
    for trial in grants.iter_mut().filter(|grant| grant.item.ends_with(TRIAL)) {
        let other_trials = account.other_trials(sql, &invoice.id);
        trial.credits = Credits((trial.credits.0 - other_trials.0).max(0));
    }
    let purchases = grants.iter().filter(|grant| !grant.item.ends_with(TRIAL));
    let start = purchases.filter_map(|grant| grant.cycle.as_ref()).map(|cycle| cycle.start).min();
    let is_first = |first: Option<(_, String)>| {
        start.is_some_and(|start| first.is_none_or(|first| (start, &invoice.id) <= (first.0, &first.1)))
    };
    let has_bonus = existing.iter().any(|grant| grant.item == FIRST_PURCHASE_BONUS);
    if bonus > Credits::ZERO && (has_bonus || is_first(account.first_purchase(sql))) {
        let name = "First purchase bonus".to_owned();
        grants.push(NewGrant::new(FIRST_PURCHASE_BONUS.to_owned(), name, bonus, Pool::Promotional));
    }
    grants.retain(|grant| grant.credits > Credits::ZERO);
    grants
}

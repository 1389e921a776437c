//! Every function that moves money: arguments in, one call, outcome out.
//!
//! The manual is sql/comments.sql, which `\df+ billing.*` prints; the rules are in rules/. A business refusal is an
//! outcome row. What is raised is a call that is wrong in itself: a null (22004), a blank or impossible value (22023),
//! an amount out of range (22003).

#![allow(clippy::needless_pass_by_value, reason = "pgrx hands every argument over by value")]

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;

use crate::entry::direct::{self, DirectPurchase, DirectState};
use crate::entry::{attribute, catalog, event};
use crate::ledger;
use crate::outcome::Outcome;
use crate::pg::convert::{clock, time, uuid};
use crate::pg::error::{
    catalog_document, expiry, named, named_if_given, not_negative, period, positive, raise_invalid, required,
    subscription_status, time_to_live,
};
use crate::pg::json::JsonText;
use crate::pg::sql::connected;
use crate::posting::promotion::{self, ManualGrant};
use crate::posting::spend::{self, Request};
use crate::tables::inbox;

/// Applies a whole Stripe event in one transaction, in any order, any number of times, with the same end state.
///
/// `event` is the webhook's body; `fetched` is Stripe's answer to a `needs_fetch` before, `{"as_of", "objects"}`, or
/// `{}` where nobody could ask. Nothing in the event's content raises. Stands on Stripe's `checkout.session.*` events.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn apply_stripe_event(event: Option<JsonText>, fetched: default!(Option<JsonText>, "NULL")) -> Outcome {
    let event = required(event, "event");
    connected(|sql| event::deliver(sql, &event, fetched.as_ref()))
}

/// Applies what Stripe says of a session now, for the user whose browser came back from it.
///
/// `session` is Stripe's object, best with `line_items` expanded; `expected_user_id` must be whose it is, by the rules of
/// every event, or the answer is `rejected`, `no_owner` or `not_owner`, and nothing is written. `as_of` is Stripe's
/// clock, by default ours.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn reconcile_checkout_session(
    session: Option<JsonText>,
    expected_user_id: Option<pgrx::Uuid>,
    as_of: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Outcome {
    let session = required(session, "session");
    let expected = uuid(required(expected_user_id, "expected_user_id"));
    let as_of = as_of.and_then(time).unwrap_or_else(clock);
    connected(|sql| event::reconcile(sql, &session, expected, as_of))
}

/// Ties a checkout session (`cs_…`) or a customer (`cus_…`) to a user, and applies what was parked for want of that.
///
/// `applied` with the credits of what followed; `already_applied` where nothing changed; `rejected`, `conflict` where the
/// session was paid for another user.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn attribute(p_stripe_id: Option<String>, p_user_id: Option<pgrx::Uuid>) -> Outcome {
    let stripe_id = named(p_stripe_id, "p_stripe_id");
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| match stripe_id.split_once('_') {
        Some(("cus", _)) => attribute::customer(sql, &stripe_id, user),
        Some(("cs", _)) => attribute::session(sql, &stripe_id, user),
        _ => raise_invalid(
            "p_stripe_id must be a checkout session (cs_…) or a customer (cus_…)",
            &format!("p_stripe_id = {stripe_id:?}"),
        ),
    })
}

/// Applies a paid credit pack by SQL: the same purchase as its webhook's, whichever comes first.
///
/// `p_amount` is the caller's word for its worth in credits; `p_event_id` goes into the ledger. The same session, or the
/// same payment intent, for another user or amount is `rejected`, `conflict`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[expect(clippy::too_many_arguments, reason = "the signature is fixed: clients call it by these names")]
fn apply_stripe_credit_pack_purchase(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_event_id: Option<String>,
    p_checkout_session_id: Option<String>,
    p_payment_intent_id: default!(Option<String>, "NULL"),
    p_customer_id: default!(Option<String>, "NULL"),
    p_price_id: default!(Option<String>, "NULL"),
    p_pack: default!(Option<String>, "NULL"),
) -> Outcome {
    let call = DirectPurchase {
        user: uuid(required(p_user_id, "p_user_id")),
        credits: positive(p_amount, "p_amount"),
        event_id: named(p_event_id, "p_event_id"),
        session_id: named(p_checkout_session_id, "p_checkout_session_id"),
        payment_intent_id: named_if_given(p_payment_intent_id, "p_payment_intent_id"),
        customer_id: named_if_given(p_customer_id, "p_customer_id"),
        price_id: named_if_given(p_price_id, "p_price_id"),
        pack: named_if_given(p_pack, "p_pack"),
    };
    connected(|sql| direct::purchase(sql, &call))
}

/// Sets a subscription's state by SQL: the same subscription as its events', whichever come first.
///
/// With `p_invoice_id` that invoice is paid, and grants what the catalog says of `p_price_id`, once, like its event.
/// `p_tier` is compared with the catalog's, and a difference told in the details. `p_reset_usage` changes nothing: credits are reset by the
/// invoice that pays for the next period. The state is as of now, in whole seconds, so that Stripe's later events follow.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[expect(clippy::too_many_arguments, reason = "the signature is fixed: clients call it by these names")]
fn apply_subscription_state(
    p_user_id: Option<pgrx::Uuid>,
    p_tier: Option<String>,
    p_customer_id: Option<String>,
    p_subscription_id: Option<String>,
    p_price_id: Option<String>,
    p_cycle_start: Option<TimestampWithTimeZone>,
    p_cycle_end: Option<TimestampWithTimeZone>,
    p_event_id: Option<String>,
    p_invoice_id: default!(Option<String>, "NULL"),
    p_reset_usage: default!(Option<bool>, "false"),
    p_status: default!(Option<String>, "'active'"),
    p_cancel_at_period_end: default!(Option<bool>, "false"),
) -> Outcome {
    required(p_reset_usage, "p_reset_usage");
    let call = DirectState {
        user: uuid(required(p_user_id, "p_user_id")),
        tier: named(p_tier, "p_tier"),
        customer_id: named_if_given(p_customer_id, "p_customer_id"),
        subscription_id: named(p_subscription_id, "p_subscription_id"),
        price_id: named(p_price_id, "p_price_id"),
        period: period((p_cycle_start, "p_cycle_start"), (p_cycle_end, "p_cycle_end")),
        event_id: named(p_event_id, "p_event_id"),
        invoice_id: named_if_given(p_invoice_id, "p_invoice_id"),
        status: subscription_status(p_status, "p_status"),
        cancel_at_period_end: required(p_cancel_at_period_end, "p_cancel_at_period_end"),
    };
    connected(|sql| direct::subscription_state(sql, &call))
}

/// Makes the catalog say what the document says, and applies what was parked for want of it.
///
/// Answers every price with `added`, `changed`, `retired` or `unchanged`. A faulty document raises 22023 with the path of
/// its fault, and changes nothing.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn load_catalog(
    catalog: Option<JsonText>,
) -> TableIterator<'static, (name!(price_id, String), name!(change, String))> {
    let document = catalog_document(catalog, "catalog");
    let changes = connected(|sql| catalog::load(sql, &document));
    TableIterator::new(changes.into_iter().map(|(price_id, change)| (price_id, change.as_str().to_owned())))
}

/// Judges up to `p_limit` parked events again, those that waited longest first; an account that is busy is left for the
/// next time. Answers an outcome each.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn retry_parked(p_limit: default!(Option<i32>, "1000")) -> SetOfIterator<'static, Outcome> {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    SetOfIterator::new(connected(|sql| event::retry_parked(sql, limit)))
}

/// Grants the catalog's signup credits, once per user.
///
/// `rejected`, `no_catalog` before a catalog was loaded; the same call may try again then.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_signup_credits(p_user_id: Option<pgrx::Uuid>) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| promotion::signup(sql, user))
}

/// Grants promotional credits by hand, once per `p_request_id`.
///
/// They expire at `p_expires_at`, or never. The same request id with another amount or expiry is `rejected`, `conflict`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_credits(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_request_id: Option<String>,
    p_description: default!(Option<String>, "NULL"),
    p_expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Outcome {
    let request_id = named(p_request_id, "p_request_id");
    let call = ManualGrant {
        user: uuid(required(p_user_id, "p_user_id")),
        amount: positive(p_amount, "p_amount"),
        request_id: &request_id,
        description: p_description.as_deref(),
        expires_at: expiry(p_expires_at, "p_expires_at"),
    };
    connected(|sql| promotion::grant(sql, &call))
}

/// Spends credits, those that would be lost soonest first, once per `p_request_id`.
///
/// `rejected`, `insufficient_credits` leaves no trace, so the same request may try again; the same request id with another
/// amount is `rejected`, `conflict`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn spend_credits(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_request_id: Option<String>,
    p_description: default!(Option<String>, "NULL"),
    p_metadata: default!(Option<JsonText>, "'{}'"),
) -> Outcome {
    let request_id = named(p_request_id, "p_request_id");
    let request = Request {
        user: uuid(required(p_user_id, "p_user_id")),
        amount: positive(p_amount, "p_amount"),
        request_id: &request_id,
        description: p_description.as_deref(),
        metadata: p_metadata.as_ref().filter(|metadata| metadata.text() != "{}"),
    };
    connected(|sql| spend::spend(sql, &request))
}

/// Holds credits for a job that may fail, once per `p_request_id`: they are taken at once, and come back by themselves
/// after `p_ttl` unless they are committed before.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn reserve_credits(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_request_id: Option<String>,
    p_ttl: default!(Option<Interval>, "'15 minutes'"),
    p_description: default!(Option<String>, "NULL"),
) -> Outcome {
    let request_id = named(p_request_id, "p_request_id");
    let request = Request {
        user: uuid(required(p_user_id, "p_user_id")),
        amount: positive(p_amount, "p_amount"),
        request_id: &request_id,
        description: p_description.as_deref(),
        metadata: None,
    };
    let ttl = time_to_live(p_ttl, "p_ttl");
    connected(|sql| spend::reserve(sql, &request, ttl))
}

/// Ends a reservation with `p_amount` of it spent, by default all; the rest goes back to the grants it came from.
///
/// `already_applied` for the same again; `rejected` with `unknown_reservation`, `reservation_ended`,
/// `exceeds_reservation`, or `conflict` where it was committed with another amount.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn commit_reservation(
    p_user_id: Option<pgrx::Uuid>,
    p_request_id: Option<String>,
    p_amount: default!(Option<i64>, "NULL"),
) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    let request_id = named(p_request_id, "p_request_id");
    let amount = p_amount.map(|amount| positive(Some(amount), "p_amount"));
    connected(|sql| spend::commit(sql, user, &request_id, amount))
}

/// Ends a reservation with nothing of it spent.
///
/// `already_applied` where it was released, or ran out, before; `rejected` with `unknown_reservation`, or `conflict` where it
/// was committed.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn release_reservation(p_user_id: Option<pgrx::Uuid>, p_request_id: Option<String>) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    let request_id = named(p_request_id, "p_request_id");
    connected(|sql| spend::release(sql, user, &request_id))
}

/// Posts what time alone has caused for up to `p_limit` accounts that are due. Answers how many; fewer than the limit
/// says that the rest is busy or there is none. Nothing needs it to be punctual: reads are right before it ran.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn run_due(p_limit: default!(Option<i32>, "1000")) -> i64 {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    let accounts = connected(|sql| ledger::run_due(sql, limit));
    i64::try_from(accounts).expect("no more than the limit")
}

/// Posts what time alone has caused in a user's account, where there is anything and the transaction may write: so that
/// what is read next is what is posted. Internal to `my_credits`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn settle_account(p_user_id: Option<pgrx::Uuid>) {
    // SAFETY: a backend is one thread, and reads its own flag: whether this transaction may write.
    let read_only = unsafe { pgrx::pg_sys::XactReadOnly };
    if let Some(user) = p_user_id.filter(|_| !read_only) {
        connected(|sql| ledger::settle_due(sql, uuid(user)));
    }
}

/// Deletes settled events that were last received longer ago than `p_older_than`. Never one that is parked or waits for
/// a fetch. Answers how many. A pruned event that comes again is `already_applied`: its payment is known.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn prune_stripe_events(p_older_than: Option<Interval>) -> i64 {
    let older_than = not_negative(p_older_than, "p_older_than");
    connected(|sql| inbox::prune(sql, older_than))
}

/// Makes a user's cached balance what the grants say, and answers it: Σ remaining − debt. For repair; where
/// `validate_credits_consistency()` is empty it changes nothing.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn sync_user_credits(p_user_id: Option<pgrx::Uuid>) -> i64 {
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| ledger::sync(sql, user).0)
}

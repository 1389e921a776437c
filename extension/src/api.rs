//! Every function that moves money: arguments in, one call, outcome out.
//!
//! The manual is sql/comments.sql, which `\df+ billing.*` prints; the rules are in rules/. A business rejection is an
//! outcome row. An error is raised only for a call that is wrong in itself: a null (22004), a blank or impossible value
//! (22023), an amount out of range (22003), a text or JSON that is too long (22023).

#![allow(clippy::needless_pass_by_value, reason = "pgrx hands every argument over by value")]

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;
use stripe_credits_rules::top_up::TopUpState;

use crate::entry::direct::{self, DirectPurchase, DirectState};
use crate::entry::{attribute, catalog, event, forget};
use crate::ledger::{self, Fault};
use crate::outcome::Outcome;
use crate::pg::convert::{clock, time, uuid, uuid_datum};
use crate::pg::error::{
    catalog_document, change, described, described_if_given, document, document_if_given, document_text,
    document_texts, end_of_top_up, expiry, metadata, named, named_if_given, not_negative, period, pool,
    positive, raise_invalid, required, subscription_status, time_to_live,
};
use crate::pg::json::Json;
use crate::pg::sql::connected;
use crate::posting::adjustment::{self, Adjustment, Import};
use crate::posting::promotion::{self, ManualGrant};
use crate::posting::spend::{self, Refund, Request};
use crate::posting::top_up::{self, Ending};
use crate::tables::{inbox, outbox};

/// Applies a whole Stripe event in one transaction, in any order, any number of times, with the same end state.
///
/// `event` is the webhook's body; `fetched` is Stripe's answer to an earlier `needs_fetch`, `{"as_of", "objects"}`, or
/// `{}` if Stripe could not be asked. Nothing in the event's content raises an error.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn apply_stripe_event(event: Option<Json>, fetched: default!(Option<Json>, "NULL")) -> Outcome {
    let (event, fetched) = (document(event, "event"), document_if_given(fetched, "fetched"));
    connected(|sql| event::deliver(sql, &event, fetched.as_ref()))
}

/// Applies a whole Stripe event from the text of the webhook's body: as `apply_stripe_event`, but read once, and with the
/// escapes that jsonb refuses (`\u0000`, surrogates that are not in pairs) replaced by U+FFFD. A body that is no JSON is
/// `rejected`, `malformed`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn apply_stripe_event_text(body: Option<String>, fetched: default!(Option<Json>, "NULL")) -> Outcome {
    let (body, fetched) = (document_text(body, "body"), document_if_given(fetched, "fetched"));
    connected(|sql| event::deliver_text(sql, &body, fetched.as_ref()))
}

/// Applies several whole Stripe events in one transaction, as `apply_stripe_event_text` would one after the other.
///
/// `p_events` are the texts of up to 100 webhooks' bodies. Returns an outcome each, in their order. The locks of all are taken
/// before the first is applied. If one of them raises, none is applied: the caller sends them one by one then.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn apply_stripe_events(p_events: Option<Vec<Option<String>>>) -> SetOfIterator<'static, Outcome> {
    let bodies = document_texts(p_events, "p_events");
    SetOfIterator::new(connected(|sql| event::deliver_texts(sql, &bodies)))
}

/// Applies a session as Stripe has it now, for the user whose browser came back from it.
///
/// `session` is Stripe's object, best with `line_items` expanded. Unless `expected_user_id` owns it, by the rules of every
/// event, the outcome is `rejected`, `no_owner` or `not_owner`, and nothing is written. `as_of` is by Stripe's clock, by
/// default the server's.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn reconcile_checkout_session(
    session: Option<Json>,
    expected_user_id: Option<pgrx::Uuid>,
    as_of: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Outcome {
    let session = document(session, "session");
    let expected = uuid(required(expected_user_id, "expected_user_id"));
    let as_of = as_of.and_then(time).unwrap_or_else(clock);
    connected(|sql| event::reconcile(sql, &session, expected, as_of))
}

/// Links a checkout session (`cs_…`), a customer (`cus_…`, in Accounts v2 `acct_…`) or a subscription (`sub_…`) to a user, and
/// re-applies events that were parked waiting for that. A subscription that another user has moves, with what is left of it
/// and what is to come; with a customer those move that the user has to whom it was linked, unless their metadata
/// name that user.
///
/// `applied` with the credits that moved and those of the events; `already_applied` if nothing changed; `rejected`, `conflict`
/// if a pack's session was paid for another user.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn attribute(p_stripe_id: Option<String>, p_user_id: Option<pgrx::Uuid>) -> Outcome {
    let stripe_id = named(p_stripe_id, "p_stripe_id");
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| match stripe_id.split_once('_') {
        Some(("cus" | "acct", _)) => attribute::customer(sql, &stripe_id, user),
        Some(("cs", _)) => attribute::session(sql, &stripe_id, user),
        Some(("sub", _)) => attribute::subscription(sql, &stripe_id, user),
        _ => raise_invalid(
            "p_stripe_id must be a checkout session (cs_…), a customer (cus_…, acct_…) or a subscription (sub_…)",
            &format!("p_stripe_id = {stripe_id:?}"),
        ),
    })
}

/// Applies a paid credit pack by SQL: the same purchase as its webhook's, whichever comes first.
///
/// `p_amount` is its worth in credits, as the caller states it; `p_event_id` is recorded in the ledger. The same session, or
/// the same payment intent, for another user or amount is `rejected`, `conflict`.
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
/// With `p_invoice_id` that invoice is paid, and grants what the catalog says of `p_price_id`, once, like its event. If
/// `p_tier` is not the catalog's, the details say so. With
/// `p_reset_usage` and no invoice the period was paid for all the same, and counts once with the invoice that turns up for it. The state is as of now, in whole seconds, so that Stripe's later events follow it.
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
    let call = DirectState {
        user: uuid(required(p_user_id, "p_user_id")),
        tier: named(p_tier, "p_tier"),
        customer_id: named_if_given(p_customer_id, "p_customer_id"),
        subscription_id: named(p_subscription_id, "p_subscription_id"),
        price_id: named(p_price_id, "p_price_id"),
        period: period((p_cycle_start, "p_cycle_start"), (p_cycle_end, "p_cycle_end")),
        event_id: named(p_event_id, "p_event_id"),
        invoice_id: named_if_given(p_invoice_id, "p_invoice_id"),
        resets_usage: required(p_reset_usage, "p_reset_usage"),
        status: subscription_status(p_status, "p_status"),
        cancel_at_period_end: required(p_cancel_at_period_end, "p_cancel_at_period_end"),
    };
    connected(|sql| direct::subscription_state(sql, &call))
}

/// The user that a text names, as metadata, `client_reference_id` and tokens' `sub` do: a UUID itself, any other text in the
/// catalog's `user_namespace`. Null if the text names nobody.
#[pg_extern(stable, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn user_id(p_external: Option<String>) -> Option<pgrx::Uuid> {
    let text = named(p_external, "p_external");
    catalog::user_id(&text).map(uuid_datum)
}

/// Stores a catalog document, and re-applies events that were parked waiting for it: 20 at once, the others by `retry_due`,
/// `run_due` or `retry_parked`.
///
/// Returns every price with `added`, `changed`, `retired` or `unchanged`. A faulty document raises 22023 with the path of
/// the fault, and changes nothing.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn load_catalog(
    catalog: Option<Json>,
) -> TableIterator<'static, (name!(price_id, String), name!(change, String))> {
    let document = catalog_document(catalog, "catalog");
    let changes = connected(|sql| catalog::load(sql, &document));
    TableIterator::new(changes.into_iter().map(|(price_id, change)| (price_id, change.as_str().to_owned())))
}

/// Judges up to `p_limit` parked events again, those that waited longest first, except those of accounts that are busy now.
/// Returns an outcome each.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn retry_parked(p_limit: default!(Option<i32>, "100")) -> SetOfIterator<'static, Outcome> {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    SetOfIterator::new(connected(|sql| event::retry_parked(sql, limit)))
}

/// Judges up to `p_limit` of those parked events again that a loaded catalog or a linked customer made due, except those of
/// accounts that are busy now; once there are none, posts what a loaded catalog changes in the next accounts. Returns how many
/// events it judged, or how many accounts it looked at; 0 means that nothing is due, or only in busy accounts.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn retry_due(p_limit: default!(Option<i32>, "20")) -> i64 {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    let events = connected(|sql| catalog::retry_due(sql, limit));
    i64::try_from(events).expect("a count of rows")
}

/// Grants the catalog's signup credits, once per user.
///
/// `rejected`, `no_catalog` before a catalog is loaded; the same call may try again afterwards.
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
        description: described_if_given(p_description.as_ref(), "p_description"),
        expires_at: expiry(p_expires_at, "p_expires_at"),
    };
    connected(|sql| promotion::grant(sql, &call))
}

/// Spends credits, those that are lost soonest first, once per `p_request_id`.
///
/// `rejected`, `insufficient_credits` records nothing, so the same request may try again; the same request id with another
/// amount is `rejected`, `conflict`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn spend_credits(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_request_id: Option<String>,
    p_description: default!(Option<String>, "NULL"),
    p_metadata: default!(Option<Json>, "'{}'"),
) -> Outcome {
    let request_id = named(p_request_id, "p_request_id");
    let request = Request {
        user: uuid(required(p_user_id, "p_user_id")),
        amount: positive(p_amount, "p_amount"),
        request_id: &request_id,
        description: described_if_given(p_description.as_ref(), "p_description"),
        metadata: metadata(p_metadata, "p_metadata"),
    };
    connected(|sql| spend::spend(sql, &request))
}

/// Reserves credits for a job that may fail, once per `p_request_id`: they are drawn at once, and returned after `p_ttl`
/// unless they are committed before.
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
        description: described_if_given(p_description.as_ref(), "p_description"),
        metadata: None,
    };
    let ttl = time_to_live(p_ttl, "p_ttl");
    connected(|sql| spend::reserve(sql, &request, ttl))
}

/// Ends a reservation with `p_amount` of it spent, by default all; the rest returns to the grants it came from.
///
/// `already_applied` for the same again; `rejected` with `unknown_reservation`, `reservation_ended`,
/// `exceeds_reservation`, or `conflict` if it was committed with another amount.
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
/// `already_applied` if it was released or expired before; `rejected` with `unknown_reservation`, or `conflict` if it was
/// committed.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn release_reservation(p_user_id: Option<pgrx::Uuid>, p_request_id: Option<String>) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    let request_id = named(p_request_id, "p_request_id");
    connected(|sql| spend::release(sql, user, &request_id))
}

/// Gives back what a spend, or the committed part of a reservation, drew: to the grants that it drew from, the last one
/// first, once per `p_request_id`.
///
/// `p_amount` is by default what was not given back yet. `already_applied` for the same again; `rejected` with
/// `unknown_spend`, `exceeds_spend`, or `conflict` if the request id was used for anything else. `p_reason` is the ledger rows'
/// description; `p_by`, who gave it back, is in their metadata.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn refund_spend(
    p_user_id: Option<pgrx::Uuid>,
    p_spend_request_id: Option<String>,
    p_request_id: Option<String>,
    p_amount: default!(Option<i64>, "NULL"),
    p_reason: default!(Option<String>, "NULL"),
    p_by: default!(Option<String>, "NULL"),
) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    let spend_request_id = named(p_spend_request_id, "p_spend_request_id");
    let request_id = named(p_request_id, "p_request_id");
    let amount = p_amount.map(|amount| positive(Some(amount), "p_amount"));
    let reason = p_reason.map(|reason| described(Some(reason), "p_reason"));
    let by = named_if_given(p_by, "p_by");
    let refund = Refund {
        user,
        spend_request_id: &spend_request_id,
        request_id: &request_id,
        amount,
        reason: reason.as_deref(),
        by: by.as_deref(),
    };
    connected(|sql| spend::refund(sql, &refund))
}

/// Corrects a balance by hand, once per `p_request_id`; `p_reason` is the ledger row's description, `p_by`, who did it, in its
/// metadata.
///
/// Above 0, `p_amount` is granted as promotional credits. Below 0, it is taken in draw order, purchased credits last;
/// `rejected`, `insufficient_credits` if there are fewer, which records nothing. 0 raises 22023.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn adjust_credits(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_request_id: Option<String>,
    p_reason: Option<String>,
    p_by: default!(Option<String>, "NULL"),
) -> Outcome {
    let (request_id, reason) = (named(p_request_id, "p_request_id"), described(p_reason, "p_reason"));
    let by = named_if_given(p_by, "p_by");
    let call = Adjustment {
        user: uuid(required(p_user_id, "p_user_id")),
        amount: change(p_amount, "p_amount"),
        request_id: &request_id,
        reason: &reason,
        by: by.as_deref(),
    };
    connected(|sql| adjustment::adjust(sql, &call))
}

/// Imports the balance that a user has in another system, once per user and `p_source`.
///
/// The same source with another pool, amount or expiry is `rejected`, `conflict`. Called for each row of a table, one
/// statement imports all users.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn import_balance(
    p_user_id: Option<pgrx::Uuid>,
    p_pool: Option<String>,
    p_amount: Option<i64>,
    p_source: Option<String>,
    p_expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Outcome {
    let source = named(p_source, "p_source");
    let call = Import {
        user: uuid(required(p_user_id, "p_user_id")),
        pool: pool(p_pool, "p_pool"),
        amount: positive(p_amount, "p_amount"),
        source: &source,
        expires_at: expiry(p_expires_at, "p_expires_at"),
    };
    connected(|sql| adjustment::import(sql, &call))
}

/// Turns auto top-up on or off for a user: whether the catalog's `auto_top_up` buys packs by the user's saved payment method.
/// To turn it on takes the user's consent to be charged. After a payment that failed, it ends the pause; for a user who has too
/// few credits already, it buys at once.
///
/// `already_applied` if it is so already; `rejected` with `no_catalog`, `no_auto_top_up` if the catalog has none, or
/// `no_customer` if no server linked a customer of Stripe's to the user. To turn it off is never rejected.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn set_auto_top_up(p_user_id: Option<pgrx::Uuid>, p_enabled: Option<bool>) -> Outcome {
    let (user, enabled) = (uuid(required(p_user_id, "p_user_id")), required(p_enabled, "p_enabled"));
    connected(|sql| top_up::set(sql, user, enabled))
}

/// Records what an attempt to have a claimed top-up paid came to: `paid`, or `failed` or `canceled` with a reason, after which
/// no payment intent of the request may be paid. A failure pauses auto top-up, and both are told.
///
/// Returns whether it was recorded: not if the request has ended, or names another payment intent than the caller knows.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn finish_top_up(
    p_user_id: Option<pgrx::Uuid>,
    p_id: Option<i64>,
    p_payment_intent_id: Option<String>,
    p_state: Option<String>,
    p_reason: default!(Option<String>, "NULL"),
) -> bool {
    let state = end_of_top_up(p_state, "p_state");
    let payment_intent_id = named_if_given(p_payment_intent_id, "p_payment_intent_id");
    let reason = named_if_given(p_reason, "p_reason");
    // What was paid names what paid it; anything else, why it was not.
    match state {
        TopUpState::Paid => required(payment_intent_id.as_deref(), "p_payment_intent_id"),
        _ => required(reason.as_deref(), "p_reason"),
    };
    let ending = Ending {
        user: uuid(required(p_user_id, "p_user_id")),
        id: required(p_id, "p_id"),
        payment_intent_id: payment_intent_id.as_deref(),
        state,
        reason: reason.as_deref(),
    };
    connected(|sql| top_up::finish(sql, &ending))
}

/// Posts what is due in up to `p_limit` accounts, and does what `retry_due(20)` does, if no delivery is being applied at that
/// moment; tells of credits that expire soon, removes old rows of the outbox, and gives a new version to accounts of which the
/// read model changed without them, up to `p_limit` each. Returns how many accounts, events and rows, new versions not counted;
/// 0 means that the others are busy or not due. Whoever needs one of those accounts waits for it, so the limit is small. It need
/// not be punctual: reads are right without it.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn run_due(p_limit: default!(Option<i32>, "500")) -> i64 {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    let done = connected(|sql| {
        let posted =
            ledger::run_due(sql, limit) + ledger::tell_expiring(sql, limit) + outbox::prune(sql, limit);
        // Last, because every delivery waits for the catalog's lock until this transaction ends.
        posted + catalog::try_retry_due(sql, limit)
    });
    i64::try_from(done).expect("a count of rows")
}

/// Posts what is due in a user's account, if the transaction may write. Internal to `my_credits`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn settle_account(p_user_id: Option<pgrx::Uuid>) {
    // SAFETY: a backend is one thread, and reads its own flag: whether this transaction may write.
    let read_only = unsafe { pgrx::pg_sys::XactReadOnly };
    if let Some(user) = p_user_id.filter(|_| !read_only) {
        connected(|sql| ledger::settle_due(sql, uuid(user)));
    }
}

/// Deletes events that were last received longer ago than `p_older_than`, but none that is parked or waits for a fetch.
/// Returns how many. If a deleted event comes again, it is `already_applied`, because its payment is known.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn prune_stripe_events(p_older_than: Option<Interval>) -> i64 {
    let older_than = not_negative(p_older_than, "p_older_than");
    connected(|sql| inbox::prune(sql, older_than))
}

/// Forgets a user: reduces what the inbox keeps of them, names, addresses and all, to what the rules read, now and for
/// events that arrive later; turns auto top-up off. The ledger stays, and every event can still be applied again.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn forget_user(p_user_id: Option<pgrx::Uuid>) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| forget::user(sql, user))
}

/// Recomputes a user's cached balance from the grants, and returns it: Σ remaining − debt. For repair; if
/// `validate_credits_consistency()` has no row it changes nothing.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn sync_user_credits(p_user_id: Option<pgrx::Uuid>) -> i64 {
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| ledger::sync(sql, user).0)
}

/// Of all users: the grants of plans, trials and bonuses whose amount is not what their facts are worth, recomputed from the
/// first one on, and the payments of which another part came back than their reversals say.
///
/// `place` is the grant's id. The part of `validate_credits_consistency()` that only the rules can compute.
#[pg_extern(stable, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn worth_faults()
-> TableIterator<'static, (name!(user_id, pgrx::Uuid), name!(place, i64), name!(fault, String))> {
    TableIterator::new(ledger::worth_faults().into_iter().map(fault))
}

/// Of all users: the ledger rows whose hash is not that of the row and the one before it, and the last ones whose hash the
/// account does not name.
///
/// `place` is the row's id. The part of `validate_credits_consistency()` that no change on the disk gets past.
#[pg_extern(stable, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn chain_faults()
-> TableIterator<'static, (name!(user_id, pgrx::Uuid), name!(place, i64), name!(fault, String))> {
    TableIterator::new(ledger::chain_faults().into_iter().map(fault))
}

fn fault(fault: Fault) -> (pgrx::Uuid, i64, String) {
    (uuid_datum(fault.user), fault.place, fault.text)
}

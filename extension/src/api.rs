//! Every function that moves money: arguments in, one call, outcome out.
//!
//! The manual is sql/comments.sql, which `\df+ billing.*` prints; the rules are in rules/. A business refusal is an
//! outcome row. What is raised is a call that is wrong in itself: a null (22004), a blank or impossible value (22023),
//! an amount out of range (22003).

#![allow(clippy::needless_pass_by_value, reason = "pgrx hands every argument over by value")]

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Time, TimeDelta};
use stripe_credits_rules::catalog::{self as catalog_document, Change, Settings};
use stripe_credits_rules::event;
use stripe_credits_rules::lot::{Lot, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::Status;

use crate::entry::attribute;
use crate::entry::event::{self as apply, Door};
use crate::ledger::{self, Origin, TransactionType};
use crate::outcome::{Outcome, Verdict};
use crate::pg::convert::{clock, time, uuid};
use crate::pg::error::{named, named_if_given, positive, raise, required};
use crate::pg::json::JsonText;
use crate::pg::locks;
use crate::pg::sql::connected;
use crate::posting::pack::{self as purchase, DirectPurchase};
use crate::posting::spend as spending;
use crate::posting::subscription::{self as state, DirectState};
use crate::tables::{catalog, inbox};

/// The grant of a user's signup credits, and of credits given by hand, within their source.
const SIGNUP: &str = "signup";
const GRANT: &str = "grant";

/// How long a reservation may hold credits, in days.
const MAX_RESERVATION_DAYS: i64 = 30;

/// How many parked events are in memory at a time while everything parked is judged.
const PARKED_BATCH: i64 = 1_000;

/// Applies a whole Stripe event in one transaction, in any order, any number of times, with the same end state.
///
/// `event` is the webhook's body; `fetched` is Stripe's answer to a `needs_fetch` before, `{"as_of", "objects"}`, or
/// `{}` where nobody could ask. Nothing in the event's content raises. Stands on Stripe's `checkout.session.*` events.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn apply_stripe_event(event: Option<JsonText>, fetched: default!(Option<JsonText>, "NULL")) -> Outcome {
    let event = required(event, "event");
    connected(|sql| apply::delivery(sql, &event, fetched.as_ref(), Door::Event))
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
    let user = uuid(required(expected_user_id, "expected_user_id"));
    let as_of = as_of.and_then(time).unwrap_or_else(clock);
    let event = match event::reconciliation(session.text(), as_of) {
        Ok(event) => JsonText::from_json(event),
        Err(malformed) => return apply::refused(&malformed),
    };
    connected(|sql| apply::delivery(sql, &event, None, Door::Reconcile(user)))
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
        _ => raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "p_stripe_id must be a checkout session (cs_…) or a customer (cus_…)".into(),
            format!("p_stripe_id = {stripe_id:?}"),
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
    connected(|sql| purchase::direct(sql, &call))
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
    let user = uuid(required(p_user_id, "p_user_id"));
    let start = finite(p_cycle_start, "p_cycle_start");
    let end = finite(p_cycle_end, "p_cycle_end");
    let status = named(p_status, "p_status");
    let wrong = |message: String, value: String| -> ! {
        raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, value)
    };
    if end <= start {
        wrong(
            "p_cycle_end must be after p_cycle_start".into(),
            format!("p_cycle_start = {start}, p_cycle_end = {end}"),
        );
    }
    let call = DirectState {
        tier: named(p_tier, "p_tier"),
        customer_id: named_if_given(p_customer_id, "p_customer_id"),
        subscription_id: named(p_subscription_id, "p_subscription_id"),
        price_id: named(p_price_id, "p_price_id"),
        period: (start, end),
        event_id: named(p_event_id, "p_event_id"),
        invoice_id: named_if_given(p_invoice_id, "p_invoice_id"),
        status: Status::parse(&status).unwrap_or_else(|| {
            wrong(
                "p_status must be one of Stripe's subscription statuses".into(),
                format!("p_status = {status:?}"),
            )
        }),
        cancel_at_period_end: required(p_cancel_at_period_end, "p_cancel_at_period_end"),
        user,
    };
    required(p_reset_usage, "p_reset_usage");
    connected(|sql| state::direct(sql, &call))
}

fn finite(at: Option<TimestampWithTimeZone>, argument: &str) -> Time {
    let at = required(at, argument);
    time(at).unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{argument} must be finite"),
            format!("{argument} = {at}"),
        )
    })
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
    let document = required(catalog, "catalog");
    let catalog = catalog_document::read(document.text()).unwrap_or_else(|fault| {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("the catalog is faulty at {fault}"),
            format!("path = {}", fault.path),
        )
    });
    let changes = connected(|sql| {
        locks::catalog_exclusive();
        let grants_months = |settings: &Settings| {
            settings.free_plan.as_ref().is_some_and(|plan| plan.credits > Credits::ZERO)
        };
        let granted_months = catalog::settings(sql).is_some_and(|settings| grants_months(&settings));
        let changes = catalog::load(sql, &catalog);
        let started = clock();
        loop {
            let parked = inbox::parked(sql, started, PARKED_BATCH);
            if parked.is_empty() {
                for (price_id, _) in changes.iter().filter(|(_, change)| *change != Change::Unchanged) {
                    state::reprice(sql, price_id);
                }
                if !granted_months && grants_months(&catalog.settings) {
                    ledger::begin_free_plan(sql);
                }
                return changes;
            }
            for waiting in parked {
                apply::retry(sql, Some(&catalog.settings), &waiting);
            }
        }
    });
    TableIterator::new(changes.into_iter().map(|(price_id, change)| (price_id, change.as_str().to_owned())))
}

/// Judges up to `p_limit` parked events again, those that waited longest first; an account that is busy is left for the
/// next time. Answers an outcome each.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn retry_parked(p_limit: default!(Option<i32>, "1000")) -> SetOfIterator<'static, Outcome> {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    let outcomes = connected(|sql| {
        locks::catalog_exclusive();
        let settings = catalog::settings(sql);
        let mut outcomes = Vec::new();
        for waiting in inbox::parked(sql, clock(), limit) {
            if waiting.user.is_some_and(|user| ledger::is_busy(sql, user)) {
                continue;
            }
            let outcome = apply::retry(sql, settings.as_ref(), &waiting);
            outcomes.push(outcome.with("event_id", waiting.event_id));
        }
        outcomes
    });
    SetOfIterator::new(outcomes)
}

/// Grants the catalog's signup credits, once per user.
///
/// `rejected`, `no_catalog` before a catalog was loaded; the same call may try again then.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_signup_credits(p_user_id: Option<pgrx::Uuid>) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    connected(|sql| {
        let Some(settings) = catalog::settings(sql) else {
            return Outcome::of(Verdict::Rejected(Reason::NoCatalog));
        };
        let mut account = ledger::lock(sql, user);
        if !account.sign_up() {
            return purchase::close(sql, account, Verdict::AlreadyApplied);
        }
        let lots: Vec<Lot> = (settings.signup_credits > Credits::ZERO)
            .then(|| promotional(SIGNUP, "Signup credits", settings.signup_credits))
            .into_iter()
            .collect();
        let granted = account.grant(sql, SIGNUP, &lots, TransactionType::Signup, &Origin::default());
        match granted {
            Ok(()) => purchase::close(sql, account, Verdict::Applied),
            Err(reason) => Outcome::of(Verdict::Rejected(reason)),
        }
    })
}

/// Grants promotional credits by hand, once per `p_request_id`.
///
/// They lapse at `p_expires_at`, or never. The same request id with another amount or expiry is `rejected`, `conflict`.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_credits(
    p_user_id: Option<pgrx::Uuid>,
    p_amount: Option<i64>,
    p_request_id: Option<String>,
    p_description: default!(Option<String>, "NULL"),
    p_expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Outcome {
    let user = uuid(required(p_user_id, "p_user_id"));
    let amount = positive(p_amount, "p_amount");
    let request_id = named(p_request_id, "p_request_id");
    let lapses_at = expiry(p_expires_at);
    connected(|sql| {
        let mut account = ledger::lock(sql, user);
        if let Some(granted) = account.granted(sql, &request_id, GRANT) {
            let same = granted.amount == amount && granted.lapses_at == lapses_at;
            let verdict = if same { Verdict::AlreadyApplied } else { Verdict::Rejected(Reason::Conflict) };
            return purchase::close(sql, account, verdict);
        }
        if let Some(past) = lapses_at.filter(|lapses_at| *lapses_at <= account.now()) {
            raise_past_expiry(&past.to_string());
        }
        let lot = Lot { lapses_at, ..promotional(GRANT, "Granted", amount) };
        let origin = Origin {
            description: p_description.as_deref(),
            request_id: Some(&request_id),
            ..Origin::default()
        };
        match account.grant(sql, &request_id, &[lot], TransactionType::Grant, &origin) {
            Ok(()) => purchase::close(sql, account, Verdict::Applied),
            Err(reason) => Outcome::of(Verdict::Rejected(reason)),
        }
    })
}

/// When a grant lapses: never where it is null or infinity.
fn expiry(p_expires_at: Option<TimestampWithTimeZone>) -> Option<Time> {
    let at = p_expires_at.filter(|at| *at != TimestampWithTimeZone::positive_infinity())?;
    Some(time(at).unwrap_or_else(|| raise_past_expiry("-infinity")))
}

fn raise_past_expiry(value: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        "p_expires_at must be in the future".into(),
        format!("p_expires_at = {value}"),
    )
}

fn promotional(item: &str, name: &str, credits: Credits) -> Lot {
    Lot::new(item.into(), name.into(), credits, Pool::Promotional)
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
    let user = uuid(required(p_user_id, "p_user_id"));
    let amount = positive(p_amount, "p_amount");
    let request_id = named(p_request_id, "p_request_id");
    let origin = Origin {
        description: p_description.as_deref(),
        request_id: Some(&request_id),
        metadata: p_metadata.as_ref().filter(|metadata| metadata.text() != "{}"),
        ..Origin::default()
    };
    connected(|sql| spending::spend(sql, user, amount, &origin))
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
    let user = uuid(required(p_user_id, "p_user_id"));
    let amount = positive(p_amount, "p_amount");
    let request_id = named(p_request_id, "p_request_id");
    let ttl = time_to_live(&required(p_ttl, "p_ttl"));
    let origin =
        Origin { description: p_description.as_deref(), request_id: Some(&request_id), ..Origin::default() };
    connected(|sql| spending::reserve(sql, user, amount, |now| now + ttl, &origin))
}

/// A reservation's time to live: above 0, at most [`MAX_RESERVATION_DAYS`]. A month counts 30 days.
fn time_to_live(ttl: &Interval) -> TimeDelta {
    let days = i64::from(ttl.months()) * 30 + i64::from(ttl.days());
    let ttl = TimeDelta::days(days) + TimeDelta::microseconds(ttl.micros());
    if ttl <= TimeDelta::zero() || ttl > TimeDelta::days(MAX_RESERVATION_DAYS) {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("p_ttl must be above 0 and at most {MAX_RESERVATION_DAYS} days"),
            format!("p_ttl = {ttl}"),
        );
    }
    ttl
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
    connected(|sql| spending::commit(sql, user, &request_id, amount))
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
    connected(|sql| spending::release(sql, user, &request_id))
}

/// Posts what time alone has caused for up to `p_limit` accounts that are due. Answers how many; fewer than the limit
/// says that the rest is busy or there is none. Nothing needs it to be punctual: reads are right before it ran.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn run_due(p_limit: default!(Option<i32>, "1000")) -> i64 {
    let limit = positive(p_limit.map(i64::from), "p_limit").0;
    connected(|sql| {
        let users = ledger::due(sql, limit);
        for user in &users {
            ledger::lock(sql, *user);
        }
        i64::try_from(users.len()).expect("no more than the limit")
    })
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
    let older_than = required(p_older_than, "p_older_than");
    if older_than.months() < 0 || older_than.days() < 0 || older_than.micros() < 0 {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "p_older_than must not be negative".into(),
            format!(
                "p_older_than = {} months {} days {} microseconds",
                older_than.months(),
                older_than.days(),
                older_than.micros()
            ),
        );
    }
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

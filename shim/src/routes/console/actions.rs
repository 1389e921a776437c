//! What a support person does with a form, and how the next page says what came of it. The database decides, as for everyone
//! else; the forms' own request ids let a form count once however often it is sent.

use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::stripe::MAX_ID_BYTES;
use stripe_credits_rules::verdict::VerdictName;
use uuid::Uuid;

use crate::app::App;
use crate::database::DatabaseError;
use crate::delivery;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::routes::console::visit::{Notice, Visit};
use crate::routes::console::words::{change, credits, meaning, words};
use crate::routes::request::LogFields;

/// The most credits that one correction may give or take: as in SQL.
const MAX_AMOUNT: i64 = 1_000_000_000_000;
/// The longest reason, in bytes: as in SQL.
const MAX_REASON_BYTES: usize = 4096;
/// What the request ids of forms begin with.
pub(crate) const REQUEST_ID_PREFIX: &str = "console-";

/// What a form does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Says whose a session, a customer or a subscription is.
    Attribute,
    /// Judges an event again.
    Retry,
    /// Gives or takes credits.
    Adjust,
    /// Gives back what was spent.
    Refund,
}

/// What came of it: the outcome, or why it was not even tried.
pub(crate) type Done = Result<(Outcome, Notice), Refused>;

/// Why a form was not sent on: it was not filled in right.
pub(crate) struct Refused(pub(crate) String);

/// Does what the form says, for the person with this name.
///
/// # Errors
/// The database's and Stripe's: whether it was done is not known then, and the same form may be sent again.
pub(crate) async fn perform(
    app: &App,
    action: Action,
    visit: &Visit,
    by: &str,
    fields: &mut LogFields,
) -> Result<Done, Error> {
    fields.by = Some(by.to_owned());
    let result = match action {
        Action::Attribute => attribute(app, visit, fields).await,
        Action::Retry => retry(app, visit).await,
        Action::Adjust => adjust(app, visit, by, fields).await,
        Action::Refund => refund(app, visit, by, fields).await,
    };
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(Failed::Refused(refused)) => Ok(Err(refused)),
        // A call that is wrong in itself: the database says which argument.
        Err(Failed::Error(Error::Database(DatabaseError::Data(fault)))) => {
            let message = fault.as_db_error().map_or("the database refused it", |fault| fault.message());
            Ok(Err(Refused(format!("Not done: {message}."))))
        }
        Err(Failed::Error(error)) => Err(error),
    }
}

enum Failed {
    Refused(Refused),
    Error(Error),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<DatabaseError> for Failed {
    fn from(error: DatabaseError) -> Self {
        Self::Error(error.into())
    }
}

fn refused(text: &str) -> Failed {
    Refused(format!("Not done: {text}")).into()
}

async fn attribute(app: &App, visit: &Visit, fields: &mut LogFields) -> Result<(Outcome, Notice), Failed> {
    let id = visit.field("stripe_id");
    if !["cs_", "cus_", "acct_", "sub_"].iter().any(|kind| id.starts_with(kind)) || id.len() > MAX_ID_BYTES {
        return Err(refused(
            "enter a checkout session (cs_…), a customer (cus_… or acct_…) or a subscription (sub_…).",
        ));
    }
    let user = user(app, visit, fields).await?;
    let outcome = app.database.attribute(id, user).await?;
    app.after_commit(&outcome, id).await;
    let notice = match (outcome.verdict(), outcome.reason()) {
        (VerdictName::Applied, _) => Notice::done(format!(
            "{id} is this user's now. Credits: {}.{}",
            change(outcome.credits().unwrap_or_default()),
            balance_of(&outcome)
        )),
        (VerdictName::AlreadyApplied, _) => {
            Notice::done(format!("{id} was this user's already. Nothing changed."))
        }
        (_, Some(Reason::Conflict)) => Notice::refused(format!(
            "Not done: {id} was paid for another user. A pack does not move: take its credits from the one, and give \
             them to the other."
        )),
        _ => unexpected(&outcome),
    };
    Ok((outcome, notice))
}

async fn retry(app: &App, visit: &Visit) -> Result<(Outcome, Notice), Failed> {
    let event_id = visit.field("event_id");
    let Some(text) = app.database.inbox_event(event_id).await? else {
        return Err(refused("the inbox has no such event any more."));
    };
    let event = Event::from_inbox(&text).map_err(Error::from)?;
    let outcome = delivery::apply(&app.database, app.stripe.as_ref(), &event).await?;
    app.after_commit(&outcome, event_id).await;
    let notice = match outcome.verdict() {
        VerdictName::Applied => Notice::done(format!(
            "{event_id} is applied. Credits: {}.{}",
            change(outcome.credits().unwrap_or_default()),
            balance_of(&outcome)
        )),
        VerdictName::AlreadyApplied => {
            Notice::done(format!("{event_id} was applied before, and counts once."))
        }
        VerdictName::Parked | VerdictName::NeedsFetch => {
            let why = outcome.reason().and_then(meaning);
            let why = why.unwrap_or_else(|| "What it needs could not be had from Stripe.".to_owned());
            Notice::refused(format!("{event_id} still waits. {why}"))
        }
        VerdictName::Ignored | VerdictName::Rejected => unexpected(&outcome),
    };
    Ok((outcome, notice))
}

async fn adjust(
    app: &App,
    visit: &Visit,
    by: &str,
    fields: &mut LogFields,
) -> Result<(Outcome, Notice), Failed> {
    let user = user(app, visit, fields).await?;
    let amount = amount(visit)?.ok_or_else(|| refused("enter how many credits."))?;
    let amount = match visit.field("direction") {
        "give" => amount,
        "take" => -amount,
        _ => return Err(refused("say whether to give or to take.")),
    };
    let (reason, request_id) = (reason(visit)?, request_id(visit, fields)?);
    let outcome = app.database.adjust_credits(user, amount, request_id, reason, by).await?;
    forget_cached(app, user).await;
    let notice = match (outcome.verdict(), outcome.reason()) {
        (VerdictName::Applied, _) if amount > 0 => {
            Notice::done(format!("Gave {} credits.{}", credits(amount), balance_of(&outcome)))
        }
        (VerdictName::Applied, _) => {
            Notice::done(format!("Took {} credits.{}", credits(-amount), balance_of(&outcome)))
        }
        (_, Some(Reason::InsufficientCredits)) => Notice::refused(format!(
            "Not done: the user has fewer than {} credits. Take at most what the balance is.",
            credits(-amount)
        )),
        _ => common(&outcome),
    };
    Ok((outcome, notice))
}

async fn refund(
    app: &App,
    visit: &Visit,
    by: &str,
    fields: &mut LogFields,
) -> Result<(Outcome, Notice), Failed> {
    let user = user(app, visit, fields).await?;
    let spend = visit.field("spend_request_id");
    if spend.is_empty() {
        return Err(refused("enter the request id of the spend."));
    }
    let (amount, reason, request_id) = (amount(visit)?, reason(visit)?, request_id(visit, fields)?);
    let outcome = app.database.refund_spend(user, spend, request_id, amount, Some(reason), Some(by)).await?;
    forget_cached(app, user).await;
    let notice = match (outcome.verdict(), outcome.reason()) {
        (VerdictName::Applied, _) => Notice::done(format!(
            "Gave back {} credits of {spend}.{}",
            credits(outcome.credits().unwrap_or_default()),
            balance_of(&outcome)
        )),
        (_, Some(Reason::UnknownSpend)) => Notice::refused(format!(
            "Not done: {spend} is neither a spend of this user's nor a reservation that was committed."
        )),
        (_, Some(Reason::ExceedsSpend)) => Notice::refused(format!(
            "Not done: of {spend} less than that is left to give back. Leave the amount empty to give back what is left; \
             if that is nothing, give credits instead."
        )),
        _ => common(&outcome),
    };
    Ok((outcome, notice))
}

/// What is the same for every form with a request id.
fn common(outcome: &Outcome) -> Notice {
    match (outcome.verdict(), outcome.reason()) {
        (VerdictName::AlreadyApplied, _) => {
            Notice::done("This form was sent before, and counts once. Nothing was done twice.")
        }
        (_, Some(Reason::Conflict)) => Notice::refused(
            "Not done: this form was sent before with other values, and those count. Look at the ledger, then fill in a new \
             form.",
        ),
        (_, Some(Reason::OutOfRange)) => {
            Notice::refused("Not done: these are more credits than an account can hold.")
        }
        _ => unexpected(outcome),
    }
}

fn unexpected(outcome: &Outcome) -> Notice {
    let reason = outcome.reason_text().map(words).unwrap_or_default();
    let meaning = outcome.reason().and_then(meaning).unwrap_or_default();
    let text = format!("Not done: the database answered {}, {reason}. {meaning}", outcome.verdict().as_str());
    Notice::refused(text.trim_end())
}

fn balance_of(outcome: &Outcome) -> String {
    match outcome.balance() {
        Some((balance, 0)) => format!(" The balance is {} now.", credits(balance)),
        Some((balance, debt)) => {
            format!(" The balance is {} now, and {} are owed.", credits(balance), credits(debt))
        }
        None => String::new(),
    }
}

async fn user(app: &App, visit: &Visit, fields: &mut LogFields) -> Result<Uuid, Failed> {
    let user = app.database.user_id(visit.field("user")).await?;
    let user = user.ok_or_else(|| refused("enter the user's id, as the app's metadata name them."))?;
    fields.user_id = Some(user);
    Ok(user)
}

/// Credits; none if the field is empty.
fn amount(visit: &Visit) -> Result<Option<i64>, Failed> {
    let text = visit.field("amount");
    if text.is_empty() {
        return Ok(None);
    }
    let amount = text.parse().ok().filter(|amount| (1..=MAX_AMOUNT).contains(amount));
    amount.map(Some).ok_or_else(|| refused("enter the amount as a whole number above 0."))
}

fn reason(visit: &Visit) -> Result<&str, Failed> {
    match visit.field("reason") {
        "" => Err(refused("enter a reason. It is kept in the ledger.")),
        reason if reason.len() > MAX_REASON_BYTES => Err(refused("the reason is too long for the ledger.")),
        reason => Ok(reason),
    }
}

/// The request id that the form was made with.
fn request_id<'a>(visit: &'a Visit, fields: &mut LogFields) -> Result<&'a str, Failed> {
    let request_id = visit.field("request_id");
    if !request_id.starts_with(REQUEST_ID_PREFIX) || request_id.len() > MAX_ID_BYTES {
        return Err(refused("load the page again, and fill in the form anew."));
    }
    fields.request_id = Some(request_id.to_owned());
    Ok(request_id)
}

/// So that no page shows the balance of before.
async fn forget_cached(app: &App, user: Uuid) {
    if let Some(cache) = &app.cache {
        cache.forget_credits(user).await;
    }
}

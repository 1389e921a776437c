//! `backfill`: goes through Stripe's objects instead of its events, and applies what the database lacks: for an
//! installation after the first subscriptions, or one that received no events for longer than Stripe keeps them.
//!
//! Refunds and disputes come first, so that no invoice is credited and spent before its reversal is known; then
//! subscriptions, which link an invoice to its user; then paid invoices.

use serde::{Deserialize, Serialize};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::VerdictName;

use crate::clock::unix_now;
use crate::commands::repair::{Repair, each_page};
use crate::commands::report::Report;
use crate::config::Environment;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::stripe::pages::{Listed, Page, Pages};
use crate::stripe::path::is_id;

/// The name of the cursor.
const COMMAND: &str = "backfill";
/// The fetched objects of an event for which nothing is fetched.
const NOTHING_FETCHED: &str = "{}";
/// How far Stripe's clock may be behind this one, in seconds.
const CLOCK_SKEW_SECONDS: u64 = 300;

/// The kind of objects in a list.
#[derive(Clone, Copy)]
enum Kind {
    Reversal,
    Subscription,
    Invoice,
}

impl Kind {
    /// When the objects must have been created that a run since a time reads. An invoice or a refund may be of a
    /// subscription that is older than it, and a subscription's state is today's: they are read however old they are.
    fn created_since(self, since: u64) -> u64 {
        match self {
            Self::Reversal | Self::Invoice => since,
            Self::Subscription => 0,
        }
    }
}

/// One of Stripe's lists.
struct List {
    name: &'static str,
    kind: Kind,
    path: &'static str,
}

/// The lists, in the order in which they are processed.
const LISTS: [List; 4] = [
    List { name: "refunds", kind: Kind::Reversal, path: "/v1/refunds?" },
    List { name: "disputes", kind: Kind::Reversal, path: "/v1/disputes?" },
    List { name: "subscriptions", kind: Kind::Subscription, path: "/v1/subscriptions?status=all&" },
    // An invoice's payments name the payment intent, which is all that a refund names.
    List { name: "invoices", kind: Kind::Invoice, path: "/v1/invoices?status=paid&expand[]=data.payments&" },
];

/// The position of a run that was stopped.
#[derive(Serialize, Deserialize)]
struct BackfillCursor {
    /// The start of the run, in seconds since 1970.
    began: u64,
    /// Refunds, disputes and invoices created before this are left out, in seconds since 1970.
    since: u64,
    list: String,
    /// The last object that was processed; none at the start of the list.
    after: Option<String>,
}

/// Whether events are applied or only explained.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Real,
    Dry,
}

/// Processes every list, since a time or from where the last run was stopped, or else from the start.
pub(crate) async fn run(since: Option<&str>, run: Run, environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    repair.needs_catalog().await?;
    let (stopped, since): (Option<BackfillCursor>, _) = match (since, run) {
        (Some(written), _) => (None, repair.since(written).await?),
        (None, Run::Real) => (repair.cursor(COMMAND).await?, 0),
        (None, Run::Dry) => (None, 0),
    };
    let mut report = if run == Run::Dry { Report::dry() } else { Report::new() };
    if let Some(stopped) = stopped {
        report.print(&format!("resuming with the {}, where the last run was stopped", stopped.list));
        let began = stopped.began;
        process_lists(&repair, run, stopped, &mut report).await?;
        // The lists are newest first: what was created since that run began is before its position.
        let since = began.saturating_sub(CLOCK_SKEW_SECONDS);
        process_lists(&repair, run, BackfillCursor::at_start(began, since), &mut report).await?;
    } else {
        process_lists(&repair, run, BackfillCursor::at_start(unix_now(), since), &mut report).await?;
    }
    if run == Run::Real {
        repair.database.move_cursor(COMMAND, None).await?;
    } else {
        report.print("a dry run: nothing was written, and each object was judged by the database as it is");
    }
    report.finish()
}

/// Processes the objects from the cursor's position.
async fn process_lists(
    repair: &Repair,
    run: Run,
    from: BackfillCursor,
    report: &mut Report,
) -> Result<(), Error> {
    let BackfillCursor { began, since, list, mut after } = from;
    let first = LISTS.iter().position(|known| known.name == list).unwrap_or(0);
    for List { name, kind, path } in &LISTS[first..] {
        report.start_part(name);
        let path = format!("{path}created[gte]={}", kind.created_since(since));
        let pages = Pages::of(&repair.stripe, path, after.take());
        each_page(pages, async |Page { objects, starting_after }| {
            let apply_one = async |listed: &Listed| process(repair, run, *kind, listed).await;
            repair.each(objects, apply_one, |id, result| report.count(id, result)).await?;
            // A dry run saves nothing, and the end of a list is the start of the next.
            if run == Run::Dry || starting_after.is_none() {
                return Ok(());
            }
            let position = BackfillCursor { began, since, list: (*name).to_owned(), after: starting_after };
            repair.save_cursor(COMMAND, &position).await
        })
        .await?;
    }
    Ok(())
}

/// Applies one object, or explains what that would do.
async fn process(repair: &Repair, run: Run, kind: Kind, listed: &Listed) -> Result<Outcome, Error> {
    let event = Event::from_object(&listed.object.json, listed.object.as_of, repair.mode)?;
    match kind {
        Kind::Reversal => reversal(repair, run, &event).await,
        Kind::Subscription => subscription(repair, run, &event, &listed.id).await,
        Kind::Invoice => apply_or_explain(repair, run, &event).await,
    }
}

/// The invoices that follow name their payment intents, so they are not fetched for each refund.
async fn reversal(repair: &Repair, run: Run, event: &Event) -> Result<Outcome, Error> {
    let outcome = match run {
        Run::Real => repair.database.apply_stripe_event_with(event, NOTHING_FETCHED).await,
        Run::Dry => repair.database.explain_event(event, Some(NOTHING_FETCHED)).await,
    };
    Ok(outcome?)
}

/// A subscription without a user may get one from the checkout session that created it.
async fn subscription(repair: &Repair, run: Run, event: &Event, id: &str) -> Result<Outcome, Error> {
    let outcome = apply_or_explain(repair, run, event).await?;
    if outcome.verdict() != VerdictName::Parked || outcome.reason() != Some(Reason::UnknownUser) {
        return Ok(outcome);
    }
    if !is_id(id) {
        return Ok(outcome);
    }
    let path = format!("/v1/checkout/sessions?subscription={id}&expand[]=data.subscription");
    let sessions = Pages::of(&repair.stripe, path, None).next().await?;
    let Some(session) = sessions.and_then(|page| page.objects.into_iter().next()) else { return Ok(outcome) };
    let event = Event::from_session(&session.object.json, session.object.as_of)?;
    let session_outcome = apply_or_explain(repair, run, &event).await?;
    Ok(if session_outcome.user_id().is_some() { session_outcome } else { outcome })
}

async fn apply_or_explain(repair: &Repair, run: Run, event: &Event) -> Result<Outcome, Error> {
    match run {
        Run::Real => repair.apply(event).await,
        Run::Dry => repair.explain(event).await,
    }
}

impl BackfillCursor {
    fn at_start(began: u64, since: u64) -> Self {
        Self { began, since, list: LISTS[0].name.to_owned(), after: None }
    }
}

//! `backfill`: goes through what Stripe has, not through what it told, and repairs what the books lack: for an install
//! that comes later than its first subscriptions, or that heard nothing for longer than Stripe keeps events.
//!
//! Refunds and disputes come first, so that no invoice is credited, and spent, before what reverses it is known; then
//! subscriptions, which say whose an invoice is; then paid invoices.

use serde::{Deserialize, Serialize};

use crate::clock::unix_now;
use crate::commands::repair::{Repair, each_page};
use crate::commands::report::Report;
use crate::config::Environment;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::{Outcome, Verdict};
use crate::stripe::pages::{Listed, Page, Pages};

/// The name of its cursor.
const COMMAND: &str = "backfill";
/// What is fetched where nobody asks.
const NOT_ASKED: &str = "{}";
/// What Stripe's clock may be behind ours, in seconds.
const CLOCK_SKEW_SECONDS: u64 = 300;

/// What a list holds.
#[derive(Clone, Copy)]
enum Kind {
    Reversal,
    Subscription,
    Invoice,
}

/// A list of Stripe's.
struct List {
    name: &'static str,
    kind: Kind,
    path: &'static str,
}

/// The lists, in the order in which they are gone through.
const LISTS: [List; 4] = [
    List { name: "refunds", kind: Kind::Reversal, path: "/v1/refunds?" },
    List { name: "disputes", kind: Kind::Reversal, path: "/v1/disputes?" },
    List { name: "subscriptions", kind: Kind::Subscription, path: "/v1/subscriptions?status=all&" },
    // Its payments say which payment intent paid it: refunds name nothing else.
    List { name: "invoices", kind: Kind::Invoice, path: "/v1/invoices?status=paid&expand[]=data.payments&" },
];

/// How far a run has come that was stopped.
#[derive(Serialize, Deserialize)]
struct Cursor {
    /// When it began, in seconds since 1970.
    began: u64,
    list: String,
    /// The last object that was worked on; none before the list's first.
    after: Option<String>,
}

/// Whether it is done, or only told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Real,
    Dry,
}

/// Goes through everything; a run that was stopped is gone on with.
pub(crate) async fn run(run: Run, environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    repair.needs_catalog().await?;
    let (stopped, mut report): (Option<Cursor>, _) = match run {
        Run::Real => (repair.cursor(COMMAND).await?, Report::new()),
        Run::Dry => (None, Report::dry()),
    };
    let now = unix_now();
    if let Some(stopped) = stopped {
        report.say(&format!("going on with the {} where a run was stopped", stopped.list));
        let began = stopped.began;
        go_through(&repair, run, 0, stopped, &mut report).await?;
        // What is new since then stands before where it began.
        let since = began.saturating_sub(CLOCK_SKEW_SECONDS);
        go_through(&repair, run, since, Cursor::beginning(began), &mut report).await?;
    } else {
        go_through(&repair, run, 0, Cursor::beginning(now), &mut report).await?;
    }
    if run == Run::Real {
        repair.database.move_cursor(COMMAND, None).await?;
    } else {
        report.say("a dry run: nothing was written, and each object was judged by the books as they are");
    }
    report.finish()
}

/// Goes through the objects that were made since a time, from where the cursor stands.
async fn go_through(
    repair: &Repair,
    run: Run,
    since: u64,
    from: Cursor,
    report: &mut Report,
) -> Result<(), Error> {
    let Cursor { began, list, mut after } = from;
    let first = LISTS.iter().position(|known| known.name == list).unwrap_or(0);
    for List { name, kind, path } in &LISTS[first..] {
        report.begin(name);
        let pages = Pages::of(&repair.stripe, format!("{path}created[gte]={since}"), after.take());
        each_page(pages, async |Page { objects, goes_on_after }| {
            let act = async |listed: &Listed| object(repair, run, *kind, listed).await;
            repair.each(objects, act, |id, result| report.count(id, result)).await?;
            // A dry run leaves no trace, and after a list's end comes the next.
            if run == Run::Dry || goes_on_after.is_none() {
                return Ok(());
            }
            let position = Cursor { began, list: (*name).to_owned(), after: goes_on_after };
            repair.keep(COMMAND, &position).await
        })
        .await?;
    }
    Ok(())
}

/// Applies one object, or tells what that would come to.
async fn object(repair: &Repair, run: Run, kind: Kind, listed: &Listed) -> Result<Outcome, Error> {
    let event = Event::of_object(&listed.answer.object, listed.answer.as_of, repair.mode)?;
    match kind {
        Kind::Reversal => reversal(repair, run, &event).await,
        Kind::Subscription => subscription(repair, run, &event, &listed.id).await,
        Kind::Invoice => act(repair, run, &event).await,
    }
}

/// The invoices that come next name what paid them: Stripe need not be asked so for each refund that it has.
async fn reversal(repair: &Repair, run: Run, event: &Event) -> Result<Outcome, Error> {
    let outcome = match run {
        Run::Real => repair.database.apply_stripe_event_with(event, NOT_ASKED).await,
        Run::Dry => repair.database.explain_event(event, Some(NOT_ASKED)).await,
    };
    Ok(outcome?)
}

/// Where a subscription does not say whose it is, the session that began it may.
async fn subscription(repair: &Repair, run: Run, event: &Event, id: &str) -> Result<Outcome, Error> {
    let outcome = act(repair, run, event).await?;
    if outcome.verdict() != Verdict::Parked || outcome.reason() != Some("unknown_user") {
        return Ok(outcome);
    }
    let path = format!("/v1/checkout/sessions?subscription={id}&expand[]=data.subscription");
    let began = Pages::of(&repair.stripe, path, None).next().await?;
    let Some(session) = began.and_then(|page| page.objects.into_iter().next()) else { return Ok(outcome) };
    let of_session = Event::of_session(&session.answer.object, session.answer.as_of)?;
    let of_session = act(repair, run, &of_session).await?;
    Ok(if of_session.user_id().is_some() { of_session } else { outcome })
}

async fn act(repair: &Repair, run: Run, event: &Event) -> Result<Outcome, Error> {
    match run {
        Run::Real => repair.apply(event).await,
        Run::Dry => repair.explain(event).await,
    }
}

impl Cursor {
    fn beginning(began: u64) -> Self {
        Self { began, list: LISTS[0].name.to_owned(), after: None }
    }
}

//! `sweep`: lists Stripe's events of the last days and applies those that the inbox lacks, because a webhook was lost or
//! nobody was there to take it. Run now and then, it finds them all: it goes on where the last run began.

use serde::{Deserialize, Serialize};
use stripe_credits_rules::event::TYPES;

use crate::clock::unix_now;
use crate::commands::repair::{Repair, each_page};
use crate::commands::report::Report;
use crate::config::Environment;
use crate::database::DatabaseError;
use crate::error::Error;
use crate::event::Event;
use crate::stripe::pages::{Listed, Page, Pages};

/// The name of its cursor.
const COMMAND: &str = "sweep";
/// How far back the first run looks, in seconds: as long as Stripe tries to deliver an event.
const FIRST_SWEEP_SECONDS: u64 = 3 * 24 * 3600;
/// How much of what the last run saw is looked at again, in seconds: events are listed some time after they are made,
/// and clocks differ.
const OVERLAP_SECONDS: u64 = 3600;
/// How long Stripe keeps events, in seconds.
const RETENTION_SECONDS: u64 = 30 * 24 * 3600;
/// How many types of event Stripe takes in one question.
const MAX_TYPES: usize = 20;

/// Until when every event is known, in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Cursor {
    until: u64,
}

/// Sweeps the events made since a time, or since the last run.
pub(crate) async fn run(since: Option<&str>, environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    repair.needs_catalog().await?;
    let now = unix_now();
    let known: Option<Cursor> = repair.cursor(COMMAND).await?;
    let known = known.map(|cursor| cursor.until);
    let since = match since {
        Some(written) => time(&repair, written).await?,
        None => known
            .map_or(now.saturating_sub(FIRST_SWEEP_SECONDS), |until| until.saturating_sub(OVERLAP_SECONDS)),
    };
    let mut report = Report::new();
    if since < now.saturating_sub(RETENTION_SECONDS) {
        report.say("Stripe keeps events for 30 days: for what is older, run `stripe-credits backfill`");
    }
    report.begin("events");
    for types in TYPES.chunks(MAX_TYPES) {
        let path = format!("/v1/events?created[gte]={since}&types[]={}", types.join("&types[]="));
        let pages = Pages::of(&repair.stripe, path, None);
        each_page(pages, async |page| apply(&repair, page, &mut report).await).await?;
    }
    // A run that began after the last one's end knows nothing of the time between.
    if known.is_none_or(|until| since <= until) {
        repair.keep(COMMAND, &Cursor { until: now }).await?;
    }
    report.finish()
}

/// The time, in seconds since 1970, that a person wrote.
async fn time(repair: &Repair, written: &str) -> Result<u64, Error> {
    match repair.database.time(written).await {
        Ok(time) => Ok(u64::try_from(time).unwrap_or(0)),
        Err(DatabaseError::Data(_)) => Err(Error::Input(format!(
            "--since {written:?}: it is neither a time (2026-01-31, 2026-01-31T12:00Z) nor how long ago (3 days, 12h)"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Applies the events of a page that the inbox lacks.
async fn apply(repair: &Repair, page: Page, report: &mut Report) -> Result<(), Error> {
    let ids: Vec<String> = page.objects.iter().map(|event| event.id.clone()).collect();
    let unapplied = repair.database.unapplied(&ids).await?;
    report.known(ids.len() - unapplied.len());
    let missing = page.objects.into_iter().filter(|event| unapplied.contains(&event.id));
    let act = async |listed: &Listed| repair.apply(&Event::told(&listed.answer.object)?).await;
    repair.each(missing, act, |id, result| report.count(id, result)).await
}

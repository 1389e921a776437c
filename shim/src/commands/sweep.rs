//! `sweep`: lists Stripe's recent events and applies those that the inbox lacks, because a webhook was lost or the
//! shim was down. Each run starts where the last one started, so as a scheduled job it misses no event.

use serde::{Deserialize, Serialize};
use stripe_credits_rules::event::TYPES;
use stripe_credits_rules::verdict::VerdictName;

use crate::clock::unix_now;
use crate::commands::repair::{Repair, each_page};
use crate::commands::report::Report;
use crate::config::Environment;
use crate::database::operations::SWEEP;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::stripe::pages::{Listed, Page, Pages};

/// How far back the first run looks, in seconds: as long as Stripe retries a delivery.
const FIRST_SWEEP_SECONDS: u64 = 3 * 24 * 3600;
/// The overlap with the last run, in seconds: events are listed some time after their creation, and clocks differ.
const OVERLAP_SECONDS: u64 = 3600;
/// How long Stripe keeps events, in seconds.
const RETENTION_SECONDS: u64 = 30 * 24 * 3600;
/// How old, in seconds, an event is that its webhook should have brought: Stripe's first attempt comes within seconds.
const LOST_AFTER_SECONDS: u64 = 600;
/// Stripe's maximum number of event types in one request.
const MAX_TYPES: usize = 20;

/// The time up to which every event is known, in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct SweepCursor {
    until: u64,
    /// How many events the run applied that were older than [`LOST_AFTER_SECONDS`], for the metrics.
    #[serde(default)]
    lost: u64,
}

/// When an event was created, in seconds since 1970.
#[derive(Deserialize)]
pub(crate) struct Created {
    pub(crate) created: u64,
}

/// The paths of Stripe's lists of all events that the rules read, of which `created` says since or until when.
pub(crate) fn event_lists(created: &str) -> Vec<String> {
    let list = |types: &[&str]| format!("/v1/events?{created}&types[]={}", types.join("&types[]="));
    TYPES.chunks(MAX_TYPES).map(list).collect()
}

/// Applies the events created since a time, or since the last run.
pub(crate) async fn run(since: Option<&str>, environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    repair.needs_catalog().await?;
    let now = unix_now();
    let known: Option<SweepCursor> = repair.cursor(SWEEP).await?;
    let known = known.map(|cursor| cursor.until);
    let since = match since {
        Some(written) => repair.since(written).await?,
        None => known
            .map_or(now.saturating_sub(FIRST_SWEEP_SECONDS), |until| until.saturating_sub(OVERLAP_SECONDS)),
    };
    let mut report = Report::new();
    if since < now.saturating_sub(RETENTION_SECONDS) {
        report.print("Stripe keeps events for 30 days: for what is older, run `stripe-credits backfill`");
    }
    report.start_part("events");
    let mut lost = 0;
    for path in event_lists(&format!("created[gte]={since}")) {
        let pages = Pages::of(&repair.stripe, path, None);
        each_page(pages, async |page| {
            lost += apply(&repair, page, now, &mut report).await?;
            Ok(())
        })
        .await?;
    }
    // A run that started after the known time leaves a gap, so it does not move the cursor.
    if known.is_none_or(|until| since <= until) {
        repair.save_cursor(SWEEP, &SweepCursor { until: now, lost }).await?;
    }
    report.finish()
}

/// Applies the events of a page that the inbox lacks. Returns how many of those took effect that a webhook should have
/// brought before `now`.
async fn apply(repair: &Repair, page: Page, now: u64, report: &mut Report) -> Result<u64, Error> {
    let ids: Vec<String> = page.objects.iter().map(|event| event.id.clone()).collect();
    let unapplied = repair.database.unapplied(&ids).await?;
    report.count_known(ids.len() - unapplied.len());
    let late = |event: &&Listed| {
        let created = event.object.read().map_or(now, |Created { created }| created);
        created + LOST_AFTER_SECONDS < now
    };
    let late: Vec<String> = page.objects.iter().filter(late).map(|event| event.id.clone()).collect();
    let missing = page.objects.into_iter().filter(|event| unapplied.contains(&event.id));
    let apply_one = async |listed: &Listed| repair.apply(&Event::from_api(&listed.object.json)?).await;
    let mut lost = 0;
    let on_result = |id: &str, result: &Result<Outcome, Error>| {
        let is_applied = result.as_ref().is_ok_and(|outcome| outcome.verdict() == VerdictName::Applied);
        lost += u64::from(is_applied && late.iter().any(|late| late == id));
        report.count(id, result);
    };
    repair.each(missing, apply_one, on_result).await?;
    Ok(lost)
}

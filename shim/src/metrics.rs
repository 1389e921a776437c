//! Metrics in the `OpenMetrics` text format, which Prometheus reads.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use deadpool_postgres::Status as PoolStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use stripe_credits_rules::event::TYPES;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::told::Told;

use crate::status::{Status, WaitingAccounts, WaitingEvents};

/// The format's media type.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The upper bounds of the latency histograms: 1 ms, doubling, to 16 s.
const FIRST_BUCKET_SECONDS: f64 = 0.001;
const BUCKETS: u16 = 15;
/// The upper bounds of the event age histogram: 1 s, times four, to 3 days, as long as Stripe retries.
const FIRST_AGE_BUCKET_SECONDS: f64 = 1.0;
const AGE_BUCKETS: u16 = 10;
/// Why events wait. Each has its count also while nothing waits for it, so that an alert sees the first one.
const WAITING_REASONS: [Reason; 7] = [
    Reason::NoCatalog,
    Reason::UnknownPrice,
    Reason::UnknownUser,
    Reason::IdentityConflict,
    Reason::UnknownCharge,
    Reason::Unfetched,
    Reason::Shape,
];
/// The reason of what is not parked, and waits for an object of Stripe's.
const NEEDS_FETCH: &str = "needs_fetch";

/// The result of an attempt to deliver an event to the app that it took.
pub(crate) const DELIVERED: &str = "delivered";

/// All counters and histograms.
pub(crate) struct Metrics {
    registry: Registry,
    deliveries: Family<DeliveryLabels, Counter>,
    delivery_seconds: Histogram,
    event_age_seconds: Histogram,
    signature_failures: Family<KindLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    stripe_calls: CallCounter,
    redis_calls: CallCounter,
    unknown_price_hits: Counter,
    told: Family<ToldLabels, Counter>,
    told_age_seconds: Histogram,
    mirrored: CallCounter,
    mirror_failures: Family<ReasonLabel, Counter>,
    top_ups: Family<ResultLabels, Counter>,
}

/// What is measured when the metrics are asked for.
pub(crate) struct Now {
    pub(crate) pool: PoolStatus,
    pub(crate) dropped_lines: usize,
    /// None while the database is down.
    pub(crate) status: Option<Status>,
    /// None without an endpoint, too.
    pub(crate) waiting_events: Option<WaitingEvents>,
    /// None without a mirror, too.
    pub(crate) waiting_accounts: Option<WaitingAccounts>,
    /// The pages that listen.
    pub(crate) streams: usize,
}

/// Counts calls to one service by their result.
#[derive(Clone, Default)]
pub(crate) struct CallCounter(Family<ResultLabels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    r#type: &'static str,
    outcome: &'static str,
    reason: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    outcome: &'static str,
    reason: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToldLabels {
    r#type: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl Metrics {
    /// Registers every metric, at zero.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: registry(),
            deliveries: Family::default(),
            delivery_seconds: Histogram::new(exponential_buckets(FIRST_BUCKET_SECONDS, 2.0, BUCKETS)),
            event_age_seconds: Histogram::new(exponential_buckets(
                FIRST_AGE_BUCKET_SECONDS,
                4.0,
                AGE_BUCKETS,
            )),
            signature_failures: Family::default(),
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(FIRST_BUCKET_SECONDS, 2.0, BUCKETS)),
            stripe_calls: CallCounter::default(),
            redis_calls: CallCounter::default(),
            unknown_price_hits: Counter::default(),
            told: Family::default(),
            told_age_seconds: Histogram::new(exponential_buckets(FIRST_AGE_BUCKET_SECONDS, 4.0, AGE_BUCKETS)),
            mirrored: CallCounter::default(),
            mirror_failures: Family::default(),
            top_ups: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("deliveries", "Webhook deliveries answered", metrics.deliveries.clone());
        registry.register(
            "delivery_duration_seconds",
            "From a delivery's headers to its response",
            metrics.delivery_seconds.clone(),
        );
        registry.register(
            "event_age_seconds",
            "From the creation of an event to its delivery",
            metrics.event_age_seconds.clone(),
        );
        registry.register(
            "signature_failures",
            "Deliveries without a valid signature",
            metrics.signature_failures.clone(),
        );
        registry.register("requests", "Requests of the app's users answered", metrics.requests.clone());
        registry.register(
            "request_duration_seconds",
            "From a request's headers to its response",
            metrics.request_seconds.clone(),
        );
        registry.register(
            "stripe_api_calls",
            "Calls of Stripe's API by result",
            metrics.stripe_calls.0.clone(),
        );
        registry.register("redis_calls", "Calls of Redis by result", metrics.redis_calls.0.clone());
        registry.register(
            "unknown_price_hits",
            "Payments for a price that the catalog lacks, by webhook or by a returning buyer",
            metrics.unknown_price_hits.clone(),
        );
        registry.register("told", "Attempts to deliver an event to the app by result", metrics.told.clone());
        registry.register(
            "told_age_seconds",
            "From what happened to its delivery to the app",
            metrics.told_age_seconds.clone(),
        );
        registry.register(
            "mirror_accounts",
            "Accounts copied to the mirror, of which it has a newer version, or that it refused",
            metrics.mirrored.0.clone(),
        );
        registry.register(
            "mirror_failures",
            "Attempts to keep the mirror up to date that failed",
            metrics.mirror_failures.clone(),
        );
        registry.register("top_ups", "Attempts to have a top-up paid by result", metrics.top_ups.clone());
        metrics
    }

    /// Counts a delivery. It has no type if the body was not verified or not understood.
    pub(crate) fn delivery(
        &self,
        event_type: Option<&str>,
        outcome: &'static str,
        reason: Option<&'static str>,
        took: Duration,
    ) {
        let r#type = event_type.map_or("unknown", type_label);
        self.deliveries.get_or_create(&DeliveryLabels { r#type, outcome, reason }).inc();
        self.delivery_seconds.observe(took.as_secs_f64());
    }

    /// Records the age of an event at its delivery.
    pub(crate) fn event_age(&self, age: Duration) {
        self.event_age_seconds.observe(age.as_secs_f64());
    }

    /// Counts a delivery without a valid signature.
    pub(crate) fn signature_failure(&self, kind: &'static str) {
        self.signature_failures.get_or_create(&KindLabels { kind }).inc();
    }

    /// Counts a payment for a price that the catalog lacks.
    pub(crate) fn unknown_price_hit(&self) {
        self.unknown_price_hits.inc();
    }

    /// Counts an attempt to deliver an event of so long ago to the app: `delivered`, `failed` or `dead`.
    pub(crate) fn told(&self, told: &str, result: &'static str, age: Duration) {
        let r#type = Told::parse(told).map_or("other", Told::as_str);
        self.told.get_or_create(&ToldLabels { r#type, result }).inc();
        if result == DELIVERED {
            self.told_age_seconds.observe(age.as_secs_f64());
        }
    }

    /// Counts what became of accounts that were to be mirrored.
    pub(crate) fn mirrored(&self, accounts: [(&'static str, i64); 3]) {
        for (result, count) in accounts {
            self.mirrored.0.get_or_create(&ResultLabels { result }).inc_by(u64::try_from(count).unwrap_or(0));
        }
    }

    /// Counts an attempt to keep the mirror up to date that failed.
    pub(crate) fn mirror_failed(&self, reason: &'static str) {
        self.mirror_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts an attempt to have a top-up paid: `paid`, `failed`, `canceled`, `later` or `gone`.
    pub(crate) fn top_up(&self, result: &'static str) {
        self.top_ups.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a request of an app's user.
    pub(crate) fn request(
        &self,
        route: &'static str,
        outcome: &'static str,
        reason: Option<&'static str>,
        took: Duration,
    ) {
        self.requests.get_or_create(&RequestLabels { route, outcome, reason }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// The counter of calls of Stripe's API.
    pub(crate) fn stripe_calls(&self) -> CallCounter {
        self.stripe_calls.clone()
    }

    /// The counter of calls of Redis.
    pub(crate) fn redis_calls(&self) -> CallCounter {
        self.redis_calls.clone()
    }

    /// The text for Prometheus: everything counted, and what is measured now.
    pub(crate) fn render(&self, measured: &Now) -> Result<String, fmt::Error> {
        let Now { pool, dropped_lines, status, waiting_events, waiting_accounts, streams } = measured;
        let mut now = registry();
        gauge(&mut now, "pool_size", "Connections to Postgres that are open", to_i64(pool.size));
        gauge(&mut now, "pool_available", "Connections that are idle", to_i64(pool.available));
        gauge(&mut now, "pool_waiting", "Requests that wait for a connection", to_i64(pool.waiting));
        let dropped = Counter::<u64>::default();
        dropped.inc_by(u64::try_from(*dropped_lines).unwrap_or(u64::MAX));
        now.register("log_lines_dropped", "Lines that the reader of the log did not take in time", dropped);
        let is_up = i64::from(status.is_some());
        gauge(&mut now, "database_up", "Whether the database answered the last scrape's question", is_up);
        if let Some(status) = status {
            register_status(&mut now, status);
        }
        gauge(&mut now, "event_streams", "Pages that listen for events", to_i64(*streams));
        if let Some(WaitingEvents { pending, dead, oldest_seconds }) = waiting_events {
            gauge(&mut now, "told_pending", "Events that the app is still to be told", *pending);
            gauge(&mut now, "told_dead", "Events that could not be delivered to the app", *dead);
            let help = "Age of the oldest event that the app is still to be told";
            seconds(&mut now, "told_lag_seconds", help, *oldest_seconds);
        }
        if let Some(WaitingAccounts { count, oldest_seconds }) = waiting_accounts {
            gauge(&mut now, "mirror_pending", "Accounts that the mirror does not have as they are", *count);
            let help = "Age of the oldest change that the mirror does not have";
            seconds(&mut now, "mirror_lag_seconds", help, *oldest_seconds);
        }
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &now)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl CallCounter {
    /// Counts a call by its result.
    pub(crate) fn count(&self, result: &'static str) {
        self.0.get_or_create(&ResultLabels { result }).inc();
    }
}

fn registry() -> Registry {
    Registry::with_prefix("stripe_credits")
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge: Gauge<f64, AtomicU64> = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// Registers what the database says. A time of something that never was has no sample.
fn register_status(registry: &mut Registry, status: &Status) {
    let (parked, oldest) =
        (Family::<ReasonLabels, Gauge>::default(), Family::<ReasonLabels, Gauge>::default());
    let labels = |reason: &str| ReasonLabels { reason: reason.to_owned() };
    for reason in WAITING_REASONS.into_iter().map(Reason::as_str).chain([NEEDS_FETCH]) {
        parked.get_or_create(&labels(reason)).set(0);
    }
    for waiting in &status.waiting {
        parked.get_or_create(&labels(&waiting.reason)).set(waiting.events);
        oldest.get_or_create(&labels(&waiting.reason)).set(waiting.since);
    }
    registry.register("parked_events", "Events that wait for what they lack, by what that is", parked);
    registry.register(
        "oldest_parked_timestamp_seconds",
        "When the oldest of the waiting events was first received",
        oldest,
    );
    let top_ups = status.top_ups;
    gauge(registry, "top_ups_waiting", "Top-ups whose credits are not granted yet", top_ups.waiting);
    let mut known = |name, help, value: Option<i64>| {
        if let Some(value) = value {
            gauge(registry, name, help, value);
        }
    };
    known(
        "oldest_due_timestamp_seconds",
        "When the first account fell due that run_due has not posted yet",
        status.due_since,
    );
    known(
        "oldest_top_up_timestamp_seconds",
        "When the oldest of the waiting top-ups was requested",
        top_ups.since,
    );
    let (sweep, books) = (status.sweep.as_ref(), status.books_check.as_ref());
    known("last_sweep_timestamp_seconds", "When the last sweep ended", sweep.map(|sweep| sweep.at));
    known(
        "last_sweep_lost_events",
        "Events that the last sweep applied because no webhook had brought them",
        sweep.and_then(|sweep| sweep.lost),
    );
    known(
        "last_books_check_timestamp_seconds",
        "When the books were last proved",
        books.map(|books| books.at),
    );
    known(
        "books_faults",
        "Users whose books differed when they were last proved",
        books.map(|books| books.faults),
    );
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The label of an event type: its name if the rules read it, else `other`, so that no sender can create series.
fn type_label(kind: &str) -> &'static str {
    TYPES.into_iter().find(|known| *known == kind).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_counted_by_type_outcome_and_reason() {
        let metrics = Metrics::new();
        metrics.delivery(None, "parked", Some("unknown_price"), Duration::from_millis(3));
        metrics.unknown_price_hit();
        metrics.delivery(None, "error", Some("signature_no_v1"), Duration::ZERO);
        metrics.signature_failure("signature_no_v1");
        metrics.told("credits.low", DELIVERED, Duration::from_secs(2));
        metrics.told("made.up", "failed", Duration::ZERO);
        metrics.top_up("paid");
        let pool = PoolStatus { max_size: 8, size: 2, available: 1, waiting: 0 };
        let mut now = Now {
            pool,
            dropped_lines: 3,
            status: None,
            waiting_events: None,
            waiting_accounts: None,
            streams: 4,
        };
        let text = metrics.render(&now).unwrap();
        for line in [
            r#"stripe_credits_deliveries_total{type="unknown",outcome="parked",reason="unknown_price"} 1"#,
            r#"stripe_credits_deliveries_total{type="unknown",outcome="error",reason="signature_no_v1"} 1"#,
            r#"stripe_credits_signature_failures_total{kind="signature_no_v1"} 1"#,
            "stripe_credits_unknown_price_hits_total 1",
            "stripe_credits_delivery_duration_seconds_count 2",
            "stripe_credits_pool_size 2",
            "stripe_credits_log_lines_dropped_total 3",
            r#"stripe_credits_told_total{type="credits.low",result="delivered"} 1"#,
            r#"stripe_credits_told_total{type="other",result="failed"} 1"#,
            "stripe_credits_event_streams 4",
            r#"stripe_credits_top_ups_total{result="paid"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("parked_events") && text.contains("stripe_credits_database_up 0\n"), "{text}");
        now.waiting_events = Some(WaitingEvents { pending: 5, dead: 6, oldest_seconds: 1.5 });
        let text = metrics.render(&now).unwrap();
        for line in [
            "stripe_credits_told_pending 5",
            "stripe_credits_told_dead 6",
            "stripe_credits_told_lag_seconds 1.5",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_never_was_has_no_sample_and_every_reason_to_wait_has_one() {
        let render = |json: &str| {
            let status = serde_json::from_str(json).unwrap();
            let pool = PoolStatus { max_size: 8, size: 2, available: 1, waiting: 0 };
            let now = Now {
                pool,
                dropped_lines: 0,
                status: Some(status),
                waiting_events: None,
                waiting_accounts: None,
                streams: 0,
            };
            Metrics::new().render(&now).unwrap()
        };
        let text = render(
            r#"{"waiting": [], "due_since": null, "sweep": null, "books_check": null, "top_ups": {"waiting": 0, "since": null}}"#,
        );
        assert!(text.contains("stripe_credits_parked_events{reason=\"unknown_user\"} 0\n"), "{text}");
        assert!(text.contains("stripe_credits_parked_events{reason=\"needs_fetch\"} 0\n"), "{text}");
        assert!(text.contains("stripe_credits_top_ups_waiting 0\n"), "{text}");
        assert!(!text.contains("timestamp_seconds") && !text.contains("faults"), "{text}");

        let text = render(
            r#"{"waiting": [{"reason": "unknown_price", "events": 4, "since": 100}], "due_since": 200,
                "sweep": {"at": 300, "lost": 2}, "books_check": {"at": 400, "faults": 1},
                "top_ups": {"waiting": 3, "since": 500}}"#,
        );
        for line in [
            r#"stripe_credits_parked_events{reason="unknown_price"} 4"#,
            r#"stripe_credits_oldest_parked_timestamp_seconds{reason="unknown_price"} 100"#,
            "stripe_credits_oldest_due_timestamp_seconds 200",
            "stripe_credits_last_sweep_timestamp_seconds 300",
            "stripe_credits_last_sweep_lost_events 2",
            "stripe_credits_last_books_check_timestamp_seconds 400",
            "stripe_credits_books_faults 1",
            "stripe_credits_top_ups_waiting 3",
            "stripe_credits_oldest_top_up_timestamp_seconds 500",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_sender_cannot_create_series() {
        assert_eq!(type_label("invoice.paid"), "invoice.paid");
        assert_eq!(type_label("invoice.paid2"), "other");
    }
}

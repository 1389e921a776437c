//! `doctor`: looks at everything that has to be right for a payment to become credits, and says what to do about each
//! fault. No secret and nothing of a customer is in what it prints.

use std::fmt::Display;
use std::io::Read as _;

use clap::Args;
use hyper::Uri;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use crate::app::compare_modes;
use crate::auth::token::Authenticator;
use crate::clock::unix_now;
use crate::commands::sweep::{Created, event_lists};
use crate::commands::webhooks_check::{endpoints, place};
use crate::commands::{books_check, catalog_check};
use crate::config::{Environment, MirrorConfig, ServeConfig, StripeConfig};
use crate::database::Database;
use crate::error::Error;
use crate::metrics::CallCounter;
use crate::mirror::Mirror;
use crate::status::Status;
use crate::stripe::client::{StripeClient, StripeError};
use crate::stripe::pages::Pages;

/// How far two clocks may differ, in seconds. A signature is believed for 300 s, and the rest is for the way.
const MAX_CLOCK_DIFFERENCE: u64 = 60;
/// How long ago an event is, in seconds, that has to be in the inbox by now.
const EVENT_DELAY: u64 = 600;
/// How long ago a sweep may have ended, in seconds: it should run every hour.
const MAX_SWEEP_AGE: i64 = 3 * 3600;
/// What to do if the sweep does not run.
const SWEEP_CURE: &str = "schedule stripe-credits sweep every hour; it needs STRIPE_SECRET_KEY";
/// How long something may be due, in seconds: `run_due` should run every few minutes.
const MAX_DUE_AGE: i64 = 3600;
/// How far the mirror may be behind, in seconds.
const MAX_MIRROR_LAG_SECONDS: f64 = 300.0;
/// How long a top-up may wait, in seconds: its payment takes seconds, and its event comes at once.
const MAX_TOP_UP_AGE: i64 = 3600;
/// The longest token that is read from stdin, in bytes.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// The arguments.
#[derive(Args)]
pub(crate) struct Doctor {
    /// The webhook endpoint's URL [default: each that ends with /webhooks/stripe]
    #[arg(long)]
    url: Option<Uri>,
    /// A token of one of the app's users, to see whether it is accepted and as whom; `-` reads it from stdin
    #[arg(long)]
    token: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    looked_at: usize,
    faults: usize,
}

impl Findings {
    fn good(&mut self, area: &str, text: impl Display) {
        self.looked_at += 1;
        println!("ok     {area}: {text}");
    }

    /// Something that may be meant so.
    fn note(&mut self, area: &str, text: impl Display) {
        self.looked_at += 1;
        println!("note   {area}: {text}");
    }

    fn fault(&mut self, area: &str, text: impl Display, cure: impl Display) {
        self.looked_at += 1;
        self.faults += 1;
        println!("FAULT  {area}: {text}\n       do: {cure}");
    }
}

/// Prints a line for each thing that was looked at, and what to do about what is wrong.
pub(crate) async fn run(arguments: &Doctor, environment: &Environment) -> Result<(), Error> {
    let mut findings = Findings::default();
    match ServeConfig::read(environment) {
        Ok(config) => examine(arguments, &config, &mut findings).await?,
        Err(faults) => {
            for fault in faults.to_string().lines().skip(1) {
                findings.fault("configuration", fault.trim(), "stripe-credits --help lists the variables");
            }
        }
    }
    let Findings { looked_at, faults } = findings;
    println!("{looked_at} things looked at, {faults} faults");
    if faults == 0 { Ok(()) } else { Err(Error::Findings(faults)) }
}

async fn examine(arguments: &Doctor, config: &ServeConfig, findings: &mut Findings) -> Result<(), Error> {
    configuration(config, findings);
    let database = Database::new(&config.database);
    let has_database = ready(&database, config, findings).await;
    if let Some(stripe) = &config.stripe {
        // Without retries: what fails now is a finding.
        let client = StripeClient::new(stripe, CallCounter::default());
        if reachable(&client, findings).await {
            endpoint(&client, arguments.url.as_ref(), findings).await;
            portal(&client, findings).await;
            if has_database {
                deliveries(&database, &client, findings).await;
                catalog(&database, &client, findings).await;
            }
        }
    }
    if has_database {
        proofs(&database, findings).await;
        jobs(&database, findings).await;
    }
    if let Some(mirror) = &config.mirror {
        check_mirror(mirror, has_database.then_some(&database), findings).await;
    }
    match &arguments.token {
        Some(token) => check_token(token, config, has_database.then_some(&database), findings).await,
        None => Ok(()),
    }
}

fn configuration(config: &ServeConfig, findings: &mut Findings) {
    findings.good("configuration", "every variable that is set can be read");
    let is_stripes = |secret: &secrecy::SecretString| secret.expose_secret().starts_with("whsec_");
    if !config.webhook_secrets.iter().all(is_stripes) {
        findings.fault(
            "secret",
            "STRIPE_WEBHOOK_SECRET does not begin with whsec_",
            "copy the endpoint's signing secret from Stripe's dashboard (Developers, Webhooks)",
        );
    }
    if config.stripe.is_none() {
        findings.note(
            "configuration",
            "STRIPE_SECRET_KEY is not set: events that need data from Stripe are parked, the app's checkout answers 500, and \
             nothing below is compared with Stripe",
        );
    }
    if config.auth.is_none() {
        findings.note("configuration", "neither JWT_SECRET nor JWKS_URL is set: the app's routes answer 500");
    }
}

/// The database, its clock and its mode. Returns whether the rest can ask it.
async fn ready(database: &Database, config: &ServeConfig, findings: &mut Findings) -> bool {
    let area = "database";
    let readiness = match database.readiness().await {
        Ok(readiness) => readiness,
        Err(error) => {
            findings.fault(area, error, "check DATABASE_URL, and that Postgres runs and lets this role in");
            return false;
        }
    };
    let Some(version) = readiness.version else {
        findings.fault(
            area,
            "the extension is not installed",
            "as a superuser, in this database: create extension stripe_credits",
        );
        return false;
    };
    if !readiness.may_apply {
        findings.fault(
            area,
            "the role of DATABASE_URL may not apply events",
            "select billing.grant_access('app_client', 'app_service'), and let the role be a member of the second",
        );
        return false;
    }
    if readiness.is_read_only {
        findings.fault(area, "it takes no writes", "point DATABASE_URL at the primary");
    }
    let own = env!("CARGO_PKG_VERSION");
    if version == own {
        findings.good(area, format!("reachable, extension {version}, the role may apply events"));
    } else {
        findings.fault(
            area,
            format!("the extension is {version}, this program {own}"),
            format!("install both in one version, then: alter extension stripe_credits update to '{own}'"),
        );
    }
    mode(readiness.livemode, config.stripe.as_ref(), findings);
    match database.now().await {
        Ok(now) => clock("the database's", u64::try_from(now).unwrap_or(0), findings),
        Err(error) => findings.fault("time", error, "try again"),
    }
    true
}

fn mode(livemode: Option<bool>, stripe: Option<&StripeConfig>, findings: &mut Findings) {
    let name = |livemode| if livemode { "live" } else { "test" };
    match (livemode, stripe.map(|stripe| compare_modes(livemode, stripe.mode))) {
        (None, _) => findings.fault(
            "catalog",
            "none is loaded: every payment waits",
            "stripe-credits catalog draft > catalog.json, edit it, stripe-credits catalog push catalog.json",
        ),
        (Some(livemode), Some(Err(_))) => findings.fault(
            "mode",
            format!("the catalog is for {} mode, and STRIPE_SECRET_KEY is not", name(livemode)),
            "set the key of that mode, or livemode in the catalog",
        ),
        (Some(livemode), _) => findings.good("mode", name(livemode)),
    }
}

fn clock(whose: &str, time: u64, findings: &mut Findings) {
    let difference = time.abs_diff(unix_now());
    if difference > MAX_CLOCK_DIFFERENCE {
        findings.fault(
            "time",
            format!("{whose} clock differs from this machine's by {difference} s"),
            "set both by NTP: beyond 300 s no signature of Stripe's is believed",
        );
    } else {
        findings.good("time", format!("{whose} clock differs from this machine's by {difference} s"));
    }
}

/// Whether Stripe takes the key. Says how far its clock is away.
async fn reachable(stripe: &StripeClient, findings: &mut Findings) -> bool {
    match stripe.get("/v1/prices?limit=1").await {
        Ok(object) => {
            findings.good("stripe", "reachable, and takes STRIPE_SECRET_KEY");
            clock("Stripe's", object.as_of, findings);
            true
        }
        Err(error) => {
            stripe_fault("stripe", &error, findings);
            false
        }
    }
}

fn stripe_fault(area: &str, error: &StripeError, findings: &mut Findings) {
    let cure = match error {
        StripeError::Unauthorized(_) => {
            "set a key that is not revoked and may read this: docs/operations.md, A restricted key"
        }
        StripeError::Unreachable(_) => {
            "let this machine reach STRIPE_API_BASE, by default https://api.stripe.com"
        }
        _ => "try again, and look at https://status.stripe.com",
    };
    findings.fault(area, error, cure);
}

fn fault_of(area: &str, error: &Error, findings: &mut Findings) {
    match error {
        Error::Stripe(error) => stripe_fault(area, error, findings),
        other => findings.fault(area, other, "try again"),
    }
}

/// What the endpoint sends, and in which version.
async fn endpoint(stripe: &StripeClient, url: Option<&Uri>, findings: &mut Findings) {
    let area = "endpoint";
    let found = match endpoints(stripe, url).await {
        Ok(found) => found,
        Err(error) => return fault_of(area, &error, findings),
    };
    if found.is_empty() {
        let cure = "stripe-credits webhooks create --url https://…/webhooks/stripe";
        findings.fault(area, format!("Stripe has none at {}", place(url)), cure);
    }
    for endpoint in &found {
        let faults = endpoint.faults();
        for fault in &faults {
            let cure = format!("change {} in Stripe's dashboard (Developers, Webhooks)", endpoint.id);
            findings.fault(area, format!("{}  {fault}", endpoint.url), cure);
        }
        if faults.is_empty() {
            let version = endpoint.api_version.as_deref().unwrap_or("the account's default version");
            findings.good(
                area,
                format!("{}  is enabled, and sends all that is needed, as {version}", endpoint.url),
            );
        }
    }
    if found.len() > 1 {
        findings
            .note(area, "several are enabled: each has its own secret, and STRIPE_WEBHOOK_SECRET needs all");
    }
}

/// Whether the customer portal lets customers change plans in a way of its own.
async fn portal(stripe: &StripeClient, findings: &mut Findings) {
    #[derive(Deserialize)]
    struct Configuration {
        features: Features,
    }
    #[derive(Deserialize)]
    struct Features {
        subscription_update: Option<Update>,
    }
    #[derive(Deserialize)]
    struct Update {
        enabled: bool,
        proration_behavior: Option<String>,
        billing_cycle_anchor: Option<String>,
    }
    let area = "portal";
    let mut pages = Pages::of(stripe, "/v1/billing_portal/configurations?active=true".to_owned(), None);
    let mut count = 0;
    loop {
        let page = match pages.next().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(error) => return stripe_fault(area, &error, findings),
        };
        for listed in page.objects {
            let features = match listed.object.read::<Configuration>() {
                Ok(configuration) => configuration.features,
                Err(error) => return stripe_fault(area, &error, findings),
            };
            count += 1;
            let update = features.subscription_update.filter(|update| update.enabled);
            let is_paid_at_once = |update: &Update| {
                update.proration_behavior.as_deref() == Some("always_invoice")
                    && update.billing_cycle_anchor.as_deref() == Some("now")
            };
            if update.as_ref().is_some_and(|update| !is_paid_at_once(update)) {
                findings.fault(
                    area,
                    format!("{} lets customers change plans without paying for it at once", listed.id),
                    "turn plan changes off there, or set always_invoice and a new billing anchor: docs/operations.md, The \
                     customer portal",
                );
            } else {
                findings.good(area, format!("{} changes no plans, or has them paid at once", listed.id));
            }
        }
    }
    if count == 0 {
        findings.note(area, "not set up: POST /portal answers 502 until it is");
    }
}

/// Whether the last event that must have arrived is in the inbox: only then do URL and secret fit.
async fn deliveries(database: &Database, stripe: &StripeClient, findings: &mut Findings) {
    let area = "deliveries";
    let until = unix_now() - EVENT_DELAY;
    let mut newest: Option<(u64, String)> = None;
    for path in event_lists(&format!("created[lte]={until}")) {
        let listed = match Pages::of(stripe, path, None).next().await {
            Ok(page) => page.into_iter().flat_map(|page| page.objects),
            Err(error) => return stripe_fault(area, &error, findings),
        };
        for event in listed {
            let created = event.object.read().map_or(0, |Created { created }| created);
            if created <= until {
                newest = newest.max(Some((created, event.id)));
            }
        }
    }
    let Some((_, event_id)) = newest else {
        return findings
            .note(area, "Stripe has sent no event in the last 30 days, so the secret cannot be tried");
    };
    match database.inbox_event(&event_id).await {
        Ok(Some(_)) => findings.good(area, format!("{event_id}, the last one that is due, has arrived")),
        Ok(None) => findings.fault(
            area,
            format!("{event_id} has not arrived, neither by webhook nor by sweep"),
            "look at the endpoint's deliveries in Stripe's dashboard: none (wrong URL), 400 (wrong STRIPE_WEBHOOK_SECRET) or \
             5xx (the log says why). Then: stripe-credits sweep",
        ),
        Err(error) => findings.fault(area, error, "try again"),
    }
}

async fn catalog(database: &Database, stripe: &StripeClient, findings: &mut Findings) {
    let area = "catalog";
    match catalog_check::compare(database, stripe).await {
        Ok(comparison) => {
            for difference in &comparison.differences {
                let cure = "change the catalog and push it, or the price at Stripe: docs/catalog.md";
                findings.fault(area, difference, cure);
            }
            if comparison.differences.is_empty() {
                let (known, sold) = (comparison.known, comparison.sold);
                findings.good(area, format!("{known} prices in the catalog, {sold} sold at Stripe"));
            }
        }
        Err(error) => fault_of(area, &error, findings),
    }
}

/// The installation and the books.
async fn proofs(database: &Database, findings: &mut Findings) {
    match database.security_faults().await {
        Ok(faults) => {
            for fault in &faults {
                let cure = "undo it, if nobody meant it: select * from billing.security_selfcheck()";
                findings.fault("security", format!("not so: {}: {}", fault.check, fault.detail), cure);
            }
            if faults.is_empty() {
                findings.good("security", "rights, tables and functions are as they were installed");
            }
        }
        Err(error) => findings.fault("security", error, "try again"),
    }
    match books_check::prove(database).await {
        Ok(faults) => {
            for fault in &faults {
                let cure = format!("stripe-credits explain {}: docs/troubleshooting.md", fault.user_id);
                findings.fault("books", format!("{}: {}", fault.user_id, fault.detail), cure);
            }
            if faults.is_empty() {
                findings.good("books", "every balance is what its ledger and its payments say");
            }
        }
        Err(error) => findings.fault("books", error, "try again"),
    }
}

/// Whether the scheduled jobs run, and what waits.
async fn jobs(database: &Database, findings: &mut Findings) {
    let (status, now) = match (database.status().await, database.now().await) {
        (Ok(status), Ok(now)) => (status, now),
        (Err(error), _) | (_, Err(error)) => return findings.fault("jobs", error, "try again"),
    };
    let Status { waiting, due_since, sweep, top_ups, .. } = status;
    let lost = sweep.as_ref().and_then(|sweep| sweep.lost);
    match sweep.map(|sweep| now - sweep.at) {
        None => findings.fault("jobs", "no sweep has ever run", SWEEP_CURE),
        Some(age) if age > MAX_SWEEP_AGE => {
            findings.fault("jobs", format!("the last sweep ended {} h ago", age / 3600), SWEEP_CURE);
        }
        Some(age) => findings.good("jobs", format!("the last sweep ended {} min ago", age / 60)),
    }
    if let Some(lost) = lost.filter(|lost| *lost > 0) {
        findings.fault(
            "deliveries",
            format!("the last sweep applied {lost} events that no webhook had brought"),
            "stripe-credits webhooks check, and look at the endpoint's deliveries in Stripe's dashboard",
        );
    }
    match due_since.map(|since| now - since) {
        Some(age) if age > MAX_DUE_AGE => findings.fault(
            "jobs",
            format!("something has been due for {} min", age / 60),
            "schedule select billing.run_due() every few minutes",
        ),
        _ => findings.good("jobs", "nothing is overdue for run_due"),
    }
    if let Some(age) = top_ups.since.map(|since| now - since).filter(|age| *age > MAX_TOP_UP_AGE) {
        findings.fault(
            "top-ups",
            format!("{} wait for their credits, the oldest for {} min", top_ups.waiting, age / 60),
            "select * from billing.top_ups where state in ('requested', 'paid'): last_error says why; docs/top-up.md. They need \
             STRIPE_SECRET_KEY for serve, and payment_intent.succeeded at the endpoint",
        );
    }
    for waiting in waiting {
        findings.fault(
            "waiting",
            format!("{} events, the oldest for {} min: {}", waiting.events, (now - waiting.since) / 60, waiting.reason),
            "docs/troubleshooting.md says what each reason asks for; stripe-credits explain evt_… says it of one event",
        );
    }
}

/// Whether the mirror can be written, and how far it is behind.
async fn check_mirror(config: &MirrorConfig, database: Option<&Database>, findings: &mut Findings) {
    let area = "mirror";
    if let Err(error) = Mirror::new(config).check().await {
        return findings.fault(
            area,
            error,
            "stripe-credits mirror init makes what is missing; what the role needs: docs/mirror.md",
        );
    }
    let Some(database) = database else { return };
    match database.waiting_for_mirror().await {
        Ok(waiting) if waiting.oldest_seconds > MAX_MIRROR_LAG_SECONDS => findings.fault(
            area,
            format!("{} accounts wait for it, the first for {:.0} s", waiting.count, waiting.oldest_seconds),
            "start serve with MIRROR_DATABASE_URL, and look at its log",
        ),
        Ok(waiting) => {
            findings.good(area, format!("can be written, and {} accounts wait for it", waiting.count));
        }
        Err(error) => findings.fault(area, error, "try again"),
    }
}

/// Whether a user's token is accepted, and as whom.
async fn check_token(
    token: &str,
    config: &ServeConfig,
    database: Option<&Database>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        let read = std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
        read.map_err(|fault| Error::Input(format!("the token from stdin: {fault}")))?;
    }
    let Some(auth) = &config.auth else {
        findings.fault("token", "no key can verify it", "set JWT_SECRET or JWKS_URL");
        return Ok(());
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {}", text.trim())) {
        headers.insert(AUTHORIZATION, value);
    }
    let verified = match Authenticator::new(auth).authenticate(&headers).await {
        Ok(verified) => verified,
        Err(error) => {
            let cure = "compare JWT_SECRET, JWKS_URL, JWT_AUDIENCE, JWT_ISSUER and JWT_ROLE with what issues the tokens";
            findings.fault("token", error, cure);
            return Ok(());
        }
    };
    let Some(database) = database else { return Ok(()) };
    match database.user_id(verified.sub()).await {
        Ok(Some(user)) => findings.good("token", format!("accepted, as user {user}")),
        Ok(None) => findings.fault(
            "token",
            "its sub is no UUID, and the catalog has no user_namespace",
            "set user_namespace in the catalog: docs/catalog.md, Users that are not UUIDs",
        ),
        Err(error) => findings.fault("token", error, "try again"),
    }
    Ok(())
}

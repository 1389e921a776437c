//! `webhooks check`: checks that a webhook endpoint in Stripe sends every event type that the rules need.

use hyper::Uri;
use serde::Deserialize;
use stripe_credits_rules::event::TYPES;

use crate::commands::repair::each_page;
use crate::commands::report::Report;
use crate::config::{Environment, StripeConfig};
use crate::error::Error;
use crate::stripe::client::StripeClient;
use crate::stripe::pages::Pages;

/// The path of the shim's webhook route.
const PATH: &str = "/webhooks/stripe";
/// The `enabled_events` of an endpoint for all types.
const EVERYTHING: &str = "*";
/// What the names of the events of test clocks begin with. There are none in live mode, where no endpoint can ask for them.
const TEST_CLOCKS: &str = "test_helpers.";

/// A webhook endpoint at Stripe: <https://docs.stripe.com/api/webhook_endpoints/object>
#[derive(Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) url: String,
    /// The version of the API that shapes what it sends; none if it is the account's default.
    pub(crate) api_version: Option<String>,
    status: String,
    livemode: bool,
    enabled_events: Vec<String>,
}

/// Checks the endpoint at `url`; without it, each endpoint with the shim's path.
pub(crate) async fn run(url: Option<&Uri>, environment: &Environment) -> Result<(), Error> {
    let stripe = StripeClient::with_retries(&StripeConfig::read(environment)?);
    let mut report = Report::new();
    let endpoints = endpoints(&stripe, url).await?;
    if endpoints.is_empty() {
        report.finding(&format!("Stripe has no webhook endpoint at {}", place(url)));
    }
    for endpoint in endpoints {
        let (id, url, faults) = (&endpoint.id, &endpoint.url, endpoint.faults());
        for fault in &faults {
            report.finding(&format!("{id}  {url}  {fault}"));
        }
        if faults.is_empty() {
            report.print(&format!("{id}  {url}  sends all that is needed"));
        }
    }
    report.finish()
}

/// The endpoint at `url`; without it, each endpoint with the shim's path.
pub(crate) async fn endpoints(stripe: &StripeClient, url: Option<&Uri>) -> Result<Vec<Endpoint>, Error> {
    let mut found = Vec::new();
    let pages = Pages::of(stripe, "/v1/webhook_endpoints".to_owned(), None);
    each_page(pages, async |page| {
        for listed in page.objects {
            let endpoint: Endpoint = listed.object.read()?;
            if endpoint.is_at(url) {
                found.push(endpoint);
            }
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Where an endpoint is looked for, in words.
pub(crate) fn place(url: Option<&Uri>) -> String {
    url.map_or_else(|| format!("…{PATH}"), Uri::to_string)
}

/// Whether events of a type exist in live mode, or in test mode.
pub(crate) fn exists_in(event_type: &str, is_live: bool) -> bool {
    !(is_live && event_type.starts_with(TEST_CLOCKS))
}

impl Endpoint {
    fn is_at(&self, url: Option<&Uri>) -> bool {
        let Ok(own) = self.url.parse::<Uri>() else { return false };
        url.map_or_else(|| own.path().ends_with(PATH), |url| *url == own)
    }

    /// What is wrong with it, in words that follow its URL.
    pub(crate) fn faults(&self) -> Vec<String> {
        let disabled = (self.status != "enabled").then(|| format!("is {}", self.status));
        let missing = self.missing().into_iter().map(|event_type| format!("does not send {event_type}"));
        disabled.into_iter().chain(missing).collect()
    }

    /// The event types that the rules read and the endpoint does not send.
    fn missing(&self) -> Vec<&'static str> {
        let sends = |event_type: &str| {
            self.enabled_events.iter().any(|enabled| enabled == event_type || enabled == EVERYTHING)
        };
        let is_missing = |event_type: &&str| exists_in(event_type, self.livemode) && !sends(event_type);
        TYPES.into_iter().filter(is_missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, enabled_events: &[&str]) -> Endpoint {
        let enabled_events = enabled_events.iter().map(|&event_type| event_type.to_owned()).collect();
        Endpoint {
            id: "we_1".to_owned(),
            url: url.to_owned(),
            status: "enabled".to_owned(),
            livemode: false,
            enabled_events,
            api_version: None,
        }
    }

    #[test]
    fn events_of_test_clocks_are_missing_in_test_mode_only() {
        let missing = |livemode| Endpoint { livemode, ..endpoint("", &[]) }.missing();
        assert!(missing(false).contains(&"test_helpers.test_clock.ready"));
        assert!(!missing(true).iter().any(|event_type| event_type.starts_with("test_helpers")));
        assert!(missing(true).contains(&"invoice.paid"));
    }

    #[test]
    fn an_endpoint_matches_by_its_path_or_by_the_given_url() {
        let own = endpoint("https://pay.example/webhooks/stripe", &[]);
        assert!(own.is_at(None) && own.is_at(Some(&Uri::from_static("https://pay.example/webhooks/stripe"))));
        assert!(!own.is_at(Some(&Uri::from_static("https://pay.test/webhooks/stripe"))));
        assert!(!endpoint("https://pay.example/hooks", &[]).is_at(None));
        assert!(!endpoint("no url", &[]).is_at(None));
    }

    #[test]
    fn a_type_that_is_not_enabled_is_missing_and_a_star_enables_all() {
        assert_eq!(endpoint("", &["*"]).missing(), Vec::<&str>::new());
        assert_eq!(endpoint("", &TYPES).missing(), Vec::<&str>::new());
        assert_eq!(endpoint("", &TYPES[1..]).missing(), [TYPES[0]]);
        assert_eq!(endpoint("", &["customer.deleted"]).missing().len(), TYPES.len());
    }
}

//! The objects of Stripe that a change of plan reads; only the fields that are used.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use stripe_credits_rules::calendar::Span;

/// What is escaped in an id that a merchant chose, so that it is one segment of a path.
const NOT_OF_IDS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// <https://docs.stripe.com/api/subscriptions/object>
#[derive(Debug, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) currency: Option<String>,
    pub(crate) items: List<SubscriptionItem>,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) cancel_at_period_end: bool,
    pub(crate) cancel_at: Option<i64>,
    /// The change that takes effect when the latest invoice is paid.
    pub(crate) pending_update: Option<PendingUpdate>,
    /// An id unless it was expanded.
    pub(crate) latest_invoice: Option<Value>,
    /// What changes it when its period ends; expanded.
    pub(crate) schedule: Option<Expanded<Schedule>>,
    /// In older versions of the API, of all items.
    current_period_start: Option<u64>,
    current_period_end: Option<u64>,
    /// `clock_…`, if its customer lives by a test clock.
    pub(crate) test_clock: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct List<T> {
    pub(crate) data: Vec<T>,
}

/// A reference that was to be expanded: the object, or its id all the same.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expanded<T> {
    Object(T),
    Id(String),
}

#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionItem {
    pub(crate) id: String,
    pub(crate) price: Price,
    #[serde(default = "one")]
    pub(crate) quantity: u32,
    current_period_start: Option<u64>,
    current_period_end: Option<u64>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
pub(crate) struct PendingUpdate {
    #[serde(default)]
    pub(crate) subscription_items: Option<Vec<SubscriptionItem>>,
}

/// <https://docs.stripe.com/api/prices/object>
#[derive(Debug, Deserialize)]
pub(crate) struct Price {
    pub(crate) id: String,
    /// `prod_…`.
    pub(crate) product: Option<String>,
    /// None if it is sold once.
    pub(crate) recurring: Option<Recurring>,
    pub(crate) active: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Recurring {
    /// `day`, `week`, `month` or `year`.
    pub(crate) interval: String,
    pub(crate) interval_count: u32,
    /// `licensed` or `metered`.
    pub(crate) usage_type: Option<String>,
}

/// <https://docs.stripe.com/api/subscription_schedules/object>
#[derive(Debug, Deserialize)]
pub(crate) struct Schedule {
    pub(crate) id: String,
    pub(crate) phases: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Phase {
    pub(crate) start_date: u64,
    pub(crate) items: Vec<PhaseItem>,
    #[serde(default)]
    pub(crate) discounts: Option<Vec<PhaseDiscount>>,
    #[serde(default)]
    pub(crate) default_tax_rates: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PhaseItem {
    /// `price_…`.
    pub(crate) price: String,
    /// None for a metered price.
    pub(crate) quantity: Option<u32>,
    #[serde(default)]
    pub(crate) tax_rates: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PhaseDiscount {
    pub(crate) coupon: Option<String>,
    pub(crate) discount: Option<String>,
    pub(crate) promotion_code: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) id: String,
}

/// <https://docs.stripe.com/api/test_clocks/object>
#[derive(Debug, Deserialize)]
pub(crate) struct TestClock {
    pub(crate) frozen_time: u64,
}

impl Subscription {
    /// An item's current period: its start and its end.
    pub(crate) fn period(&self, item: &SubscriptionItem) -> Option<(u64, u64)> {
        let start = item.current_period_start.or(self.current_period_start);
        start.zip(item.current_period_end.or(self.current_period_end))
    }

    /// Whether it will end by itself.
    pub(crate) fn ends(&self) -> bool {
        self.cancel_at_period_end || self.cancel_at.is_some()
    }

    /// The id of the schedule that manages it.
    pub(crate) fn schedule_id(&self) -> Option<&str> {
        match self.schedule.as_ref()? {
            Expanded::Object(schedule) => Some(&schedule.id),
            Expanded::Id(id) => Some(id),
        }
    }
}

impl Recurring {
    /// Whether usage is billed, which an invoice tells only after its period.
    pub(crate) fn is_metered(&self) -> bool {
        self.usage_type.as_deref() == Some("metered")
    }

    /// How often a price is billed; none if that is beyond what a catalog can say.
    pub(crate) fn span(&self) -> Option<Span> {
        format!("{} {}", self.interval_count, self.interval).parse().ok()
    }
}

/// The path of an object by its id, which may be any text.
pub(crate) fn path(list: &str, id: &str) -> String {
    format!("/v1/{list}/{}", utf8_percent_encode(id, NOT_OF_IDS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_of_stripes_is_in_the_path_as_it_is() {
        assert_eq!(path("prices", "price_1A"), "/v1/prices/price_1A");
        assert_eq!(path("prices", "gold plan"), "/v1/prices/gold%20plan");
        assert_eq!(path("prices", "../refunds?x"), "/v1/prices/%2E%2E%2Frefunds%3Fx");
    }

    proptest! {
        #[test]
        fn any_text_is_one_segment(text in ".{1,40}") {
            let path = path("prices", &text);
            prop_assert_eq!(path.matches('/').count(), 3);
            let uri: hyper::Uri = format!("http://stripe{path}").parse().expect("a URL");
            prop_assert_eq!(uri.query(), None);
        }
    }
}

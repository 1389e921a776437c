//! A row of `billing.outcome`, and the HTTP status with which Stripe is answered.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::VerdictName;

/// An outcome: the row as JSON, and the columns that the shim uses or logs.
#[derive(Debug)]
pub(crate) struct Outcome {
    json: String,
    columns: Columns,
}

#[derive(Debug, Deserialize)]
struct Columns {
    outcome: VerdictName,
    reason: Option<String>,
    user_id: Option<String>,
    credits: Option<i64>,
    remaining_total: Option<i64>,
    debt: Option<i64>,
    to_fetch: Option<Vec<String>>,
    #[serde(default)]
    details: Value,
}

impl Outcome {
    /// Reads the row's JSON.
    pub(crate) fn parse(json: String) -> serde_json::Result<Self> {
        let columns = serde_json::from_str(&json)?;
        Ok(Self { json, columns })
    }

    /// With 200 Stripe counts the event as delivered; with 500 it sends the event again, until the catalog knows its
    /// price.
    pub(crate) fn status(&self) -> StatusCode {
        match (self.verdict(), self.reason()) {
            (VerdictName::Parked, Some(Reason::UnknownPrice | Reason::NoCatalog))
            | (VerdictName::NeedsFetch, _) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::OK,
        }
    }

    /// The row as JSON, for the client.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The row as JSON for an app's user: without the details, which may name other users and their events.
    pub(crate) fn json_without_details(&self) -> String {
        let mut row: Map<String, Value> = serde_json::from_str(&self.json).unwrap_or_default();
        row.remove("details");
        row.remove("to_fetch");
        Value::Object(row).to_string()
    }

    /// What became of the event.
    pub(crate) fn verdict(&self) -> VerdictName {
        self.columns.outcome
    }

    /// The reason of the verdict; none if there is none, or one that this version does not know.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason_text().and_then(Reason::parse)
    }

    /// The reason as the database wrote it, for the log.
    pub(crate) fn reason_text(&self) -> Option<&str> {
        self.columns.reason.as_deref()
    }

    /// The reason as a metric's label.
    pub(crate) fn reason_label(&self) -> Option<&'static str> {
        self.reason_text().map(|text| Reason::parse(text).map_or("other", Reason::as_str))
    }

    /// The user concerned.
    pub(crate) fn user_id(&self) -> Option<&str> {
        self.columns.user_id.as_deref()
    }

    /// The net change of the balance less the debt.
    pub(crate) fn credits(&self) -> Option<i64> {
        self.columns.credits
    }

    /// The balance and the debt afterwards; none without an account.
    pub(crate) fn balance(&self) -> Option<(i64, i64)> {
        self.columns.remaining_total.zip(self.columns.debt)
    }

    /// The paths in Stripe's API that the database needs.
    pub(crate) fn to_fetch(&self) -> &[String] {
        self.columns.to_fetch.as_deref().unwrap_or_default()
    }

    /// The prices in the details, known or missing, separated by commas.
    pub(crate) fn price_ids(&self) -> Option<String> {
        let ids: Vec<&str> = ["price_ids", "missing_prices"]
            .iter()
            .filter_map(|key| self.columns.details.get(key)?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        (!ids.is_empty()).then(|| ids.join(","))
    }

    /// The payment intent in the details, if the outcome was read from the books.
    pub(crate) fn payment_intent_id(&self) -> Option<&str> {
        self.columns.details.get("payment_intent_id")?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(json: &str) -> Outcome {
        Outcome::parse(json.to_owned()).unwrap()
    }

    #[test]
    fn only_what_the_catalog_lacks_is_answered_500() {
        for (json, status) in [
            (r#"{"outcome":"applied"}"#, 200),
            (r#"{"outcome":"already_applied"}"#, 200),
            (r#"{"outcome":"ignored","reason":"livemode"}"#, 200),
            (r#"{"outcome":"rejected","reason":"conflict"}"#, 200),
            (r#"{"outcome":"rejected","reason":"malformed"}"#, 200),
            (r#"{"outcome":"parked","reason":"unknown_user"}"#, 200),
            (r#"{"outcome":"parked","reason":"identity_conflict"}"#, 200),
            (r#"{"outcome":"parked","reason":"shape"}"#, 200),
            (r#"{"outcome":"parked","reason":"unfetched"}"#, 200),
            (r#"{"outcome":"parked"}"#, 200),
            (r#"{"outcome":"parked","reason":"unknown_price"}"#, 500),
            (r#"{"outcome":"parked","reason":"no_catalog"}"#, 500),
        ] {
            assert_eq!(outcome(json).status().as_u16(), status, "{json}");
        }
    }

    #[test]
    fn an_unknown_reason_is_logged_and_its_label_is_other() {
        let outcome = outcome(r#"{"outcome":"ignored","reason":"user 7 is unknown"}"#);
        assert_eq!((outcome.reason_text(), outcome.reason()), (Some("user 7 is unknown"), None));
        assert_eq!(outcome.reason_label(), Some("other"));
    }

    #[test]
    fn the_columns_are_parsed_and_the_json_is_unchanged() {
        let json = r#"{"ok":true,"outcome":"applied","user_id":"u","credits":-5,"to_fetch":["/v1/x"],
            "details":{"price_ids":["price_a",7],"missing_prices":["price_b"]}}"#;
        let outcome = outcome(json);
        assert_eq!(outcome.json(), json);
        assert_eq!((outcome.user_id(), outcome.credits()), (Some("u"), Some(-5)));
        assert_eq!(outcome.to_fetch(), ["/v1/x"]);
        assert_eq!(outcome.price_ids().as_deref(), Some("price_a,price_b"));
    }

    #[test]
    fn an_apps_user_reads_the_row_but_for_its_details() {
        let outcome = outcome(
            r#"{"ok":true,"outcome":"applied","credits":5,"to_fetch":["/v1/x"],"details":{"followed":[]}}"#,
        );
        let row: Value = serde_json::from_str(&outcome.json_without_details()).unwrap();
        assert_eq!(row, serde_json::json!({"ok": true, "outcome": "applied", "credits": 5}));
    }

    #[test]
    fn a_row_without_a_verdict_is_not_an_outcome() {
        for json in ["{}", r#"{"outcome":"maybe"}"#, "null", ""] {
            assert!(Outcome::parse(json.to_owned()).is_err(), "{json}");
        }
    }
}

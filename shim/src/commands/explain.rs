//! `explain ID`: what was made of an event, of an object of Stripe's or of a user's payments, and why.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::stripe::MAX_ID_BYTES;
use uuid::Uuid;

use crate::commands::advice::advice;
use crate::config::{DatabaseConfig, Environment};
use crate::database::Database;
use crate::error::Error;

/// The keys of an event that its first line shows.
const EVENT_KEYS: [&str; 5] = ["event_id", "type", "outcome", "reason", "object_id"];

/// The arguments.
#[derive(Args)]
pub(crate) struct Explain {
    /// A user's UUID, an e-mail address, or an id of Stripe's: `evt_…`, `cs_…`, `in_…`, `pi_…`, `ch_…`, `re_…`, `sub_…`,
    /// `cus_…`
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is known.
pub(crate) async fn run(arguments: &Explain, environment: &Environment) -> Result<(), Error> {
    let id = arguments.id.trim();
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains('\0') {
        return Err(Error::Document(format!("{id:?} is not an id")));
    }
    let database = Database::new(&DatabaseConfig::read(environment)?);
    let mut known: Value = match Uuid::try_parse(id) {
        Ok(user) => database.explain_user(user).await?,
        Err(_) => database.explain_id(id).await?,
    };
    if let Some(now) = database.explain_inbox_event(id).await? {
        known["now"] = now;
    }
    if !is_known(&known) {
        return Err(Error::Document(format!("nothing is known of {id}")));
    }
    if arguments.json {
        println!("{known:#}");
    } else {
        print!("{id}\n{}", text(&known));
    }
    Ok(())
}

/// Whether anything is there but the id that was asked for.
fn is_known(known: &Value) -> bool {
    let sections = known.as_object().into_iter().flatten();
    sections
        .filter(|(_, section)| section.is_array() || section.is_object())
        .any(|(_, section)| !is_empty(section))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(rows) => rows.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A section for each kind of row, a line for each row, and under an event that was not applied what can be done.
fn text(known: &Value) -> String {
    let mut text = String::new();
    for (section, rows) in known.as_object().into_iter().flatten().filter(|(_, rows)| !is_empty(rows)) {
        let rows = match rows {
            Value::Array(rows) => rows.as_slice(),
            Value::Object(_) => std::slice::from_ref(rows),
            // Only the ids that were asked for.
            _ => continue,
        };
        let _ = writeln!(text, "\n{}", if section == "now" { "if it came now" } else { section });
        for row in rows {
            let _ = writeln!(text, "  {}", row.as_object().map_or_else(|| plain(row), line));
            if let Some(advice) = row["reason"].as_str().and_then(Reason::parse).and_then(advice) {
                let _ = writeln!(text, "    {advice}");
            }
        }
    }
    text
}

/// A row as a line: of an event first what it is and what became of it.
fn line(row: &Map<String, Value>) -> String {
    let is_event = row.contains_key("event_id");
    let first = EVENT_KEYS.iter().filter(|_| is_event).filter_map(|key| row.get(*key));
    let first = first.filter(|value| !value.is_null()).map(plain);
    let rest = row.iter().filter(|(key, value)| {
        let is_shown = is_event && EVENT_KEYS.contains(&key.as_str());
        !is_shown && !is_empty(value)
    });
    first.chain(rest.map(|(key, value)| format!("{key}={}", plain(value)))).collect::<Vec<_>>().join("  ")
}

/// Text without quotation marks, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_with_what_became_of_it_and_what_can_be_done() {
        let known = json!({
            "id": "cs_1",
            "events": [{"attempts": 2, "event_id": "evt_1", "outcome": "parked", "reason": "unknown_price",
                "type": "checkout.session.completed", "object_id": "cs_1", "details": {"missing_prices": ["price_x"]},
                "applied_at": null}],
            "payment": null,
            "grants": [],
        });
        assert_eq!(
            text(&known),
            "\nevents\n  evt_1  checkout.session.completed  parked  unknown_price  cs_1  attempts=2  \
             details={\"missing_prices\":[\"price_x\"]}\n    add the price to the catalog, and stripe-credits catalog push \
             it. It is applied then\n"
        );
    }

    #[test]
    fn nothing_but_the_id_is_nothing() {
        assert!(!is_known(&json!({"id": "x", "object_id": "x", "events": [], "payment": null})));
        assert!(is_known(&json!({"id": "x", "events": [], "payment": {"source_id": "x"}})));
    }
}

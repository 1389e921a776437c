//! The few shapes of JSON that Stripe's objects are read by.

use serde_json::Value;

use super::number::Span;

/// An id: text, or an expanded object that has one.
pub(super) fn id(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value["id"].as_str())?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The first of these that is an id.
pub(super) fn first_id(values: &[&Value]) -> Option<String> {
    values.iter().find_map(|value| id(value))
}

pub(super) fn integer(value: &Value) -> Option<i64> {
    value.as_i64()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// "Quantities are decimal strings or integers": the whole number that one is, or nothing if it is not whole.
pub(super) fn quantity(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let (number, decimals) = value.as_str()?.split_once('.').unwrap_or((value.as_str()?, "0"));
    decimals.chars().all(|digit| digit == '0').then(|| number.parse().ok()).flatten()
}

/// A quantity from `quantity_decimal` or `quantity`; `None` if neither says one.
pub(super) fn said_quantity(object: &Value) -> Option<&Value> {
    [&object["quantity_decimal"], &object["quantity"]].into_iter().find(|value| !value.is_null())
}

/// A text of the metadata, whatever kind the metadata itself is.
pub(super) fn metadata(object: &Value, key: &str) -> Option<String> {
    match &object["metadata"][key] {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The interval of a price or plan object, by `recurring` or by its own fields.
pub(super) fn interval(price: &Value) -> Option<Span> {
    let recurring = if price["recurring"].is_object() { &price["recurring"] } else { price };
    Span::of(recurring["interval"].as_str()?, recurring["interval_count"].as_i64().unwrap_or(1))
}

/// Whether a price or plan object is billed by usage.
pub(super) fn is_metered(price: &Value) -> bool {
    [&price["usage_type"], &price["recurring"]["usage_type"]]
        .iter()
        .any(|usage| usage.as_str() == Some("metered"))
}

/// Whether an invoice, a line or a subscription carries a discount.
pub(super) fn has_discount(object: &Value) -> bool {
    object["discount"].is_object()
        || !list(&object["discounts"]).is_empty()
        || !list(&object["total_discount_amounts"]).is_empty()
}

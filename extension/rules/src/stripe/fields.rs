//! The fields of a JSON object, each read for itself: one of another kind than Stripe's is as if it were not there, and
//! takes nothing else with it. So are the parts of an object read that may be odd without making the rest unreadable.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::check_id;
use crate::calendar::{self, MAX_SPAN_DAYS, Time, TimeDelta};

/// The fields of an object, in its order; none if it is something else. A list and no map: an object has many fields, of which
/// few are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The fields of this value.
    pub(crate) fn of(value: &'a RawValue) -> Fields<'a> {
        serde_json::from_str(value.get()).unwrap_or_default()
    }

    /// A field that is there and not null. Of several with one name the last counts, as in jsonb.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let field = self.0.iter().rfind(|(known, _)| known == name);
        field.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// All fields in their order, each with its text if it is one.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), serde_json::from_str(value.get()).ok()))
    }

    /// The fields of a field.
    pub(crate) fn object(&self, name: &str) -> Fields<'a> {
        self.get(name).map(Fields::of).unwrap_or_default()
    }

    /// The elements of a field; none if it is no array.
    pub(crate) fn list(&self, name: &str) -> Vec<&'a RawValue> {
        self.read(name).unwrap_or_default()
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.read(name)
    }

    /// Whether it is `true`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.read(name) == Some(true)
    }

    /// A whole JSON number.
    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        whole_number(self.get(name)?.get())
    }

    /// A whole number, as a JSON number or as text.
    pub(crate) fn decimal(&self, name: &str) -> Option<i64> {
        self.text(name).map_or_else(|| self.integer(name), |text| whole_number(&text))
    }

    /// An id, as text or as the object if it was expanded.
    pub(crate) fn id(&self, name: &str) -> Option<String> {
        self.get(name).and_then(id)
    }

    /// A time in Unix seconds.
    pub(crate) fn time(&self, name: &str) -> Option<Time> {
        calendar::from_unix(self.integer(name)?)
    }

    /// A period from one field to another, both in Unix seconds; `None` if it ends before it starts, or is longer than a catalog's
    /// longest span.
    pub(crate) fn period(&self, start: &str, end: &str) -> Option<(Time, Time)> {
        let length = TimeDelta::zero()..=TimeDelta::days(MAX_SPAN_DAYS.into());
        self.time(start).zip(self.time(end)).filter(|(start, end)| length.contains(&(*end - *start)))
    }

    fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Fields<'de>, A::Error> {
        /// Borrowed unless it has an escape.
        #[derive(Deserialize)]
        struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut fields = Vec::new();
        while let Some((FieldName(name), value)) = object.next_entry()? {
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

/// A reference's id, as text or as the object if it was expanded; `None` if it is blank or too long to be one.
pub(crate) fn id(reference: &RawValue) -> Option<String> {
    let text = serde_json::from_str(reference.get()).ok();
    let id = text.or_else(|| Fields::of(reference).text("id"))?;
    check_id("id", Some(&id)).is_ok().then_some(id)
}

/// The number that a JSON number's text means, if it is whole and fits: `2`, `2.0` and `20e-1` are all 2. A jsonb value
/// comes with any of these spellings changed, so they have to mean one thing.
fn whole_number(text: &str) -> Option<i64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or((1, mantissa), |rest| (-1, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    let power = exponent.parse::<i64>().ok()?.checked_add(zeros)?.checked_sub(places)?;
    let factor = 10_i128.checked_pow(u32::try_from(power).ok()?)?;
    let number = significant.parse::<i128>().ok()?.checked_mul(factor)?.checked_mul(sign)?;
    i64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_the_same_in_every_spelling() {
        for two in ["2", "2.0", "2.000000000000", "02", "20e-1", "0.2e1", "2E+0"] {
            assert_eq!(whole_number(two), Some(2), "{two}");
        }
        for (text, number) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e999999999999999999999", 0),
            ("-3", -3),
            ("1e3", 1000),
            ("5000000", 5_000_000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        for other in [
            "",
            "-",
            "2.5",
            "25e-1",
            "1e-1",
            "9223372036854775808",
            "1e19",
            "1e400",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            "2.",
            ".5",
            "+2",
            " 2",
            "2e",
            "--2",
            "two",
            "true",
            "[2]",
            "٢",
        ] {
            assert_eq!(whole_number(other), None, "{other}");
        }
    }

    #[test]
    fn of_fields_with_one_name_the_last_counts_however_it_is_spelt() {
        let object = r#"{"a": 1, "b": "x", "\u0061": 2, "b": null, "\u00e9\"": true}"#;
        let fields = Fields::of(serde_json::from_str(object).expect("JSON"));
        assert_eq!((fields.integer("a"), fields.text("b"), fields.flag("é\"")), (Some(2), None, true));
    }

    #[test]
    fn an_odd_field_takes_nothing_else_with_it() {
        let object = r#"{"a": 1e400, "b": [1], "c": "x", "d": {"id": "sub_1"}, "e": null, "f": {"id": " "}, "g": true}"#;
        let object: &RawValue = serde_json::from_str(object).expect("JSON");
        let fields = Fields::of(object);
        assert_eq!((fields.integer("a"), fields.integer("b"), fields.integer("c")), (None, None, None));
        assert_eq!((fields.id("c"), fields.id("d")), (Some("x".into()), Some("sub_1".into())));
        assert_eq!((fields.id("b"), fields.id("f"), fields.get("e").is_some()), (None, None, false));
        assert_eq!((fields.list("b").len(), fields.list("c").len()), (1, 0));
        assert!(fields.flag("g") && !fields.flag("c") && fields.object("b").texts().next().is_none());
    }
}

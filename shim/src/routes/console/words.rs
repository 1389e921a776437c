//! How the console writes credits, money, times and ages.

use maud::{Markup, html};
use stripe_credits_rules::reason::Reason;

use crate::commands::advice::advice;

/// Currencies of Stripe's whose smallest unit is the whole, and those with three digits after the point.
const WITHOUT_DIGITS: [&str; 16] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
    "xpf",
];
const WITH_THREE_DIGITS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// The length of `2026-01-31T12:00:00`, of which the rest is fractions and the offset.
const SECONDS_END: usize = 19;

/// Credits, such as `10,000` or `−5`.
pub(crate) fn credits(amount: i64) -> String {
    grouped(i128::from(amount), 0)
}

/// A change of credits, such as `+10,000` or `−5`.
pub(crate) fn change(amount: i64) -> String {
    if amount > 0 { format!("+{}", credits(amount)) } else { credits(amount) }
}

/// Money from its smallest units, such as `20.00 USD`.
pub(crate) fn money(amount: Option<i64>, currency: Option<&str>) -> Option<String> {
    let (amount, currency) = (amount?, currency?);
    let digits = match currency {
        _ if WITHOUT_DIGITS.contains(&currency) => 0,
        _ if WITH_THREE_DIGITS.contains(&currency) => 3,
        _ => 2,
    };
    Some(format!("{} {}", grouped(i128::from(amount), digits), currency.to_uppercase()))
}

/// A number of units of which `digits` stand behind the point.
fn grouped(units: i128, digits: usize) -> String {
    let text = format!("{:0>width$}", units.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if units < 0 { "\u{2212}" } else { "" };
    let point = if digits > 0 { "." } else { "" };
    format!("{sign}{grouped}{point}{fraction}")
}

/// A time in UTC as Postgres writes it, for people and for machines.
pub(crate) fn time(written: &str) -> Markup {
    let Some(seconds) = written.get(..SECONDS_END).filter(|_| written.ends_with("+00:00")) else {
        return html! { (written) };
    };
    html! { time datetime={ (seconds) "Z" } { (seconds.replace('T', " ")) } }
}

/// How long something has gone on, in the largest unit of which it is two or more.
pub(crate) fn age(seconds: i64) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    units
        .into_iter()
        .find(|(unit, _)| seconds >= 2 * unit)
        .map_or_else(|| "a moment".to_owned(), |(unit, name)| format!("{} {name}", seconds / unit))
}

/// A name of the database's, such as `subscription_grant`, as words.
pub(crate) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// What a reason means and what to do about it, as sentences; none where its name says all.
pub(crate) fn meaning(reason: Reason) -> Option<String> {
    let text = match reason {
        // The terminal's advice, with the button instead of the statement.
        Reason::UnknownUser => {
            "neither the metadata nor the customer name a user. Find out whose it is, then press Attribute. It is applied then"
        }
        Reason::IdentityConflict => {
            "its client_reference_id names another user than the customer belongs to. Decide, then press Attribute"
        }
        _ => advice(reason)?,
    };
    let first = text.chars().next()?;
    Some(format!("{}{}.", first.to_uppercase(), &text[first.len_utf8()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_and_money_are_grouped_and_in_the_currencys_digits() {
        assert_eq!((credits(0), credits(999), credits(1_000)), ("0".into(), "999".into(), "1,000".into()));
        assert_eq!(credits(-1_234_567), "\u{2212}1,234,567");
        assert_eq!(credits(i64::MIN), "\u{2212}9,223,372,036,854,775,808");
        assert_eq!((change(5), change(-5), change(0)), ("+5".into(), "\u{2212}5".into(), "0".into()));
        let of = |amount, currency| money(Some(amount), Some(currency)).unwrap();
        assert_eq!(of(123_456, "usd"), "1,234.56 USD");
        assert_eq!(of(5, "eur"), "0.05 EUR");
        assert_eq!((of(-5, "jpy"), of(1_500, "kwd")), ("\u{2212}5 JPY".into(), "1.500 KWD".into()));
        assert_eq!((money(None, Some("usd")), money(Some(1), None)), (None, None));
    }

    #[test]
    fn a_meaning_is_whole_sentences() {
        assert_eq!(meaning(Reason::Unpaid).unwrap(), "Not paid yet; another event follows if it is.");
        assert!(meaning(Reason::UnknownUser).unwrap().starts_with("Neither the metadata"));
        assert_eq!(meaning(Reason::Expired), None);
    }

    #[test]
    fn a_time_is_utc_and_an_age_is_in_a_unit_that_says_something() {
        let shown = time("2026-01-31T12:00:00.123456+00:00").into_string();
        assert_eq!(shown, r#"<time datetime="2026-01-31T12:00:00Z">2026-01-31 12:00:00</time>"#);
        assert_eq!(time("infinity").into_string(), "infinity");
        assert_eq!(time("<b>").into_string(), "&lt;b&gt;");
        let ages = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(age);
        assert_eq!(
            ages,
            ["a moment", "a moment", "2 minutes", "119 minutes", "2 hours", "47 hours", "2 days"]
        );
    }
}

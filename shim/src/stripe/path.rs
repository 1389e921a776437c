//! What may go into a path of Stripe's API. Ids come from clients, from the database and from Stripe itself; one that
//! held a slash, a `?` or a `&` would ask for something else.

use percent_encoding::percent_decode_str;
use stripe_credits_rules::stripe::MAX_ID_BYTES;

/// What every path begins with.
const ROOTS: [&str; 2] = ["/v1/", "/v2/core/accounts/"];

/// Whether a text has the form of Stripe's ids, and so is one segment of a path or one value of a query. Those of plans
/// were chosen by people: they can hold a dot or a hyphen.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && is_segment(text) && !text.contains('%')
}

/// Whether a text is a path of the API: one of [`ROOTS`], segments that stay one also when their escapes are read, and a query of
/// names and values without separators in them.
pub(crate) fn is_path(text: &str) -> bool {
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    ROOTS.iter().find_map(|root| path.strip_prefix(root)).is_some_and(|rest| rest.split('/').all(is_segment))
        && query.is_none_or(|query| query.split('&').all(is_parameter))
}

fn is_segment(text: &str) -> bool {
    let is_written = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.%".contains(&byte));
    let read = percent_decode_str(text).collect::<Vec<u8>>();
    is_written && !read.is_empty() && !read.contains(&b'/') && !read.iter().all(|byte| *byte == b'.')
}

fn is_parameter(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, value)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_[]".contains(&byte);
        let is_value = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-%".contains(&byte);
        !name.is_empty() && name.bytes().all(is_name) && value.bytes().all(is_value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_the_api_has() {
        for path in [
            "/v1/prices/price_1?expand[]=tiers",
            "/v1/checkout/sessions/cs_test_a1/line_items?limit=100&starting_after=li_1",
            "/v1/events?created[gte]=1700000000&types[]=checkout.session.completed&types[]=invoice.paid",
            "/v1/prices?active=true&expand[]=data.tiers",
            "/v1/prices/gold%20plan",
            "/v2/core/accounts/acct_1",
            "/v1/prices/pro-2024.eur",
        ] {
            assert!(is_path(path), "{path}");
        }
        for wrong in [
            "",
            "/",
            "/v2/prices",
            "/v1/",
            "/v1//prices",
            "/v1/prices/",
            "/v1/prices/../accounts",
            "/v1/prices/%2e%2e",
            "/v1/prices/.%2E",
            "/v1/prices/a%2Fb",
            "/v1/prices/%2E%2E%2Frefunds",
            "/v1/prices/a b",
            "/v1/prices/a?b",
            "/v1/prices/a?b=c?d=e",
            "/v1/prices/a?b=c#d",
            "/v1/prices/\u{e9}",
            "/v1/prices/a?=b",
            "https://evil.example/v1/prices",
        ] {
            assert!(!is_path(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_id_is_one_word() {
        assert!(is_id("cs_test_a1B2") && is_id("pro-2024.eur") && is_id(&"x".repeat(MAX_ID_BYTES)));
        for wrong in [
            "",
            "a/b",
            "a?b",
            "a&b",
            "a=b",
            "a b",
            ".",
            "..",
            "a%2e",
            "\u{e9}",
            &"x".repeat(MAX_ID_BYTES + 1),
        ] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }
}

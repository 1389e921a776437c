//! What Postgres's jsonb refuses in a JSON text. Escapes are replaced: `\u0000`, which no text of Postgres can hold, and
//! surrogates that are not in pairs, which are no characters. A name that somebody typed at the checkout can hold them, and
//! what was paid counts all the same. Numbers and depth are only looked for.

use std::borrow::Cow;

/// What stands in for the escapes, U+FFFD, as an escape.
const REPLACEMENT: &str = "\\ufffd";
/// The length of an escape such as `\u0000`, in bytes.
const ESCAPE_BYTES: usize = 6;

/// The text with these escapes replaced. Everything else stays as it is, also what is no JSON.
#[must_use]
pub fn storable(json: &str) -> Cow<'_, str> {
    let mut replaced = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        at += found;
        let Some(unit) = escaped_unit(json, at) else {
            // Of `\\u0000`, the first backslash escapes the second.
            at += 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8);
            continue;
        };
        let next = at + ESCAPE_BYTES;
        let is_pair = is_high_surrogate(unit) && escaped_unit(json, next).is_some_and(is_low_surrogate);
        if is_pair {
            at = next + ESCAPE_BYTES;
            continue;
        }
        if unit == 0 || is_high_surrogate(unit) || is_low_surrogate(unit) {
            replaced.push_str(&json[copied..at]);
            replaced.push_str(REPLACEMENT);
            copied = next;
        }
        at = next;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[copied..]);
    Cow::Owned(replaced)
}

/// Whether jsonb can surely hold what a JSON text says, with a text of its own of at most 32 times that length. The answer
/// costs next to nothing; where it is no, jsonb has to be asked.
#[must_use]
pub fn surely_holds(json: &str) -> bool {
    /// Bytes. No number has more digits, and jsonb holds numbers of 131,072.
    const LENGTH: usize = 64 << 10;
    /// Brackets and braces. Nothing is deeper, and jsonb holds a depth of some thousands.
    const OPENED: usize = 1000;
    json.len() <= LENGTH && opened(json.as_bytes()) <= OPENED && !has_long_exponent(json.as_bytes())
}

/// How many brackets and braces open, also in strings. Counted in parts of which each count fits a byte, so that several bytes are
/// looked at with one instruction.
fn opened(json: &[u8]) -> usize {
    let opens = |byte: &u8| u8::from(matches!(byte, b'[' | b'{'));
    let parts = json.chunks(usize::from(u8::MAX));
    parts.map(|part| usize::from(part.iter().fold(0, |sum: u8, byte| sum.wrapping_add(opens(byte))))).sum()
}

/// Whether a number may have an exponent of more than two digits. A text may look like it too.
fn has_long_exponent(json: &[u8]) -> bool {
    /// Bytes that are looked at together: an `e` after a digit is rare.
    const CHUNK: usize = 256;
    /// Bytes that show a long exponent: a digit, `e`, a sign or a digit, and two digits more.
    const SHOWN: usize = 5;
    let is_after_digit =
        |(mantissa, exponent): (&u8, &u8)| mantissa.is_ascii_digit() && (exponent | 0x20) == b'e';
    (0..json.len()).step_by(CHUNK).any(|start| {
        let chunk = &json[start..json.len().min(start + CHUNK + SHOWN - 1)];
        let has_exponent = chunk.iter().zip(&chunk[1..]).fold(false, |any, pair| any | is_after_digit(pair));
        has_exponent && chunk.windows(SHOWN).any(is_long_exponent)
    })
}

fn is_long_exponent(window: &[u8]) -> bool {
    let [mantissa, b'e' | b'E', exponent @ ..] = window else { return false };
    let is_sign = matches!(exponent[0], b'+' | b'-');
    mantissa.is_ascii_digit() && exponent[usize::from(is_sign)..].iter().all(u8::is_ascii_digit)
}

/// The UTF-16 code unit of the escape that begins at `at`, if one begins there.
fn escaped_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE_BYTES)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

fn is_high_surrogate(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

fn is_low_surrogate(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_jsonb_refuses_is_replaced_and_nothing_else() {
        for (text, expected) in [
            (r#""a\u0000b""#, r#""a\ufffdb""#),
            (r#""\u0000\u0000""#, r#""\ufffd\ufffd""#),
            (r#""\\u0000""#, r#""\\u0000""#),
            (r#""\\\u0000""#, r#""\\\ufffd""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\uD83D""#, r#""\ufffd""#),
            (r#""\udc00 x""#, r#""\ufffd x""#),
            (r#""\udc00\ud800""#, r#""\ufffd\ufffd""#),
            (r#""\ud800\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud800\u0041""#, r#""\ufffd\u0041""#),
            (r#""\u00e9 \n é""#, r#""\u00e9 \n é""#),
            (r#"{"\u0000": 1}"#, r#"{"\ufffd": 1}"#),
            (r"\u00", r"\u00"),
            (r"\u+000", r"\u+000"),
            ("\\", "\\"),
            ("\\é", "\\é"),
            ("", ""),
        ] {
            assert_eq!(storable(text), expected, "{text}");
        }
    }

    #[test]
    fn long_numbers_and_depth_are_found() {
        let deep = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for (json, expected) in [
            ("1e99".to_owned(), true),
            ("1e+9".to_owned(), true),
            (r#"{"id": "cs_1e99x", "amount": 1000.5, "e": -1.5E-9}"#.to_owned(), true),
            ("1e131000".to_owned(), false),
            ("[1E100]".to_owned(), false),
            ("[1e+99]".to_owned(), false),
            ("[1.5e-400000]".to_owned(), false),
            ("[1e000000001]".to_owned(), false),
            ("9".repeat(64 << 10), true),
            ("9".repeat((64 << 10) + 1), false),
            (deep(1000), true),
            (deep(1001), false),
        ] {
            assert_eq!(surely_holds(&json), expected, "{json:.40}");
        }
    }

    #[test]
    fn a_long_exponent_is_found_wherever_it_stands() {
        for before in 0..600 {
            let json = format!("{}1e100", " ".repeat(before));
            assert!(!surely_holds(&json), "after {before} bytes");
            assert!(surely_holds(&json[..json.len() - 1]), "after {before} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_twice_is_once(text in r#"(\\|u|0|d|8|c|é|"|x){0,40}"#) {
            let once = storable(&text);
            prop_assert_eq!(storable(&once), once.as_ref());
        }

        #[test]
        fn json_without_them_means_the_same(text in any::<String>()) {
            let json = Value::from(text.replace('\0', "")).to_string();
            prop_assert_eq!(storable(&json), json.as_str());
        }
    }
}

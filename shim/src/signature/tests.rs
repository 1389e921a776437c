use std::path::Path;

use hyper::header::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000;
const BODY: &[u8] = br#"{"id":"evt_1"}"#;

/// A body as the rest of the crate's tests need it: believed.
pub(crate) fn verified(body: &[u8]) -> Verified {
    Verified(Bytes::copy_from_slice(body))
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn check(header: &[u8], body: &[u8], secrets: &[&str], now: u64) -> Result<(), SignatureError> {
    let mut headers = HeaderMap::new();
    headers.insert(SIGNATURE_HEADER, HeaderValue::from_bytes(header).unwrap());
    let secrets: Vec<SecretString> = secrets.iter().map(|text| secret(text)).collect();
    verify(&headers, Bytes::copy_from_slice(body), &secrets, now).map(|verified| {
        assert_eq!(verified.into_body(), body, "what was verified is what was sent");
    })
}

fn check_text(header: &str) -> Result<(), SignatureError> {
    check(header.as_bytes(), BODY, &["whsec_a"], NOW)
}

fn v1(secret_text: &str, timestamp: u64) -> String {
    let header = sign(&secret(secret_text), timestamp, BODY);
    header.split_once("v1=").unwrap().1.to_owned()
}

#[test]
fn stripes_own_golden_signatures_pass() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/stripe-events"));
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let golden = [
        (
            "GOLDEN.async_stripe_invoiceitem.json",
            "secret",
            "d7373bc68f4bd320b253cd7461f87af6e1cdf1b4d7db1614d8d1d746972d2d0a",
        ),
        (
            "GOLDEN.event_test_signature.json",
            "webhook_secret",
            "2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7",
        ),
    ];
    for (file, key, mac) in golden {
        let body = std::fs::read(folder.join(file)).unwrap();
        let header = format!("t=1533204620,v1={mac}");
        assert_eq!(sign(&secret(key), 1_533_204_620, &body), header, "{file}");
        assert_eq!(check(header.as_bytes(), &body, &[key], 1_533_204_620), Ok(()), "{file}");
    }
}

#[test]
fn the_tolerance_ends_where_it_says_on_both_sides() {
    let at = |timestamp| check_text(&sign(&secret("whsec_a"), timestamp, BODY));
    assert_eq!(at(NOW), Ok(()));
    assert_eq!(at(NOW - TOLERANCE_SECONDS), Ok(()));
    assert_eq!(at(NOW - TOLERANCE_SECONDS - 1), Err(SignatureError::TooOld));
    assert_eq!(at(NOW + TOLERANCE_SECONDS), Ok(()));
    assert_eq!(at(NOW + TOLERANCE_SECONDS + 1), Err(SignatureError::TooNew));
    assert_eq!(at(0), Err(SignatureError::TooOld));
    assert_eq!(at(u64::MAX), Err(SignatureError::TooNew));
}

#[test]
fn one_right_v1_among_several_is_enough() {
    let (right, wrong) = (v1("whsec_a", NOW), v1("whsec_b", NOW));
    assert_eq!(check_text(&format!("t={NOW},v1={wrong},v1={right}")), Ok(()));
    assert_eq!(check_text(&format!("v1={right},v0={wrong},t={NOW},v1=short")), Ok(()));
    assert_eq!(check_text(&format!("t={NOW},v1={wrong}")), Err(SignatureError::Mismatch));
}

#[test]
fn any_configured_secret_will_do_during_a_rotation() {
    let header = sign(&secret("whsec_old"), NOW, BODY);
    let check = |secrets: &[&str]| check(header.as_bytes(), BODY, secrets, NOW);
    assert_eq!(check(&["whsec_new", "whsec_old"]), Ok(()));
    assert_eq!(check(&["whsec_old"]), Ok(()));
    assert_eq!(check(&["whsec_new"]), Err(SignatureError::Mismatch));
    assert_eq!(check(&[]), Err(SignatureError::Mismatch));
}

#[test]
fn a_scheme_we_do_not_know_proves_nothing() {
    let mac = v1("whsec_a", NOW);
    assert_eq!(check_text(&format!("t={NOW},v0={mac}")), Err(SignatureError::NoSignature));
    assert_eq!(check_text(&format!("t={NOW},V1={mac}")), Err(SignatureError::NoSignature));
}

#[test]
fn the_text_of_t_is_what_is_signed() {
    let digits = format!("0{NOW}");
    let mac = keyed(&secret("whsec_a"), &digits, BODY).finalize().into_bytes();
    let hex = format!("{:x}", Bytes::copy_from_slice(&mac));
    assert_eq!(check_text(&format!("t={digits},v1={hex}")), Ok(()));
    assert_eq!(check_text(&format!("t={NOW},v1={hex}")), Err(SignatureError::Mismatch));
}

#[test]
fn a_header_that_is_not_stripes_is_refused_by_kind() {
    let mac = v1("whsec_a", NOW);
    for (header, error) in [
        (String::new(), SignatureError::Missing),
        ("signed".to_owned(), SignatureError::Malformed),
        (format!("t={NOW},v1={mac},"), SignatureError::Malformed),
        (format!("t={NOW};v1={mac}"), SignatureError::MalformedTimestamp),
        (format!("v1={mac}"), SignatureError::MissingTimestamp),
        (format!(" t={NOW},v1={mac}"), SignatureError::MissingTimestamp),
        (format!("t={NOW},t={NOW},v1={mac}"), SignatureError::DuplicateTimestamp),
        (format!("t={NOW}"), SignatureError::NoSignature),
        (format!("t={NOW}, v1={mac}"), SignatureError::NoSignature),
        (format!("t={NOW},v1="), SignatureError::Mismatch),
        (format!("t={NOW},v1={}", mac.to_uppercase()), SignatureError::Mismatch),
        (format!("t={NOW},v1={mac} "), SignatureError::Mismatch),
        (format!("t={NOW},v1={mac}00"), SignatureError::Mismatch),
        (format!("t={NOW}{}", ",v1=0".repeat(17)), SignatureError::TooManySignatures),
        (format!("t={NOW},v0={}", "0".repeat(2048)), SignatureError::TooLong),
    ] {
        assert_eq!(check_text(&header), Err(error), "{header}");
    }
    for t in ["", "-1", "+1", "1.5", "1e3", " 1", "0x10", "99999999999999999999"] {
        let header = format!("t={t},v1={mac}");
        assert_eq!(check_text(&header), Err(SignatureError::MalformedTimestamp), "{t:?}");
    }
    let not_ascii = [format!("t={NOW},v1={mac},x=").as_bytes(), b"\xc3\xa9"].concat();
    assert_eq!(check(&not_ascii, BODY, &["whsec_a"], NOW), Err(SignatureError::NotAscii));
    let not_utf8 = [b"t=\xff,v1=".as_slice(), mac.as_bytes()].concat();
    assert_eq!(check(&not_utf8, BODY, &["whsec_a"], NOW), Err(SignatureError::NotAscii));
}

#[test]
fn no_header_and_two_headers_are_refused() {
    let secrets = [secret("whsec_a")];
    let check = |headers: &HeaderMap| verify(headers, Bytes::from_static(BODY), &secrets, NOW).map(|_| ());
    let mut headers = HeaderMap::new();
    assert_eq!(check(&headers), Err(SignatureError::Missing));
    let value = HeaderValue::from_str(&sign(&secrets[0], NOW, BODY)).unwrap();
    headers.append(SIGNATURE_HEADER, value.clone());
    assert_eq!(check(&headers), Ok(()));
    headers.append(SIGNATURE_HEADER, value);
    assert_eq!(check(&headers), Err(SignatureError::DuplicateHeader));
}

/// Another byte in place of the one at `index`, wherever that falls.
fn mutate(bytes: &[u8], index: prop::sample::Index, mask: u8) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    mutated[index.index(bytes.len())] ^= mask;
    mutated
}

proptest! {
    #[test]
    fn what_is_signed_passes(key in "[ -~]{1,80}", body in vec(any::<u8>(), 0..300), skew in 0..=TOLERANCE_SECONDS) {
        let header = sign(&secret(&key), NOW, &body);
        prop_assert_eq!(check(header.as_bytes(), &body, &[&key], NOW + skew), Ok(()));
        prop_assert_eq!(check(header.as_bytes(), &body, &["another", &key], NOW - skew), Ok(()));
    }

    #[test]
    fn no_other_byte_in_the_header_passes(index: prop::sample::Index, mask in 1..=u8::MAX) {
        let header = mutate(sign(&secret("whsec_a"), NOW, BODY).as_bytes(), index, mask);
        // What hyper would not let through as a header's value never reaches us.
        let can_arrive = HeaderValue::from_bytes(&header).is_ok();
        prop_assert!(!can_arrive || check(&header, BODY, &["whsec_a"], NOW).is_err());
    }

    #[test]
    fn no_byte_less_or_more_in_the_header_passes(index: prop::sample::Index, more in b' '..=b'~') {
        let header = sign(&secret("whsec_a"), NOW, BODY).into_bytes();
        let at = index.index(header.len());
        let mut less = header.clone();
        less.remove(at);
        prop_assert!(check(&less, BODY, &["whsec_a"], NOW).is_err());
        let mut longer = header;
        longer.insert(at, more);
        prop_assert!(check(&longer, BODY, &["whsec_a"], NOW).is_err());
    }

    #[test]
    fn no_other_body_passes(body in vec(any::<u8>(), 1..300), index: prop::sample::Index, mask in 1..=u8::MAX) {
        let header = sign(&secret("whsec_a"), NOW, &body);
        let check = |body: &[u8]| check(header.as_bytes(), body, &["whsec_a"], NOW);
        prop_assert!(check(&mutate(&body, index, mask)).is_err());
        prop_assert!(check(&body[1..]).is_err());
        prop_assert!(check(&[&body[..], b" "].concat()).is_err());
    }

    #[test]
    fn no_other_secret_passes(key in "[a-zA-Z0-9_]{1,80}", index: prop::sample::Index, other in "[a-zA-Z0-9_]") {
        let header = sign(&secret(&key), NOW, BODY);
        let at = index.index(key.len());
        let mut changed = key.clone();
        changed.replace_range(at..=at, &other);
        prop_assert!(changed == key || check(header.as_bytes(), BODY, &[&changed], NOW).is_err());
        prop_assert!(check(header.as_bytes(), BODY, &[&key[..at]], NOW).is_err());
    }

    #[test]
    fn no_header_whatever_breaks_the_parser(value in vec(any::<u8>(), 0..200)) {
        let _ = SignatureHeader::parse(&value);
    }
}

/// Headers good and bad, and what each placeholder in them stands for.
const CORPUS: &str = include_str!("corpus.txt");

/// The corpus's headers for [`BODY`], signed with `whsec_a`.
fn corpus() -> Vec<String> {
    let at = |timestamp: &str| {
        let mac = keyed(&secret("whsec_a"), timestamp, BODY).finalize().into_bytes();
        format!("{:x}", Bytes::copy_from_slice(&mac))
    };
    let now = NOW.to_string();
    let (padded, late) = (format!("0{NOW}"), (NOW + TOLERANCE_SECONDS + 1).to_string());
    let early = (NOW - TOLERANCE_SECONDS - 1).to_string();
    let values = [
        ("{t}", now.clone()),
        ("{padded}", padded.clone()),
        ("{late}", late.clone()),
        ("{early}", early.clone()),
        ("{right}", at(&now)),
        ("{RIGHT}", at(&now).to_uppercase()),
        ("{right_padded}", at(&padded)),
        ("{right_late}", at(&late)),
        ("{right_early}", at(&early)),
        ("{other}", v1("whsec_b", NOW)),
    ];
    let filled =
        |line: &str| values.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value));
    CORPUS.lines().map(filled).collect()
}

/// What the documentation says of a header, read as plainly as possible: exactly one t, in time, at most sixteen v1, one
/// of them right.
fn is_right(header: &str) -> bool {
    let Some(items) = header.split(',').map(|item| item.split_once('=')).collect::<Option<Vec<_>>>() else {
        return false;
    };
    let of = |key: &str| {
        items.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let (times, macs) = (of("t"), of("v1"));
    let [time] = times[..] else { return false };
    let is_in_time = time.bytes().all(|byte| byte.is_ascii_digit())
        && time.parse::<u64>().is_ok_and(|time| time.abs_diff(NOW) <= TOLERANCE_SECONDS);
    let mac = keyed(&secret("whsec_a"), time, BODY).finalize().into_bytes();
    let mac = format!("{:x}", Bytes::copy_from_slice(&mac));
    is_in_time
        && macs.len() <= MAX_V1_SIGNATURES
        && header.len() <= MAX_HEADER_BYTES
        && macs.contains(&mac.as_str())
}

#[test]
fn the_corpus_has_headers_of_every_answer() {
    let answers: Vec<_> =
        corpus().iter().map(|header| check_text(header).map_err(SignatureError::label)).collect();
    let kinds: std::collections::BTreeSet<_> = answers.iter().map(|answer| answer.err()).collect();
    assert!(kinds.len() >= 9, "{kinds:?}");
    for (header, answer) in corpus().iter().zip(answers) {
        assert_eq!(answer.is_ok(), is_right(header), "{header}");
    }
}

proptest! {
    /// Items of the corpus in any order and number, with other bytes here and there.
    #[test]
    fn a_header_is_accepted_exactly_if_it_is_right_and_never_for_another_secret(
        items in vec(any::<prop::sample::Index>(), 0..20),
        edits in vec((any::<prop::sample::Index>(), b' '..=b'~'), 0..3),
        is_edited: bool,
    ) {
        let corpus = corpus().join(",");
        let pool: Vec<&str> = corpus.split(',').collect();
        let mut header: Vec<u8> =
            items.iter().map(|item| *item.get(&pool)).collect::<Vec<_>>().join(",").into_bytes();
        for (place, byte) in edits.iter().filter(|_| is_edited && !items.is_empty()) {
            if !header.is_empty() {
                let at = place.index(header.len());
                header[at] = *byte;
            }
        }
        let text = String::from_utf8_lossy(&header).into_owned();
        prop_assert_eq!(check_text(&text).is_ok(), is_right(&text), "{}", text);
        prop_assert!(check(&header, BODY, &["whsec_c"], NOW).is_err(), "{}", text);
    }
}

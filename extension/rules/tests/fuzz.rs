//! Hostile texts for everything that reads JSON from outside: events, fetched objects, catalog documents.
//!
//! Each text is one of `tests/corpus` with random changes to its structure and then to its bytes. `PROPTEST_CASES` says
//! how many, 256 by default; docs/reliability.md has the figures of a long run.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use stripe_credits_rules::catalog::{self, Change, PriceKind};
use stripe_credits_rules::event;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::stripe::MAX_ID_BYTES;

/// How long reading one text may take on the CPU, without optimization.
const TIME_LIMIT: Duration = Duration::from_secs(2);
/// How much may be kept of a text, in bytes of its debug form for each byte of the text, and beside that.
const KEPT_FACTOR: usize = 60;
const KEPT_BESIDE: usize = 20_000;
/// How often a list repeats its element, and how deep a value is nested, where they are made large.
const REPEATS: usize = 500;
/// The longest value that is repeated, in bytes.
const MAX_REPEATED: usize = 2000;
const DEPTH: usize = 150;
/// What stands for an odd value until the text is printed.
const MARKER: &str = "odd value of the fuzz test";

/// Values that are odd in any place.
const ODD: &[&str] = &[
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "1.5",
    "1e3",
    "1e400",
    "-9223372036854775808",
    "9223372036854775808",
    "99999999999999999999999999",
    "253402300800",
    "\"\"",
    "\" \"",
    "\"1\"",
    "\"0.000000000001\"",
    "\"1e131000\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"é\u{202e}\"",
    "\"cs_1\"",
    "\"sub_1\"",
    "\"acct_1\"",
    "\"../../v1/charges?x=1\"",
    "[]",
    "[[]]",
    "[null]",
    "{}",
    "{\"id\":7}",
    "{\"id\":\"pi_7\",\"object\":\"payment_intent\"}",
    "{\"data\":[7],\"has_more\":true}",
    "{\"id\":\"a\",\"id\":\"b\"}",
];

/// A change to the structure of a document.
#[derive(Debug, Clone, Copy)]
enum Mutation {
    Odd(&'static str),
    Remove,
    CopyOf(Index),
    InList,
    Repeated,
    Deep,
    Long,
    UnknownField(&'static str),
}

/// A change to the bytes of a text.
#[derive(Debug, Clone)]
enum Edit {
    Flip(u8),
    Insert(u8),
    Delete,
    Truncate,
}

fn change() -> impl Strategy<Value = (Index, Mutation)> {
    let change = prop_oneof![
        8 => select(ODD).prop_map(Mutation::Odd),
        3 => Just(Mutation::Remove),
        4 => any::<Index>().prop_map(Mutation::CopyOf),
        1 => Just(Mutation::InList),
        1 => Just(Mutation::Repeated),
        1 => Just(Mutation::Deep),
        1 => Just(Mutation::Long),
        1 => select(ODD).prop_map(Mutation::UnknownField),
    ];
    (any::<Index>(), change)
}

fn edit() -> impl Strategy<Value = (Index, Edit)> {
    let edit = prop_oneof![
        (1..=u8::MAX).prop_map(Edit::Flip),
        any::<u8>().prop_map(Edit::Insert),
        Just(Edit::Delete),
        Just(Edit::Truncate),
    ];
    (any::<Index>(), edit)
}

/// One of the corpus's documents of a folder, changed: most are still JSON.
fn hostile(folder: &'static str) -> impl Strategy<Value = String> {
    let bytes = prop_oneof![3 => Just(0..1), 1 => Just(1..4)].prop_flat_map(|count| vec(edit(), count));
    (select(corpus(folder)), vec(change(), 0..6), bytes).prop_map(|(document, changes, edits)| {
        let mut document = document;
        let mut odd = Vec::new();
        for (place, change) in changes {
            apply(&mut document, place, change, &mut odd);
        }
        let mut text = document.to_string();
        for (number, value) in odd.iter().enumerate() {
            text = text.replace(&json!(marker(number)).to_string(), value);
        }
        let mut bytes = text.into_bytes();
        for (place, edit) in edits {
            edited(&mut bytes, place, &edit);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn corpus(folder: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| fs::read_to_string(path).expect("a document of the corpus");
    files.iter().map(|path| serde_json::from_str(&read(path)).expect("JSON")).collect()
}

fn marker(number: usize) -> String {
    format!("{MARKER} {number}")
}

/// Changes the document at one of its values, whichever `place` means.
fn apply(document: &mut Value, place: Index, change: Mutation, odd: &mut Vec<&'static str>) {
    let mut pointers = Vec::new();
    pointers_of(document, "", &mut pointers);
    let pointer = place.get(&pointers).clone();
    let mut new_odd = |value| {
        odd.push(value);
        json!(marker(odd.len() - 1))
    };
    if let Mutation::Remove = change {
        return remove(document, &pointer);
    }
    let copy = match change {
        Mutation::CopyOf(other) => document.pointer(other.get(&pointers).as_str()).cloned(),
        _ => None,
    };
    let Some(value) = document.pointer_mut(&pointer) else { return };
    match change {
        Mutation::Odd(odd) => *value = new_odd(odd),
        Mutation::CopyOf(_) => *value = copy.unwrap_or_default(),
        Mutation::InList => *value = json!([value.take()]),
        // The shim takes no text of more than 1 MiB.
        Mutation::Repeated if value.to_string().len() <= MAX_REPEATED => {
            *value = Value::Array(vec![value.take(); REPEATS]);
        }
        Mutation::Deep => {
            for _ in 0..DEPTH {
                *value = json!([value.take()]);
            }
        }
        Mutation::Long => *value = json!("x".repeat(REPEATS * 20)),
        Mutation::UnknownField(odd) => {
            let value_of_it = new_odd(odd);
            if let Some(object) = value.as_object_mut() {
                object.insert("fuzz".to_owned(), value_of_it);
            }
        }
        Mutation::Remove | Mutation::Repeated => {}
    }
}

fn pointers_of(value: &Value, at: &str, pointers: &mut Vec<String>) {
    pointers.push(at.to_owned());
    match value {
        Value::Array(list) => {
            // Of a list that was made large, its first elements are enough.
            for (index, value) in list.iter().enumerate().take(4) {
                pointers_of(value, &format!("{at}/{index}"), pointers);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers_of(value, &format!("{at}/{key}"), pointers);
            }
        }
        _ => {}
    }
}

fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Object(object)) => drop(object.remove(key)),
        Some(Value::Array(list)) => {
            let index = key.parse().unwrap_or(list.len());
            if index < list.len() {
                list.remove(index);
            }
        }
        _ => {}
    }
}

fn edited(bytes: &mut Vec<u8>, place: Index, edit: &Edit) {
    if bytes.is_empty() {
        return;
    }
    let at = place.index(bytes.len());
    match edit {
        Edit::Flip(mask) => bytes[at] ^= mask,
        Edit::Insert(byte) => bytes.insert(at, *byte),
        Edit::Delete => drop(bytes.remove(at)),
        Edit::Truncate => bytes.truncate(at),
    }
}

/// What `read` makes of a text: it ends in time, says the same twice, and keeps no more than a multiple of the text.
fn reading<T: Debug>(text: &str, read: impl Fn(&str) -> T) -> T {
    let before = cpu_time();
    let facts = read(text);
    let took = cpu_time().saturating_sub(before);
    assert!(took < TIME_LIMIT, "{} bytes took {took:?}", text.len());
    let kept = format!("{facts:?}");
    assert!(kept.len() <= KEPT_FACTOR * text.len() + KEPT_BESIDE, "{} bytes keep {}", text.len(), kept.len());
    assert_eq!(format!("{:?}", read(text)), kept, "twice is once");
    facts
}

/// How long this thread has run: unlike the time of day, whatever else the machine does.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts a thread's time");
    let nanoseconds = stat.split(' ').next().and_then(|count| count.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number of nanoseconds"))
}

/// The same JSON, printed anew: fields in another order, other spaces, other escapes. `None` if it is no JSON.
fn printed_anew(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    serde_json::to_string_pretty(&value).ok()
}

#[test]
fn the_corpus_itself_is_read() {
    for document in corpus("events") {
        event::read(&document.to_string()).unwrap_or_else(|fault| panic!("{fault}: {document}"));
    }
    for document in corpus("catalogs") {
        catalog::read(&document.to_string()).unwrap_or_else(|fault| panic!("{fault}: {document}"));
    }
    for document in corpus("fetched") {
        Fetched::read(&document.to_string()).unwrap_or_else(|fault| panic!("{fault}: {document}"));
    }
}

proptest! {
    #[test]
    fn no_event_breaks_its_reader_and_what_is_read_does_not_depend_on_how_it_is_printed(
        text in hostile("events"),
    ) {
        match reading(&text, event::read) {
            Ok(event) => {
                prop_assert!(!event.id.trim().is_empty() && event.id.len() <= MAX_ID_BYTES, "{:?}", event.id);
                let sources = event.subject.keys().sources;
                prop_assert!(sources.iter().all(|id| id.len() <= MAX_ID_BYTES), "what is locked: {sources:?}");
                if let Some(again) = printed_anew(&text) {
                    prop_assert_eq!(event::read(&again), Ok(event));
                }
            }
            // What it can be recorded under is an id that can be stored.
            Err(fault) => prop_assert!(fault.event_id.is_none_or(|id| id.len() <= MAX_ID_BYTES)),
        }
    }

    #[test]
    fn no_fetched_object_breaks_its_reader(text in hostile("fetched")) {
        let read = reading(&text, Fetched::read);
        if let (Ok(fetched), Some(again)) = (&read, printed_anew(&text)) {
            let again = Fetched::read(&again);
            prop_assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, event::Malformed>(fetched)));
        }
    }

    #[test]
    fn an_event_is_not_believed_as_a_fetched_object_without_its_shape(text in hostile("events")) {
        if let Ok(fetched) = reading(&text, Fetched::read) {
            prop_assert!(fetched.names().is_empty(), "an event has no list of objects");
        }
    }

    #[test]
    fn no_catalog_breaks_its_reader_and_one_that_is_read_loads_once(text in hostile("catalogs")) {
        match reading(&text, catalog::read) {
            Ok(read) => {
                for (id, price) in &read.prices {
                    prop_assert!(!id.trim().is_empty() && id.len() <= MAX_ID_BYTES, "{id:?}");
                    // A plan may be a tier without credits.
                    let is_right = match price.kind {
                        PriceKind::Plan => price.credits.0 >= 0,
                        PriceKind::Pack => price.credits.0 > 0,
                        PriceKind::NotCredits => price.credits.0 == 0,
                    };
                    prop_assert!(is_right, "{id}: {price:?}");
                }
                let first = catalog::changes(&BTreeMap::new(), &read.prices);
                let stored: BTreeMap<_, _> =
                    first.into_iter().map(|(id, (_, stored))| (id, stored)).collect();
                let second = catalog::changes(&stored, &read.prices);
                prop_assert!(second.values().all(|(change, _)| *change == Change::Unchanged));
                if let Some(again) = printed_anew(&text) {
                    prop_assert_eq!(catalog::read(&again), Ok(read));
                }
            }
            Err(fault) => prop_assert!(!fault.path.is_empty() && !fault.fault.is_empty(), "{fault:?}"),
        }
    }

    #[test]
    fn no_text_at_all_breaks_a_reader(text in prop_oneof![
        any::<String>(),
        r#"(\{|\}|\[|\]|"id":|"data":|"object":|,|:|"|\\|u|d8|00|1|e9|-|null|true| ){0,120}"#,
    ]) {
        let _ = reading(&text, event::read);
        let _ = reading(&text, Fetched::read);
        let _ = reading(&text, catalog::read);
    }
}

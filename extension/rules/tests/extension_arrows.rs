//! Each module of the extension uses only modules that its lib.rs declares further down, and none of its own room but `pg`.
//! The test stands here because the extension itself builds only where Postgres's headers are.

mod sources;

use std::fs;
use std::path::Path;

#[test]
fn no_module_of_the_extension_uses_one_above_or_beside_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let modules = declared(&fs::read_to_string(src.join("lib.rs")).expect("lib.rs"));
    let mut forbidden = Vec::new();
    for (at, (room, name)) in modules.iter().enumerate() {
        let code = in_full(&code(&src.join(room).join(name)), room);
        let used = |(other_room, other): &(String, String)| uses(&code, other_room, other);
        let above = modules[..=at].iter().filter(|module| used(module));
        let beside = modules[at + 1..].iter().filter(|module| module.0 == *room && used(module));
        let beside = beside.filter(|_| !room.is_empty() && room != "pg");
        forbidden.extend(above.chain(beside).map(|module| format!("{room}/{name} -> {module:?}")));
    }
    assert!(modules.len() > 20 && forbidden.is_empty(), "{forbidden:#?}");
}

/// The room and name of every module that lib.rs declares, in its order.
fn declared(lib: &str) -> Vec<(String, String)> {
    let mut room = String::new();
    let mut modules = Vec::new();
    for line in lib.lines().map(|line| line.trim().trim_start_matches("pub(crate) ")) {
        match line.strip_prefix("mod ").map(|rest| rest.split_once(';').ok_or(rest.trim_end_matches(" {"))) {
            Some(Ok((name, _))) => modules.push((room.clone(), name.to_owned())),
            Some(Err(opened)) => opened.clone_into(&mut room),
            None if line == "}" => room.clear(),
            None => {}
        }
    }
    modules
}

#[test]
fn a_module_beside_that_is_named_by_super_is_seen() {
    let code = "use super::payment;\nuse super::{invoice, pack};\n";
    for name in ["payment", "invoice", "pack"] {
        assert!(uses(&in_full(code, "posting"), "posting", name), "{name}");
        assert!(!uses(&in_full(code, ""), "", name), "{name}: of its own room");
    }
}

/// The text of a module's file and of those in its folder.
fn code(module: &Path) -> String {
    let files = [sources::files(module), vec![module.with_extension("rs")]].concat();
    files.iter().map(|file| fs::read_to_string(file).expect("a source file")).collect()
}

/// The same with what a module of a room names by `super` named in full. In a module without a room that is its own.
fn in_full(code: &str, room: &str) -> String {
    if room.is_empty() { code.to_owned() } else { code.replace("super::", &format!("crate::{room}::")) }
}

/// Whether a `use crate::…` names a module.
fn uses(code: &str, room: &str, name: &str) -> bool {
    let statements = code.split("use crate::").skip(1).filter_map(|rest| Some(rest.split_once(';')?.0));
    statements.into_iter().any(|path| {
        let mut words = path.split(|c: char| !c.is_alphanumeric() && c != '_');
        (room.is_empty() || words.next() == Some(room)) && words.any(|word| word == name)
    })
}

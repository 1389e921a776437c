//! Each module uses only modules that are declared before it: in lib.rs for the crate, in `room.rs` for the files of `room/`.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn no_module_uses_one_that_is_declared_after_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = arrows(&src.join("lib.rs"), &src, "crate::");
    for name in declared(&src.join("lib.rs")) {
        let (parent, room) = (src.join(format!("{name}.rs")), src.join(&name));
        upward.extend(arrows(&parent, &room, "super::"));
        upward.extend(arrows(&parent, &room, &format!("crate::{name}::")));
    }
    assert!(upward.is_empty(), "each uses a module that is declared after it: {upward:#?}");
}

/// Which modules of `room`, in the order in which `parent` declares them, name a later one after `prefix`.
fn arrows(parent: &Path, room: &Path, prefix: &str) -> Vec<String> {
    let order = declared(parent);
    let mut upward = Vec::new();
    for (at, name) in order.iter().enumerate() {
        let code: String = files(room, name).iter().map(|file| code(file)).collect();
        let used = code.split(prefix).skip(1).flat_map(first_names);
        let later = used.filter(|used| order[at + 1..].iter().any(|later| later == used));
        upward.extend(later.map(|used| format!("{name} -> {used}")));
    }
    upward
}

/// The modules that a file declares, in its order.
fn declared(file: &Path) -> Vec<String> {
    let code = code(file);
    let module = |line: &str| {
        Some(line.trim_start_matches("pub ").strip_prefix("mod ")?.split_once(';')?.0.to_owned())
    };
    code.lines().filter_map(module).collect()
}

/// A file without the lines that are comments, which may link to anything.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// A module's own file, and those in its room.
fn files(room: &Path, name: &str) -> Vec<PathBuf> {
    [vec![room.join(format!("{name}.rs"))], sources::files(&room.join(name))].concat()
}

/// What follows a prefix: one name, or between braces the first name of each path.
fn first_names(rest: &str) -> Vec<&str> {
    let group = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let paths = group.map_or(vec![rest], |(group, _)| group.split(',').collect());
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    paths.iter().filter_map(|path| path.trim().split(|c| !is_name(c)).next()).collect()
}

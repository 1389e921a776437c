//! What an engine that distributes the tables over several machines asks of the statements (docs/scale.md).
//! The test stands here because it needs no Postgres.

mod sources;

use std::fs;
use std::path::Path;

/// Functions that Postgres calls anew for each row. Citus refuses them in an UPDATE.
const VOLATILE: [&str; 4] = ["clock_timestamp(", "timeofday(", "random(", "gen_random_uuid("];

/// Where they may stand: a variable that is then an argument of the statement, and a column's default.
const ALLOWED: [&str; 2] = ["constant timestamptz := clock_timestamp()", " default "];

#[test]
fn no_statement_calls_a_function_anew_for_each_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = sources::files(&root.join("extension/src"));
    let scripts = fs::read_dir(root.join("sql")).expect("sql");
    files.extend(scripts.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()));
    let mut found = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a source file");
        let calls = |line: &&str| VOLATILE.iter().any(|name| line.contains(name));
        let is_allowed = |line: &str| ALLOWED.iter().any(|allowed| line.contains(allowed));
        let lines = text.lines().filter(calls).filter(|line| !is_allowed(line));
        found.extend(lines.map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    assert!(files.len() > 50 && found.is_empty(), "{found:#?}");
}

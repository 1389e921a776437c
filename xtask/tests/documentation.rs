//! The documentation is true as far as plain reading can check it: the tests, paths and links that it names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::extension::VERSION;
use xtask::workspace::root;

/// The longest line of prose, in characters; tables and code keep their shape.
const MAX_COLUMNS: usize = 200;
/// The longest name of a test that `cargo test` still shows in one line.
const MAX_TEST_NAME: usize = 80;

#[test]
fn every_test_that_a_page_names_exists() {
    let tests = tests();
    let missing: Vec<_> = pages()
        .iter()
        .flat_map(|page| test_names(&read(page)).into_iter().map(move |name| (page.clone(), name)))
        .filter(|(_, name)| !tests.contains(name))
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

#[test]
fn every_rule_and_every_scenario_names_a_test() {
    for (page, heading, at_least) in [("docs/rules.md", "## Rule ", 9), ("docs/scenarios.md", "## ", 38)] {
        let text = read(Path::new(page));
        let sections: Vec<_> = text.split("\n## ").skip(1).map(|section| format!("## {section}")).collect();
        assert!(sections.len() >= at_least, "{page} has {} sections", sections.len());
        for section in sections {
            let title = section.lines().next().unwrap_or_default();
            assert!(title.starts_with(heading), "{page}: {title}");
            assert!(!test_names(&section).is_empty(), "{page} names no test: {title}");
        }
    }
}

#[test]
fn every_path_that_a_page_names_exists() {
    let missing: Vec<_> = pages()
        .iter()
        .flat_map(|page| paths(page).into_iter().map(move |path| (page.clone(), path)))
        .filter(|(_, path)| !root().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "no such file: {missing:#?}");
}

#[test]
fn prose_has_no_line_that_holds_several_sentences() {
    for page in pages() {
        let text = read(&page);
        for line in prose(&text).filter(|line| !line.starts_with('|')) {
            let columns = line.chars().count();
            assert!(columns <= MAX_COLUMNS, "{}: {columns} columns: {line}", page.display());
        }
    }
}

#[test]
fn what_is_distributed_names_the_present_version() {
    let meta: serde_json::Value = serde_json::from_str(&read(Path::new("META.json"))).expect("JSON");
    assert_eq!(meta["version"], VERSION);
    assert_eq!(meta["provides"]["stripe_credits"]["version"], VERSION);
    let client = read(Path::new("clients/typescript/package.json"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&client).expect("JSON")["version"], VERSION);
    for file in ["docs/install.md", "packaging/compose.yaml", "packaging/kubernetes/shim.yaml"] {
        let text = read(Path::new(file));
        let tags: Vec<&str> = text.split("stripe-credits:").skip(1).collect();
        assert!(!tags.is_empty(), "{file} names no image of the shim");
        for tag in tags {
            assert!(tag.starts_with(VERSION), "{file}: stripe-credits:{}", tag.get(..8).unwrap_or(tag));
        }
    }
}

#[test]
fn no_integration_test_has_a_name_of_more_than_80_characters() {
    let mut long = Vec::new();
    for file in rust_files(&root().join("tests/tests")) {
        let text = fs::read_to_string(&file).expect("a source file is read");
        long.extend(test_functions(&text).filter(|name| name.len() > MAX_TEST_NAME).map(str::to_owned));
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// Every Markdown page of the repository, by its path.
fn pages() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output();
    let listed = String::from_utf8(listed.expect("git runs").stdout).expect("paths are UTF-8");
    let pages: Vec<_> = listed.lines().map(PathBuf::from).filter(|page| root().join(page).exists()).collect();
    assert!(pages.contains(&PathBuf::from("README.md")), "{pages:?}");
    pages
}

/// The tests of every crate, as `module::name`; the module is the file, or for `tests.rs` its folder.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["extension/rules", "shim", "tests/tests", "xtask"] {
        for file in rust_files(&root().join(folder)) {
            let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let module = stem(&file).filter(|stem| stem != "tests").or_else(|| stem(file.parent()?));
            let module = module.expect("a file has a name");
            let text = fs::read_to_string(&file).expect("a source file is read");
            found.extend(test_functions(&text).map(|name| format!("{module}::{name}")));
        }
    }
    found
}

/// The names of the functions that follow a `#[test]` or `#[tokio::test]`.
fn test_functions(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))?;
        let signature = lines.find(|line| line.starts_with("fn ") || line.starts_with("async fn "))?;
        signature.trim_start_matches("async ").trim_start_matches("fn ").split('(').next()
    })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if is_source(&path) {
            files.push(path);
        }
    }
    files
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// What stands between backticks in the prose of a page.
fn code_spans(text: &str) -> Vec<String> {
    prose(text).flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// The code spans of the form `module::test`.
fn test_names(text: &str) -> Vec<String> {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let is_test = |span: &String| span.split_once("::").is_some_and(|(a, b)| is_name(a) && is_name(b));
    code_spans(text).into_iter().filter(is_test).collect()
}

/// The files and folders that a page names, from the root: its relative links, and code spans that begin with a folder
/// of the repository or end like a source file.
fn paths(page: &Path) -> Vec<PathBuf> {
    let text = read(page);
    let folder = page.parent().unwrap_or(Path::new(""));
    let links = prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| {
        let link = rest.split([')', '#']).next()?;
        (!link.is_empty() && !link.contains("://")).then(|| folder.join(link))
    });
    let roots =
        ["extension/", "shim/", "sql/", "tests/", "xtask/", "docs/", "examples/", "packaging/", ".ci/"];
    let is_path = |span: &String| {
        let named = roots.iter().any(|root| span.starts_with(root)) || is_source(Path::new(span));
        named && !span.contains([' ', '*', '…'])
    };
    links.chain(code_spans(&text).into_iter().filter(is_path).map(PathBuf::from)).collect()
}

/// The lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

fn read(page: &Path) -> String {
    fs::read_to_string(root().join(page)).expect("a page is read")
}

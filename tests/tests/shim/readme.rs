//! README.md: every command and query that it shows is run, here or by `.ci/run`, and answers what the page says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use stripe_credits_tests::database::setting;
use tempfile::TempDir;
use xtask::cluster::{Cluster, Options};
use xtask::packages::{EXECUTABLE, set_mode};
use xtask::process::output;
use xtask::shim::Shim;
use xtask::workspace::root;

/// The user of the page.
const USER: &str = "5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47";
/// The server on the page.
const SERVER: &str = "@127.0.0.1/";

/// A fenced block with commands or a query, and the output that the page shows below it.
struct Block {
    language: String,
    text: String,
    shown: Option<String>,
}

/// The page's blocks in order, those of text as what the one before shows.
fn blocks() -> Vec<Block> {
    let page = fs::read_to_string(root().join("README.md")).expect("the page is read");
    let mut blocks: Vec<Block> = Vec::new();
    for fenced in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = fenced.split_once('\n').expect("a block has lines");
        if language == "text" {
            blocks.last_mut().expect("output follows a command").shown = Some(text.to_owned());
        } else {
            blocks.push(Block { language: language.to_owned(), text: text.to_owned(), shown: None });
        }
    }
    blocks
}

/// Takes the block that begins so.
fn take(blocks: &mut Vec<Block>, beginning: &str) -> Block {
    let found = blocks.iter().position(|block| block.text.starts_with(beginning));
    blocks.remove(found.unwrap_or_else(|| panic!("the page shows no block {beginning:?}")))
}

/// A script of bash in the checkout, which finds `stripe-credits` in a folder.
fn script(folder: &Path, name: &str, commands: &str) -> Command {
    let file = folder.join(name);
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    let text = format!("#!/bin/bash\nset -eu\ncd '{}'\nexport PATH='{path}'\n{commands}\n", root().display());
    fs::write(&file, text).expect("a script is written");
    set_mode(&file, EXECUTABLE).expect("a script is made executable");
    Command::new(file)
}

/// What psql prints for a query, after these statements.
fn psql(cluster: &Cluster, before: &[&str], query: &str) -> String {
    let mut command = Command::new(cluster.pg_bin().join("psql"));
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-d", &cluster.url("app")]);
    command.args(before.iter().copied().chain([query]).flat_map(|sql| ["-c", sql]));
    output(&mut command).unwrap_or_else(|fault| panic!("{query}: {fault}"))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

#[test]
fn what_the_readme_shows_is_run_and_answers_so() {
    let mut blocks = blocks();
    let cluster = Cluster::start(Options::default()).expect("a cluster");
    let mut server = cluster.connect("postgres").expect("it answers");
    server.batch_execute("create database app").expect("a database");
    server.batch_execute("create role app_client; create role app_service").expect("the app's roles");

    psql(&cluster, &[], &take(&mut blocks, "create extension").text);
    psql(&cluster, &[], &take(&mut blocks, "select billing.grant_access").text);
    server.batch_execute("create role shim login in role app_service").expect("the shim's role");

    let folder = TempDir::new().expect("a folder");
    symlink(setting("STRIPE_CREDITS_SHIM"), folder.path().join("stripe-credits")).expect("a link");
    let start = take(&mut blocks, "export DATABASE_URL").text;
    assert!(start.contains(SERVER), "{start}");
    let start = start.replace(SERVER, &format!("@127.0.0.1:{}/", cluster.port()));
    // In place of the shell, so that it is what is ended.
    let start = start.replace("stripe-credits serve", "exec stripe-credits serve");
    let secret = start.split_whitespace().find(|word| word.starts_with("STRIPE_WEBHOOK_SECRET="));
    let secret = secret.expect("the page sets the secret").to_owned();
    let start = script(folder.path(), "start", &start);
    let shim = Shim::start(Path::new(start.get_program()), &[]).expect("the shim starts");

    let delivery = take(&mut blocks, "stripe-credits send-test-event");
    let url = shim.url("/webhooks/stripe");
    let commands = format!("export {secret}\n{} --url {url}", delivery.text.trim_end());
    let answer = output(&mut script(folder.path(), "send", &commands)).expect("it is applied");
    // The page breaks the line of JSON.
    assert_eq!(lines(&answer).concat(), lines(&delivery.shown.expect("an answer")).concat());

    let spending = take(&mut blocks, "select outcome, credits");
    let spent = psql(&cluster, &["set role app_service"], &spending.text);
    assert_eq!(lines(&spent), lines(&spending.shown.expect("a row")));
    let read = take(&mut blocks, "select credits_balance");
    let claims = format!("set request.jwt.claims = '{{\"sub\": \"{USER}\"}}'");
    let balance = psql(&cluster, &[&claims, "set role app_client"], &read.text);
    assert_eq!(lines(&balance), lines(&read.shown.expect("a row")));

    let ci = fs::read_to_string(root().join(".ci/run")).expect("it is read");
    for block in blocks {
        assert_eq!(block.language, "sh", "nothing runs {}", block.text);
        for line in block.text.lines() {
            let command = line.split("  #").next().unwrap_or(line).trim();
            // Whoever runs this has the checkout.
            let is_run = command.starts_with("git clone ") || ci.lines().any(|line| runs(line, command));
            assert!(is_run, "nothing runs {command}");
        }
    }
}

/// Whether a line of `.ci/run` runs this command, with more arguments or without.
fn runs(line: &str, command: &str) -> bool {
    line.trim().strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

//! A Chromium for one test, its tabs, and what a user does and reads in them.
//!
//! A node process (tests/browser/driver.mjs) drives it with playwright-core, and looks at pages with axe-core. `cargo xtask
//! test` installs all of that and says where.

use std::cell::{Cell, RefCell};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;
use xtask::process;

use crate::database::setting;
use crate::pages::Pages;
use crate::tokens::token;

const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/driver.mjs");
/// How long the driver may take to answer: longer than it waits for a page itself.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the browser may take to end before it is ended.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A running browser, with a profile of its own. Dropped, it has ended, and its files are gone.
pub struct Browser {
    driver: Child,
    commands: RefCell<Option<ChildStdin>>,
    answers: Receiver<String>,
    tabs: Cell<usize>,
    /// The profile, and whatever else it writes; dropped last.
    home: TempDir,
}

/// One tab. Tabs share what a browser keeps, such as who is signed in.
pub struct Tab<'a> {
    browser: &'a Browser,
    number: usize,
}

impl Browser {
    /// Starts one. Its clock runs, and can be put forward.
    pub fn start() -> Browser {
        let home = TempDir::with_prefix("stripe-credits-browser-").expect("a temporary folder");
        let mut command = process::server_command(&program("node"), None, "KILL");
        command.arg(DRIVER).arg(setting("STRIPE_CREDITS_BROWSER"));
        command.env("CHROMIUM", program("chromium")).env("HOME", home.path()).env("TMPDIR", home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut driver = process::serve(command).unwrap_or_else(|error| panic!("{error}"));
        let commands = RefCell::new(driver.stdin.take());
        let stdout = driver.stdout.take().expect("piped above");
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may have failed meanwhile.
                let _ = sender.send(line);
            }
        });
        Browser { driver, commands, answers, tabs: Cell::new(0), home }
    }

    /// Another tab.
    pub fn tab(&self) -> Tab<'_> {
        let number = self.tabs.get();
        self.tabs.set(number + 1);
        Tab { browser: self, number }
    }

    fn ask(&self, command: &Value) -> Value {
        let mut commands = self.commands.borrow_mut();
        let sent = writeln!(commands.as_mut().expect("open until it is dropped"), "{command}");
        let answer = self.answers.recv_timeout(PATIENCE);
        let (Ok(()), Ok(answer)) = (sent, answer) else {
            panic!("the browser's driver does not answer {command}")
        };
        let answer: Value = serde_json::from_str(&answer).expect("the driver writes JSON");
        assert!(answer["fault"].is_null(), "{}", answer["fault"].as_str().unwrap_or_default());
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends when its stdin does. Killed, it leaves Chromium a closed pipe, which ends Chromium too.
        self.commands.borrow_mut().take();
        if process::wait_for(&mut self.driver, END_LIMIT).is_none() {
            eprintln!("the browser in {} did not end by itself", self.home.path().display());
            process::kill(&mut self.driver);
        }
    }
}

impl Tab<'_> {
    /// Goes to an address.
    pub fn open(&self, url: &str) {
        self.ask("open", &[url.into()]);
    }

    /// Presses reload.
    pub fn reload(&self) {
        self.ask("reload", &[]);
    }

    /// Presses the back button.
    pub fn back(&self) {
        self.ask("back", &[]);
    }

    /// What the address bar shows.
    pub fn address(&self) -> String {
        self.ask("address", &[]).as_str().expect("an address").to_owned()
    }

    /// Waits until the address begins like this.
    pub fn is_at(&self, start: &str) {
        self.ask("isAt", &[start.into()]);
    }

    /// Waits until the page's status (`role="status"`) holds these words.
    pub fn says(&self, words: &str) {
        self.ask("says", &[words.into()]);
    }

    /// All that the page shows now.
    pub fn text(&self) -> String {
        self.ask("text", &[]).as_str().expect("a text").to_owned()
    }

    /// Presses a button.
    pub fn click(&self, name: &str) {
        self.ask("click", &[name.into()]);
    }

    /// Presses a key, such as `Enter`.
    pub fn press(&self, key: &str) {
        self.ask("press", &[key.into()]);
    }

    /// Types where the focus is.
    pub fn types(&self, text: &str) {
        self.ask("type", &[text.into()]);
    }

    /// Goes on with the Tab key until the element with this role and name has the focus.
    pub fn tab_to(&self, role: &str, name: &str) {
        self.ask("tabTo", &[role.into(), name.into()]);
    }

    /// What axe-core finds wrong in the page for people who use a keyboard, a screen reader or large letters.
    pub fn accessibility_faults(&self) -> Vec<String> {
        serde_json::from_value(self.ask("axe", &[])).expect("lines")
    }

    /// Shows the page in a colour scheme, `light` or `dark`, and at a width in pixels; returns how wide it has become. If
    /// STRIPE_CREDITS_PICTURES names a folder, a picture with this name is left there, for people to look at.
    pub fn look(&self, name: &str, scheme: &str, width: u64) -> u64 {
        let folder = std::env::var("STRIPE_CREDITS_PICTURES").ok();
        let path = folder.map(|folder| format!("{folder}/{name}-{scheme}-{width}.png"));
        let wide = self.ask("look", &[path.into(), scheme.into(), width.into()]);
        wide.as_u64().expect("a width")
    }

    /// Writes into a field.
    pub fn fill(&self, label: &str, text: &str) {
        self.ask("fill", &[label.into(), text.into()]);
    }

    /// Evaluates JavaScript in the page: the value that its promise resolves to.
    pub fn run(&self, script: &str) -> Value {
        self.ask("run", &[script.into()])
    }

    /// Runs JavaScript in every page that this tab opens from now on, before the page's own.
    pub fn init(&self, script: &str) {
        self.ask("init", &[script.into()]);
    }

    /// Puts the page's clock forward: timers that are due by then run, once each.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).expect("a time that a page can wait for");
        self.ask("advance", &[ms.into()]);
    }

    /// From now on the system asks for less motion.
    pub fn calm(&self) {
        self.ask("calm", &[]);
    }

    /// From now on this tab's requests for a path fail before they are sent.
    pub fn cut(&self, path: &str) {
        self.ask("cut", &[path.into()]);
    }

    /// From now on this tab's requests for a path arrive, and their answers do not.
    pub fn lose_answers(&self, path: &str) {
        self.ask("lose", &[path.into()]);
    }

    /// Requests for a path work again.
    pub fn mend(&self, path: &str) {
        self.ask("mend", &[path.into()]);
    }

    /// Signs in on the page that asks for it.
    pub fn sign_in(&self, token: &str) {
        self.fill("Token", token);
        self.click("Sign in");
    }

    /// Signs a user in, and stays on the page that shows.
    pub fn is_signed_in(&self, pages: &Pages, user: Uuid) {
        self.open(&pages.url("/sign-in.html"));
        self.sign_in(&token(user));
        self.says("There is no purchase to confirm.");
    }

    fn ask(&self, command: &str, words: &[Value]) -> Value {
        let head = [json!(command), json!(self.number)];
        self.browser.ask(&Value::Array([&head, words].concat()))
    }
}

fn program(name: &str) -> PathBuf {
    process::find(name).unwrap_or_else(|| panic!("{name} is not installed: run cargo xtask test"))
}

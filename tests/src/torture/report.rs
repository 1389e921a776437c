//! What a person reads at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use xtask::figures::table;

use super::faults::{Fault, Happened};
use super::leftovers::Held;
use super::verdict::Journal;
use super::{app, stripe};

/// The most findings that are shown: a fault of one kind often has thousands of them.
const SHOWN: usize = 20;

/// What a run came to.
pub struct Report {
    /// The seed of its decisions.
    pub(super) seed: u64,
    /// The whole run, with start and proof.
    pub(super) took: Duration,
    /// Everything that is wrong: empty if the run is good.
    pub findings: Vec<String>,
    pub(super) happened: BTreeMap<Fault, Happened>,
    pub(super) sent: Vec<stripe::Tally>,
    pub(super) called: Vec<app::Tally>,
    pub(super) journal: Journal,
    pub(super) ledger_rows: i64,
    /// Before the first fault, and after the last one.
    pub(super) held: [Held; 2],
}

/// Answers that a good event may not have, even in the middle of everything: what is away is 503.
pub(super) fn odd_answers(answers: &BTreeMap<String, u64>) -> Vec<String> {
    let is_odd =
        |answer: &str| answer.contains("rejected") || answer.starts_with('4') || answer.starts_with("500");
    let odd = answers.iter().filter(|(answer, _)| is_odd(answer));
    odd.map(|(answer, times)| format!("answered {times} times: {answer}")).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut faults = table(&["fault", "times", "longest s until deliveries were taken again"]);
        for (fault, happened) in &self.happened {
            faults.add_row([
                fault.to_string(),
                happened.times.to_string(),
                format!("{:.1}", happened.longest.as_secs_f64()),
            ]);
        }
        writeln!(f, "{faults}")?;
        let mut counts = table(&["what happened", "times"]);
        for (what, times) in self.counts() {
            counts.add_row([what.to_owned(), times.to_string()]);
        }
        writeln!(f, "{counts}")?;
        let mut answers = table(&["deliveries were answered", "times"]);
        for (answer, times) in sums(self.sent.iter().map(|tally| &tally.answers)) {
            answers.add_row([answer.to_owned(), times.to_string()]);
        }
        writeln!(f, "{answers}")?;
        let mut held = table(&["held when idle", "before", "after"]);
        let [before, after] = self.held;
        for (what, before, after) in [
            ("the shim's descriptors", before.shim_descriptors, after.shim_descriptors),
            ("the postmaster's descriptors", before.postmaster_descriptors, after.postmaster_descriptors),
        ] {
            held.add_row([what.to_owned(), before.to_string(), after.to_string()]);
        }
        for (what, before, after) in [
            ("the shim's memory, MB", before.shim_megabytes, after.shim_megabytes),
            ("the largest session's memory, MB", before.session_megabytes, after.session_megabytes),
        ] {
            held.add_row([what.to_owned(), before.to_string(), after.to_string()]);
        }
        writeln!(f, "{held}")?;
        self.conclusion(f)
    }
}

impl Report {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let sent = |count: fn(&stripe::Tally) -> u64| self.sent.iter().map(count).sum::<u64>();
        let called = |count: fn(&app::Tally) -> u64| self.called.iter().map(count).sum::<u64>();
        let taken = |tally: &stripe::Tally| count_of(&tally.answers, |answer| answer.starts_with("200"));
        let refused = |tally: &stripe::Tally| {
            count_of(&tally.answers, |answer| !answer.starts_with("200") && answer != "no answer")
        };
        let unanswered = |tally: &stripe::Tally| count_of(&tally.answers, |answer| answer == "no answer");
        let done = |function: &'static str| {
            let is_done = |answer: &str| answer.starts_with(function) && !answer.contains("rejected");
            self.called.iter().map(|tally| count_of(&tally.answers, is_done)).sum::<u64>()
        };
        vec![
            ("payments", self.journal.payments.len() as u64),
            ("of them with a refund or a dispute", sent(|tally| tally.refunds_and_disputes)),
            ("deliveries answered 200", sent(taken)),
            ("of them once more", sent(|tally| tally.duplicates)),
            ("deliveries answered 5xx, and delivered again", sent(refused)),
            ("deliveries without an answer, and delivered again", sent(unanswered)),
            ("reconciled by the buyer's browser", sent(|tally| tally.reconciles)),
            ("spends", done("spend_credits")),
            ("reservations", done("reserve_credits")),
            ("of them committed", done("commit_reservation")),
            ("of them released", done("release_reservation")),
            ("refunds of spends", done("refund_spend")),
            ("calls repeated for want of an answer", called(|tally| tally.repeated)),
            ("calls given up without an answer", called(|tally| tally.given_up)),
            ("balances read over HTTP", called(|tally| tally.reads)),
            ("ledger rows", self.ledger_rows.unsigned_abs()),
        ]
    }

    fn conclusion(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        if self.findings.is_empty() {
            return writeln!(
                f,
                "seed {}, {seconds:.0} s: every payment granted once, every answered call is in the ledger once, the books \
                 prove themselves, and nothing is left over",
                self.seed
            );
        }
        writeln!(f, "seed {}, {seconds:.0} s: {} findings", self.seed, self.findings.len())?;
        for finding in self.findings.iter().take(SHOWN) {
            writeln!(f, "  {finding}")?;
        }
        Ok(())
    }
}

/// The tallies of all workers together.
fn sums<'a>(tallies: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<&'a str, u64> {
    let mut sums = BTreeMap::new();
    for (answer, times) in tallies.flatten() {
        *sums.entry(answer.as_str()).or_default() += times;
    }
    sums
}

fn count_of(answers: &BTreeMap<String, u64>, is_counted: impl Fn(&str) -> bool) -> u64 {
    answers.iter().filter(|(answer, _)| is_counted(answer)).map(|(_, times)| times).sum()
}

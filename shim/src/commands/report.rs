//! The output of the commands that compare Stripe with the database: progress on a terminal, one line for each
//! finding that needs a person, and a summary at the end.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::VerdictName;

use crate::error::Error;
use crate::outcome::Outcome;

/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// A report in progress.
pub(crate) struct Report {
    /// Shown on stderr, if that is a terminal.
    progress: ProgressBar,
    /// The word for objects with an effect: applied, or to be applied.
    applied_word: &'static str,
    parts: Vec<Part>,
    findings: usize,
}

/// The counts of one kind of object.
struct Part {
    name: &'static str,
    applied_word: &'static str,
    listed: u64,
    applied: u64,
    credits: i64,
    left: u64,
}

impl Report {
    /// A report of what is applied.
    pub(crate) fn new() -> Self {
        Self::with_word("applied")
    }

    /// A report of what would be applied.
    pub(crate) fn dry() -> Self {
        Self::with_word("to be applied")
    }

    fn with_word(applied_word: &'static str) -> Self {
        let progress = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("a template of two known keys");
        progress.set_style(style);
        progress.enable_steady_tick(TICK);
        Self { progress, applied_word, parts: Vec::new(), findings: 0 }
    }

    /// Starts counting another kind of object, or continues with the same.
    pub(crate) fn start_part(&mut self, name: &'static str) {
        if self.parts.last().is_none_or(|part| part.name != name) {
            self.parts.push(Part {
                name,
                applied_word: self.applied_word,
                listed: 0,
                applied: 0,
                credits: 0,
                left: 0,
            });
        }
    }

    /// Counts objects that were applied before.
    pub(crate) fn count_known(&mut self, objects: usize) {
        self.part().listed += objects as u64;
        self.refresh();
    }

    /// Counts the result of one object, and prints it if it needs a person.
    pub(crate) fn count(&mut self, id: &str, result: &Result<Outcome, Error>) {
        let part = self.part();
        part.listed += 1;
        if let Ok(outcome) = result {
            part.applied += u64::from(outcome.verdict() == VerdictName::Applied);
            part.credits += outcome.credits().unwrap_or(0);
        }
        if let Some(why) = needs_person(result) {
            part.left += 1;
            self.finding(&format!("{id}  {why}"));
        }
        self.refresh();
    }

    /// Prints something that needs a person.
    pub(crate) fn finding(&mut self, line: &str) {
        self.findings += 1;
        self.print(line);
    }

    /// Whether something needs a person so far.
    pub(crate) fn has_findings(&self) -> bool {
        self.findings > 0
    }

    /// Prints a line.
    pub(crate) fn print(&self, line: &str) {
        self.progress.suspend(|| println!("{line}"));
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// [`Error::Findings`] if something needs a person.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.progress.finish_and_clear();
        for part in &self.parts {
            println!("{part}");
        }
        if self.findings == 0 { Ok(()) } else { Err(Error::Findings(self.findings)) }
    }

    fn part(&mut self) -> &mut Part {
        self.parts.last_mut().expect("begun before anything is counted")
    }

    fn refresh(&self) {
        if let Some(part) = self.parts.last() {
            self.progress.set_message(part.to_string());
        }
    }
}

impl Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, applied_word, listed, applied, credits, left } = self;
        write!(formatter, "{name}: {listed} listed, {applied} {applied_word}")?;
        if *credits != 0 {
            write!(formatter, " ({credits:+} credits)")?;
        }
        write!(formatter, ", {left} left for a person")
    }
}

/// Why an object needs a person; none if it does not.
pub(crate) fn needs_person(result: &Result<Outcome, Error>) -> Option<String> {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => return Some(format!("failed: {error}")),
    };
    let needs = match outcome.verdict() {
        VerdictName::Applied | VerdictName::AlreadyApplied => false,
        // Stripe's list has no objects of another account or mode, unless the settings are wrong.
        VerdictName::Ignored => matches!(outcome.reason(), Some(Reason::Livemode | Reason::Account)),
        VerdictName::Parked | VerdictName::Rejected | VerdictName::NeedsFetch => true,
    };
    needs.then(|| {
        let mut why =
            format!("{}: {}", outcome.verdict().as_str(), outcome.reason_text().unwrap_or("no reason"));
        if let Some(price_ids) = outcome.price_ids() {
            let _ = write!(why, " {price_ids}");
        }
        why
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseError;

    fn reason_of(json: &str) -> Option<String> {
        needs_person(&Ok(Outcome::parse(json.to_owned()).unwrap()))
    }

    #[test]
    fn what_is_parked_or_rejected_needs_a_person() {
        for settled in [
            r#"{"outcome":"applied"}"#,
            r#"{"outcome":"already_applied"}"#,
            r#"{"outcome":"ignored","reason":"stale"}"#,
            r#"{"outcome":"ignored","reason":"no_subscription"}"#,
        ] {
            assert_eq!(reason_of(settled), None, "{settled}");
        }
        for (json, why) in [
            (
                r#"{"outcome":"parked","reason":"unknown_price","details":{"missing_prices":["price_x"]}}"#,
                "parked: unknown_price price_x",
            ),
            (r#"{"outcome":"parked","reason":"unknown_user"}"#, "parked: unknown_user"),
            (r#"{"outcome":"rejected","reason":"conflict"}"#, "rejected: conflict"),
            (r#"{"outcome":"ignored","reason":"account"}"#, "ignored: account"),
        ] {
            assert_eq!(reason_of(json).as_deref(), Some(why));
        }
        assert!(
            needs_person(&Err(DatabaseError::UnexpectedAnswer("odd".to_owned()).into()))
                .is_some_and(|why| why.contains("odd"))
        );
    }

    #[test]
    fn a_part_is_one_line_of_counts() {
        let part = Part {
            name: "invoices",
            applied_word: "applied",
            listed: 12,
            applied: 3,
            credits: 30_000,
            left: 1,
        };
        assert_eq!(part.to_string(), "invoices: 12 listed, 3 applied (+30000 credits), 1 left for a person");
    }
}

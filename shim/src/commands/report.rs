//! What a command that repairs the books tells: progress on a terminal, each thing that is left for a person on a line of
//! its own as soon as it is known, and at the end how much of what there was.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Error;
use crate::outcome::{Outcome, Verdict};

/// How often the terminal shows that the command is alive.
const TICK: Duration = Duration::from_millis(100);

/// A report that is being made.
pub(crate) struct Report {
    /// On stderr, and on a terminal only.
    progress: ProgressBar,
    /// What it says of what came to something: that it was, or would be.
    applied: &'static str,
    parts: Vec<Part>,
    findings: usize,
}

/// One kind of object, and what came of those there were.
struct Part {
    name: &'static str,
    /// Its report's word.
    word: &'static str,
    listed: u64,
    applied: u64,
    credits: i64,
    left: u64,
}

impl Report {
    /// Of what is done.
    pub(crate) fn new() -> Self {
        Self::saying("applied")
    }

    /// Of what would be done.
    pub(crate) fn dry() -> Self {
        Self::saying("to be applied")
    }

    fn saying(applied: &'static str) -> Self {
        let progress = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("a template of two known keys");
        progress.set_style(style);
        progress.enable_steady_tick(TICK);
        Self { progress, applied, parts: Vec::new(), findings: 0 }
    }

    /// Begins with another kind of object, or goes on with it.
    pub(crate) fn begin(&mut self, name: &'static str) {
        if self.parts.last().is_none_or(|part| part.name != name) {
            self.parts.push(Part { name, word: self.applied, listed: 0, applied: 0, credits: 0, left: 0 });
        }
    }

    /// Counts objects that are in the books already.
    pub(crate) fn known(&mut self, objects: usize) {
        self.part().listed += objects as u64;
        self.show();
    }

    /// Counts what came of one object, and names it where that is for a person to see to.
    pub(crate) fn count(&mut self, id: &str, result: &Result<Outcome, Error>) {
        let part = self.part();
        part.listed += 1;
        if let Ok(outcome) = result {
            part.applied += u64::from(outcome.verdict() == Verdict::Applied);
            part.credits += outcome.credits().unwrap_or(0);
        }
        if let Some(why) = left(result) {
            part.left += 1;
            self.finding(&format!("{id}  {why}"));
        }
        self.show();
    }

    /// Names something that a person has to see to.
    pub(crate) fn finding(&mut self, line: &str) {
        self.findings += 1;
        self.say(line);
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: &str) {
        self.progress.suspend(|| println!("{line}"));
    }

    /// Prints how much of what there was.
    ///
    /// # Errors
    /// [`Error::Findings`] where something is left for a person.
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

    fn show(&self) {
        if let Some(part) = self.parts.last() {
            self.progress.set_message(part.to_string());
        }
    }
}

impl Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, word, listed, applied, credits, left } = self;
        write!(formatter, "{name}: {listed} listed, {applied} {word}")?;
        if *credits != 0 {
            write!(formatter, " ({credits:+} credits)")?;
        }
        write!(formatter, ", {left} left for a person")
    }
}

/// Why an object is left for a person; none where it is done with.
pub(crate) fn left(result: &Result<Outcome, Error>) -> Option<String> {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => return Some(format!("failed: {error}")),
    };
    let reason = outcome.reason();
    let is_left = match outcome.verdict() {
        Verdict::Applied | Verdict::AlreadyApplied => false,
        // Stripe's own list holds nothing of another account or mode, unless the settings are wrong.
        Verdict::Ignored => matches!(reason, Some("livemode" | "account")),
        Verdict::Parked | Verdict::Rejected | Verdict::NeedsFetch => true,
    };
    is_left.then(|| {
        let mut why = format!("{}: {}", outcome.verdict().label(), reason.unwrap_or("no reason"));
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

    fn left_of(json: &str) -> Option<String> {
        left(&Ok(Outcome::parse(json.to_owned()).unwrap()))
    }

    #[test]
    fn what_waits_or_was_refused_is_left_for_a_person() {
        for settled in [
            r#"{"outcome":"applied"}"#,
            r#"{"outcome":"already_applied"}"#,
            r#"{"outcome":"ignored","reason":"stale"}"#,
            r#"{"outcome":"ignored","reason":"no_subscription"}"#,
        ] {
            assert_eq!(left_of(settled), None, "{settled}");
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
            assert_eq!(left_of(json).as_deref(), Some(why));
        }
        assert!(
            left(&Err(DatabaseError::UnexpectedAnswer("odd".to_owned()).into()))
                .is_some_and(|why| why.contains("odd"))
        );
    }

    #[test]
    fn a_part_says_how_much_of_what() {
        let part =
            Part { name: "invoices", word: "applied", listed: 12, applied: 3, credits: 30_000, left: 1 };
        assert_eq!(part.to_string(), "invoices: 12 listed, 3 applied (+30000 credits), 1 left for a person");
    }
}

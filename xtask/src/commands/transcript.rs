//! What the demo prints, kept with stable ids, so that two runs can be compared and `docs/demo.md` is one of them.

use std::collections::HashMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use postgres::Row;

/// How much of an id or a signature is shown.
const SHOWN_CHARACTERS: usize = 16;

/// The lines printed so far, and what replaces the parts of them that differ from run to run.
#[derive(Default)]
pub(crate) struct Transcript {
    text: String,
    /// What was printed and what stands for it, in the order of their first use.
    replacements: Vec<(String, String)>,
    /// How many ids of each prefix have been replaced.
    ids: HashMap<String, usize>,
}

impl Transcript {
    /// Prints a line, or several.
    pub(crate) fn print(&mut self, text: &str) {
        println!("{text}");
        self.text.push_str(text);
        self.text.push('\n');
    }

    pub(crate) fn title(&mut self, step: u32, text: &str) {
        self.print(&format!("\n{step}. {text}"));
    }

    pub(crate) fn sent(&mut self, text: &str) {
        self.print(&format!("   sent      {text}"));
    }

    /// Of several lines, the later ones are printed under the first.
    pub(crate) fn answered(&mut self, text: &str) {
        let mut label = "answered";
        for line in text.lines().filter(|line| !line.is_empty()) {
            self.print(&format!("   {label:8}  {line}"));
            label = "";
        }
    }

    /// Has `printed` replaced in [`Self::markdown`].
    pub(crate) fn replace(&mut self, printed: &str, stable: &str) {
        self.replacements.push((printed.to_owned(), stable.to_owned()));
    }

    fn is_replaced(&self, printed: &str) -> bool {
        self.replacements.iter().any(|(known, _)| known == printed)
    }

    /// Has an id (`evt_…`), long or shortened, replaced by its prefix and a number, as long as the id.
    pub(crate) fn replace_id(&mut self, id: &str) {
        if self.is_replaced(&shortened(id)) {
            return;
        }
        let prefix = id.rfind('_').map_or(id, |end| &id[..=end]);
        let count = self.ids.entry(prefix.to_owned()).or_default();
        *count += 1;
        let digits = SHOWN_CHARACTERS.saturating_sub(prefix.len());
        let stable = format!("{prefix}{count:0digits$}");
        self.replace(&shortened(id), &shortened(&format!("{stable}-")));
    }

    /// Everything printed, as a page.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.text.clone();
        for (printed, stable) in &self.replacements {
            text = text.replace(printed, stable);
        }
        format!(
            "# The demo\n\n\
             What `cargo xtask demo` prints, by signed HTTP against the shim and SQL against Postgres.\n\
             Ids, times and signatures differ in every run, so placeholders stand for them here.\n\
             `cargo xtask demo --transcript docs/demo.md` writes this page, and CI fails if it changes.\n\n\
             ```text\n{}\n```\n",
            text.trim()
        )
    }
}

/// The rows of the ledger that a step appended.
pub(crate) fn ledger_table(rows: &[Row]) -> Table {
    let mut table = table(&["id", "type", "pool", "amount", "balance", "paid by, or request", "event"]);
    for row in rows {
        let amount = format!("{:+}", row.get::<_, i64>(3));
        let (id, after) = (row.get::<_, i64>(0).to_string(), row.get::<_, i64>(4).to_string());
        table.add_row([
            id,
            row.get(1),
            row.get(2),
            amount,
            after,
            shortened(row.get(5)),
            shortened(row.get(6)),
        ]);
    }
    for column in [0, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Every event that the database kept.
pub(crate) fn inbox_table(rows: &[Row]) -> Table {
    let mut table = table(&["event", "type", "outcome", "attempts"]);
    for row in rows {
        table.add_row([shortened(row.get(0)), row.get(1), row.get(2), row.get(3)]);
    }
    table
}

/// The first characters of an id.
pub(crate) fn shortened(id: &str) -> String {
    match id.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_that_differ_in_their_ids_have_one_page() {
        let page = |first: &str, second: &str| {
            let mut transcript = Transcript::default();
            for id in [first, second, first] {
                transcript.replace_id(id);
                transcript.sent(&shortened(id));
            }
            transcript.markdown()
        };
        let written = page("evt_4b1b5c1aa7d90001", "evt_0be1c1aa7d90001ff");
        assert_eq!(written, page("evt_ffffffffffffffff1", "evt_a0000000000000001"));
        assert!(written.contains("evt_000000000002…"), "{written}");
    }
}

//! Medians of measurements, and tables of rates with their baselines.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

/// The median; 0 if there are no figures.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A table with words in its first column and numbers in the others.
#[must_use]
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(heads.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Adds a row: the name and the number of clients, the baseline's rate, the extension's, and their ratio.
pub fn add(table: &mut Table, what: &str, clients: usize, rates: &[f64]) {
    let [baseline, ours] = rates else { return };
    table.add_row([
        what.to_owned(),
        clients.to_string(),
        format!("{baseline:.0}"),
        format!("{ours:.0}"),
        format!("{:.2}", ours / baseline),
    ]);
}

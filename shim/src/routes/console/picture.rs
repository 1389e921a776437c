//! The balance over time as a small picture: steps, because a balance holds until the next posting. Beside it the same as a
//! table, for whoever does not see pictures.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::routes::console::known::Balance;
use crate::routes::console::words::credits;

/// The picture's units; it is as wide as the page lets it be.
const WIDTH: i64 = 640;
const HEIGHT: i64 = 160;
/// What is left around the steps, for the line's width and the numbers.
const MARGIN: i64 = 12;

/// The picture, from the first of these days to today.
pub(crate) fn balance(days: &[Balance]) -> Markup {
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return html! { p { "No credits were ever posted." } };
    };
    let highest = days.iter().map(|day| day.balance).max().unwrap_or_default().max(0);
    let lowest = days.iter().map(|day| day.balance).min().unwrap_or_default().min(0);
    html! {
        figure {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby="picture-title picture-text" {
                title id="picture-title" { "The balance over time" }
                desc id="picture-text" {
                    "From " (credits(first.balance)) " on " (first.day) " to " (credits(last.balance)) " now; the highest is "
                    (credits(highest)) ", the lowest " (credits(lowest_of(days))) "."
                }
                path class="zero" d=(format!("M0 {0}H{WIDTH}", height(0, lowest, highest))) {}
                path class="area" d=(format!("{0}V{1}H0Z", steps(days, lowest, highest), height(0, lowest, highest))) {}
                path class="line" d=(steps(days, lowest, highest)) {}
            }
            figcaption {
                span { time datetime=(first.day) { (first.day) } }
                span { "highest " (credits(highest)) }
                span { "today" }
            }
        }
        details {
            summary { "The balance over time as a table" }
            div class="scroll" role="group" aria-label="The balance over time" tabindex="0" {
                table {
                    caption { "The balance at the end of each day on which it changed" }
                    thead { tr { th scope="col" { "Day (UTC)" } th scope="col" class="number" { "Credits" } } }
                    tbody {
                        @for day in days.iter().rev() {
                            tr {
                                th scope="row" { time datetime=(day.day) { (day.day) } }
                                td class="number" { (credits(day.balance)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn lowest_of(days: &[Balance]) -> i64 {
    days.iter().map(|day| day.balance).min().unwrap_or_default()
}

/// The path of the steps, from left to right.
fn steps(days: &[Balance], lowest: i64, highest: i64) -> String {
    let longest_ago = days.first().map_or(1, |day| day.days_ago).max(1);
    let across = |days_ago: i64| WIDTH - WIDTH * days_ago / longest_ago;
    let mut path = String::new();
    for day in days {
        let (x, y) = (across(day.days_ago), height(day.balance, lowest, highest));
        let _ = if path.is_empty() { write!(path, "M0 {y}") } else { write!(path, "H{x}V{y}") };
    }
    let _ = write!(path, "H{WIDTH}");
    path
}

/// How far below the picture's upper edge a balance is.
fn height(balance: i64, lowest: i64, highest: i64) -> i64 {
    let range = (i128::from(highest) - i128::from(lowest)).max(1);
    let below = (i128::from(highest) - i128::from(balance)) * i128::from(HEIGHT - 2 * MARGIN) / range;
    MARGIN + i64::try_from(below).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days_ago: i64, balance: i64) -> Balance {
        Balance { day: "2026-01-31".to_owned(), days_ago, balance }
    }

    #[test]
    fn the_steps_go_from_the_first_day_to_today_between_the_margins() {
        let days = [day(10, 100), day(5, 0), day(0, 50)];
        assert_eq!(steps(&days, 0, 100), "M0 12H320V148H640V80H640");
        assert_eq!(steps(&[day(0, 7)], 0, 7), "M0 12H640");
        assert_eq!(steps(&[day(3, 0)], 0, 0), "M0 12H640");
    }

    #[test]
    fn debt_and_the_largest_balances_have_their_place() {
        assert_eq!((height(-50, -50, 50), height(0, -50, 50), height(50, -50, 50)), (148, 80, 12));
        assert_eq!(height(i64::MIN, i64::MIN, i64::MAX), 148);
        let shown = balance(&[day(2, -5), day(1, 5)]).into_string();
        assert!(shown.contains("the lowest \u{2212}5."), "{shown}");
    }
}

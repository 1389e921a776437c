//! Which items of a subscription took over from which.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::invoice::Invoice;
use super::subscription::Stream;

/// Which item took over from which, by subscription.
#[derive(Debug, Default)]
pub(super) struct Takeovers(BTreeMap<Stream, String>);

impl Takeovers {
    /// "An item that took over from another (a schedule's phase, a portal: same subscription, same instant, the old one
    /// gone) goes on with its stream." Two successive states tell it, or one invoice that credits the old one from the
    /// instant on from which it charges the new one.
    pub(super) fn of(facts: &Facts) -> Takeovers {
        let mut takeovers = Takeovers::default();
        for (subscription, states) in &facts.subscriptions {
            for pair in states.windows(2).filter(|pair| pair[0].is_complete && pair[1].is_complete) {
                let gone =
                    pair[0].items.iter().filter(|old| pair[1].items.iter().all(|new| new.id != old.id));
                let new = pair[1].items.iter().filter(|new| pair[0].items.iter().all(|old| old.id != new.id));
                for (old, new) in gone.zip(new) {
                    takeovers.add(subscription, &old.id, &new.id);
                }
            }
        }
        for invoice in facts.invoices.values().filter(|invoice| invoice.paid_at.is_some()) {
            takeovers.read_lines(facts, invoice);
        }
        takeovers
    }

    fn read_lines(&mut self, facts: &Facts, invoice: &Invoice) {
        let times: BTreeSet<_> =
            invoice.lines.iter().map(|line| (line.subscription.clone(), line.start)).collect();
        for (subscription, start) in times {
            let Some(subscription) = subscription else { continue };
            let billed = facts.billed_items(&subscription);
            let here = invoice.lines.iter().filter(|line| {
                line.subscription.as_ref() == Some(&subscription)
                    && line.start == start
                    && line.item.is_some()
            });
            let (mut gone, mut new) = (Vec::new(), Vec::new());
            for line in here {
                let item = line.item.clone().unwrap_or_default();
                let is_first = billed.iter().all(|(billed, from, _)| *billed != item || *from >= start);
                let goes_on =
                    billed.iter().any(|(billed, from, credit)| *billed == item && *from >= start && !credit);
                match line.amount < 0 || line.names_credited_items && line.amount == 0 {
                    true if !goes_on && !is_first && !gone.contains(&item) => gone.push(item),
                    false if is_first && !new.contains(&item) => new.push(item),
                    _ => {}
                }
            }
            for (old, new) in gone.iter().zip(&new) {
                self.add(&subscription, old, new);
            }
        }
    }

    fn add(&mut self, subscription: &str, old: &str, new: &str) {
        let key = Stream { subscription: subscription.to_owned(), item: Some(new.to_owned()) };
        // A chain that would lead back to itself is none.
        if self.stream(subscription, Some(old)).item.as_deref() != Some(new) {
            self.0.entry(key).or_insert_with(|| old.to_owned());
        }
    }

    /// The stream that an item goes on with.
    pub(super) fn stream(&self, subscription: &str, item: Option<&str>) -> Stream {
        let mut stream = Stream { subscription: subscription.to_owned(), item: item.map(str::to_owned) };
        while let Some(older) = self.0.get(&stream) {
            stream.item = Some(older.clone());
        }
        stream
    }
}

//! What must hold of credits in every history, whoever keeps the books: the pure rules, or a database.
//!
//! Each property plays a history step by step. `play` does the step, at its time, and answers what stands then.

use std::fmt;

use super::account::{Accounts, Event, Happening, Stripe};
use super::change::Start;
use super::choice::{Choice, Kind, operation};
use super::months::DAY;
use super::operation::Operation;
use super::settings::Settings;
use super::subscription::BillingMode;

/// Something to play. All times are Unix seconds and never go back.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Stripe delivers an event.
    Deliver(&'a Event),
    /// The customer spends so many credits, which are there.
    Spend {
        /// When.
        at: i64,
        /// How many.
        amount: i64,
        /// Names the spend within the history.
        number: u32,
    },
    /// Only time has passed.
    Look {
        /// Until when.
        at: i64,
    },
}

impl Step<'_> {
    /// When it happens, in Unix seconds.
    #[must_use]
    pub fn at(&self) -> i64 {
        match self {
            Step::Deliver(event) => event.at,
            Step::Spend { at, .. } | Step::Look { at } => *at,
        }
    }
}

/// What stands after a step, in credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Books {
    /// All that can be spent.
    pub balance: i64,
    /// What is owed.
    pub debt: i64,
}

/// A history in which a property does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What should hold.
    pub property: &'static str,
    /// The numbers that show that it does not.
    pub numbers: String,
    /// What happened until then.
    pub history: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not {}: {}", self.property, self.numbers)?;
        self.history.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

impl std::error::Error for Violation {}

/// The history of a customer who subscribes to pro, and of what the choices make of a menu then.
#[must_use]
pub fn history(settings: Settings, mode: BillingMode, menu: &[Kind], choices: &[Choice]) -> Vec<Happening> {
    let mut stripe = Stripe::new(settings);
    let items = vec![("price_pro", 1)];
    stripe.apply(&Operation::Subscribe { mode, items, start: Start::Paid, percent_off: 0 });
    for choice in choices {
        stripe.apply(&operation(*choice, menu, mode));
    }
    stripe.into_happenings()
}

/// No customer gains: however the customer acts, and though every credit is drawn as soon as it is there, what was drawn, less
/// what is owed, is never more than what the kept money pays for.
///
/// # Errors
/// The first moment at which it is.
pub fn exploit<P: FnMut(Step<'_>) -> Books>(history: &[Happening], play: P) -> Result<(), Violation> {
    Player::new(play).burn_all(history, |drawn, books, accounts| {
        let most = accounts.paid_for + accounts.tolerance;
        drawn + books.balance - books.debt <= most
    })
}

/// No customer loses: if every credit is drawn as soon as it is there, what was drawn, less what is owed, is never less than
/// what the kept money pays for, without what is to come.
///
/// It does not hold of histories in which a policy sets aside what is paid for, or a discount made something free.
///
/// # Errors
/// The first moment at which it is.
pub fn fair<P: FnMut(Step<'_>) -> Books>(history: &[Happening], play: P) -> Result<(), Violation> {
    Player::new(play).burn_all(history, |drawn, books, accounts| {
        let least = accounts.paid_for - accounts.to_come - accounts.tolerance;
        drawn + books.balance - books.debt >= least
    })
}

/// Who pays and never goes down has the whole amount of what was just paid, and owes nothing (but for what rounding leaves),
/// whatever was spent before: of what is there, the shares of 255 that `spends` says, in turn.
///
/// # Errors
/// The first moment at which it is not so.
pub fn honest<P: FnMut(Step<'_>) -> Books>(
    history: &[Happening],
    spends: &[u8],
    play: P,
) -> Result<(), Violation> {
    let mut player = Player::new(play);
    for (index, happening) in history.iter().enumerate() {
        player.deliver(&happening.events);
        let books = player.look(happening.at);
        let bought = happening.usable;
        if books.debt > happening.accounts.tolerance || books.balance < bought.credits - bought.tolerance {
            let numbers = format!("{books:?}, just bought {bought:?}");
            return Err(player.violation("honest", numbers, &history[..=index]));
        }
        if !spends.is_empty() {
            let share = i64::from(spends[index % spends.len()]);
            player.spend(happening.at, books.balance * share / 255);
        }
    }
    Ok(())
}

/// How often credits that come in parts are drawn, in seconds: more often than a part lapses.
const BURN_EVERY: i64 = 14 * DAY;

struct Player<P> {
    play: P,
    drawn: i64,
    spends: u32,
    clock: i64,
    books: Books,
    log: Vec<String>,
}

impl<P: FnMut(Step<'_>) -> Books> Player<P> {
    fn new(play: P) -> Self {
        Player { play, drawn: 0, spends: 0, clock: 0, books: Books::default(), log: Vec::new() }
    }

    fn deliver(&mut self, events: &[Event]) {
        for event in events {
            self.clock = self.clock.max(event.at);
            self.books = (self.play)(Step::Deliver(event));
            self.log.push(format!("{} {} -> {:?}", event.at, event.event_type, self.books));
        }
    }

    fn look(&mut self, at: i64) -> Books {
        self.clock = self.clock.max(at);
        self.books = (self.play)(Step::Look { at: self.clock });
        self.books
    }

    fn spend(&mut self, at: i64, amount: i64) {
        if amount > 0 {
            self.clock = self.clock.max(at);
            self.spends += 1;
            let before = self.books.balance;
            let step = Step::Spend { at: self.clock, amount, number: self.spends };
            self.books = (self.play)(step);
            self.drawn += before - self.books.balance;
            self.log.push(format!("{} spend {amount} -> {:?}", self.clock, self.books));
        }
    }

    fn burn(&mut self, at: i64) {
        let balance = self.look(at).balance;
        self.spend(at, balance);
    }

    /// Plays all of it, draws everything whenever something can have changed, and checks after each happening.
    fn burn_all(
        mut self,
        history: &[Happening],
        holds: impl Fn(i64, Books, &Accounts) -> bool,
    ) -> Result<(), Violation> {
        for (index, happening) in history.iter().enumerate() {
            let begins = happening.events.first().map_or(happening.at, |event| event.at);
            while self.clock > 0 && self.clock + BURN_EVERY < begins {
                self.burn(self.clock + BURN_EVERY);
            }
            if self.clock > 0 && self.clock < begins {
                self.burn(begins - 1);
            }
            for event in &happening.events {
                self.deliver(std::slice::from_ref(event));
                self.burn(event.at);
            }
            self.burn(happening.at);
            if !holds(self.drawn, self.books, &happening.accounts) {
                let numbers = format!("drawn {}, {:?}, {:?}", self.drawn, self.books, happening.accounts);
                return Err(self.violation("within what the money pays for", numbers, &history[..=index]));
            }
        }
        Ok(())
    }

    fn violation(&self, property: &'static str, numbers: String, history: &[Happening]) -> Violation {
        let mut lines: Vec<String> =
            history.iter().map(|happening| format!("{} {}", happening.at, happening.what)).collect();
        lines.push("played:".to_owned());
        lines.extend(self.log.iter().cloned());
        Violation { property, numbers, history: lines }
    }
}

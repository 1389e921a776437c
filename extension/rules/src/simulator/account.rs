//! One customer at Stripe: what is known, the clock, and the log of what happened.

use serde_json::Value;

use super::lines::Lines;
use super::objects::Objects;
use super::payment::Payment;
use super::price::Price;
use super::reversal::Reversal;
use super::settings::Settings;
use super::subscription::Subscription;

/// An event that Stripe sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happens, in Unix seconds.
    pub at: i64,
    /// Its type.
    pub event_type: String,
    /// All of it, envelope included.
    pub body: Value,
}

/// The customer's money at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounts {
    /// All that was ever paid by card, in cents.
    pub paid: i64,
    /// What went back to the card or by hand, in cents.
    pub returned: i64,
    /// The customer's credit at Stripe, in cents; below 0 if the customer owes something.
    pub credit: i64,
    /// The part of paid that stayed and bought something: what was paid, less what went back, less the credit, in cents.
    pub kept: i64,
    /// What the kept money pays for, in credits at the prices' rates, before any discount.
    pub paid_for: i64,
    /// How much of `paid_for` at most cannot be used yet, in credits.
    pub to_come: i64,
    /// By how many credits the worth of what was billed may be another than its money's: rounding, seconds, months.
    pub tolerance: i64,
}

/// Something that happened at one moment: an operation, a renewal, an end.
#[derive(Debug, Clone)]
pub struct Happening {
    /// When it was over, in Unix seconds.
    pub at: i64,
    /// What it was.
    pub what: String,
    /// The events that it caused, in order.
    pub events: Vec<Event>,
    /// The money once it was over.
    pub accounts: Accounts,
    /// What its payments bought for use at once.
    pub usable: Usable,
}

/// What payments bought for use at once, in credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usable {
    /// How many credits.
    pub credits: i64,
    /// How many of them rounding, seconds and months may cost.
    pub tolerance: i64,
}

/// One customer at Stripe.
#[derive(Debug)]
pub struct Stripe {
    pub(super) settings: Settings,
    pub(super) objects: Objects,
    pub(super) now: i64,
    pub(super) lines: Lines,
    pub(super) last_id: u32,
    pub(super) last_event: u32,
    pub(super) card_works: bool,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) payments: Vec<Payment>,
    pub(super) reversals: Vec<Reversal>,
    pub(super) paid: i64,
    pub(super) returned: i64,
    pub(super) credit: i64,
    pub(super) usable: Usable,
    pub(super) events: Vec<Event>,
    pub(super) happenings: Vec<Happening>,
}

impl Stripe {
    /// A customer who has bought nothing yet and whose card works.
    #[must_use]
    pub fn new(settings: Settings) -> Stripe {
        Stripe {
            objects: Objects::new(&settings),
            now: settings.begins_at,
            lines: Lines { months: settings.months, last_number: 0 },
            last_id: 0,
            last_event: 0,
            card_works: true,
            subscriptions: Vec::new(),
            payments: Vec::new(),
            reversals: Vec::new(),
            paid: 0,
            returned: 0,
            credit: 0,
            usable: Usable::default(),
            events: Vec::new(),
            happenings: Vec::new(),
            settings,
        }
    }

    /// The clock, in Unix seconds.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The customer's subscriptions, oldest first, ended ones too.
    #[must_use]
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// The customer's invoices and sessions, oldest first.
    #[must_use]
    pub fn payments(&self) -> &[Payment] {
        &self.payments
    }

    /// What has happened so far.
    #[must_use]
    pub fn happenings(&self) -> &[Happening] {
        &self.happenings
    }

    /// What has happened.
    #[must_use]
    pub fn into_happenings(self) -> Vec<Happening> {
        self.happenings
    }

    /// The money at this moment.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let lines = self.payments.iter().flat_map(|payment| &payment.lines);
        let roundings = self.payments.len() + self.reversals.len() + 2;
        Accounts {
            paid: self.paid,
            returned: self.returned,
            credit: self.credit,
            kept: self.paid - self.returned - self.credit,
            paid_for: self.payments.iter().map(Payment::worth).sum(),
            to_come: self.payments.iter().map(|payment| payment.to_come(self.now)).sum(),
            tolerance: lines.map(|line| line.tolerance).sum::<i64>() + i64::try_from(roundings).unwrap_or(0),
        }
    }

    /// The price of that id.
    ///
    /// # Panics
    /// If it is not sold.
    #[must_use]
    pub fn price(&self, id: &str) -> &'static Price {
        self.settings.prices.iter().find(|price| price.id == id).expect("a price of the settings")
    }

    pub(super) fn next_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        self.objects.id(prefix, self.last_id)
    }

    /// Runs `act`, and logs what it caused as one happening.
    pub(super) fn happens<T>(&mut self, what: String, act: impl FnOnce(&mut Self) -> T) -> T {
        self.usable = Usable::default();
        let answer = act(self);
        self.happenings.push(Happening {
            at: self.now,
            what,
            events: std::mem::take(&mut self.events),
            accounts: self.accounts(),
            usable: self.usable,
        });
        answer
    }

    /// Counts what a payment bought for use at once.
    pub(super) fn count_usable(&mut self, payment: usize) {
        let payment = &self.payments[payment];
        self.usable.credits += payment.usable(self.now);
        self.usable.tolerance += 1 + payment.lines.iter().map(|line| line.tolerance).sum::<i64>();
    }

    /// Sends an event of an object.
    pub(super) fn tell(&mut self, event_type: &str, object: &Value) {
        self.last_event += 1;
        let body = self.objects.event(&self.last_event.to_string(), self.now, event_type, object);
        self.events.push(Event { at: self.now, event_type: event_type.to_owned(), body });
    }

    /// Sends a subscription as it is now. Two events of one subscription in one second could not be distinguished, so the
    /// clock moves on by one, unless they may share it.
    pub(super) fn tell_subscription(&mut self, index: usize, verb: &str) {
        let subscription = &mut self.subscriptions[index];
        if subscription.last_event_at == Some(self.now) && !self.settings.may_share_seconds {
            self.now += 1;
        }
        subscription.last_event_at = Some(self.now);
        let object = self.objects.subscription(subscription);
        self.tell(&format!("customer.subscription.{verb}"), &object);
    }
}

/// The event that says that the customer's test clock stands at `now`, in Unix seconds.
#[must_use]
pub fn clock_event(settings: &Settings, now: i64) -> Event {
    let event_type = "test_helpers.test_clock.ready";
    let objects = Objects::new(settings);
    let clock = objects.test_clock(settings.begins_at, now);
    let body = objects.event(&format!("clock_{now}"), now, event_type, &clock);
    Event { at: now, event_type: event_type.to_owned(), body }
}

//! Stripe's part: it sells, and delivers each event until it is answered 2xx, some twice, none in order.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use xtask::{Result, signals};

use super::progress::{PATIENCE, Progress};
use super::sales::{Sale, sale};
use super::verdict::Payment;
use crate::fake_stripe::FakeStripe;
use crate::seeds::Rng;
use crate::shim::deliver;
use crate::stripe::Event;
use crate::tokens::token;
use crate::user;
use crate::wire::{Answer, Wire, request};

/// The users of all senders.
pub(super) const USERS: usize = 16;
/// A new sale is made while fewer events than this wait to be delivered.
const BACKLOG: usize = 12;
/// How long a sender rests after each delivery, and after one that failed; hours at the real Stripe.
const PACE: Duration = Duration::from_millis(10);
const RETRY: Duration = Duration::from_millis(50);
/// Of so many acknowledged events, one is delivered once more.
const DUPLICATES: usize = 6;
/// Of so many sales by a session, one is also reconciled by the buyer's browser.
const RECONCILES: usize = 6;

/// One of Stripe's workers that deliver.
pub(super) struct Sender {
    name: usize,
    rng: Rng,
    queue: VecDeque<Delivery>,
    sales: Vec<Sold>,
    pub(super) tally: Tally,
}

/// What a sender did.
#[derive(Default)]
pub(super) struct Tally {
    /// Answers by status, outcome and reason; a connection that broke is one of them.
    pub(super) answers: BTreeMap<String, u64>,
    pub(super) duplicates: u64,
    pub(super) reconciles: u64,
    pub(super) refunds_and_disputes: u64,
}

struct Delivery {
    sale: usize,
    event: Event,
    is_duplicate: bool,
}

/// A sale, and how many of its events are not acknowledged yet.
struct Sold {
    payments: Vec<Payment>,
    waiting: usize,
}

impl Sender {
    pub(super) fn new(seed: u64, name: usize) -> Sender {
        let rng = Rng::new(seed.wrapping_add(name as u64));
        Sender { name, rng, queue: VecDeque::new(), sales: Vec::new(), tally: Tally::default() }
    }

    /// Sells and delivers until the run is over and every event is acknowledged, or for a while after its end.
    pub(super) fn run(&mut self, progress: &Progress, shim: SocketAddr, stripe: &FakeStripe) -> Result<()> {
        let mut over_since = None;
        loop {
            signals::check()?;
            if progress.is_over() {
                let since: &mut Instant = over_since.get_or_insert_with(Instant::now);
                if self.queue.is_empty() || since.elapsed() > PATIENCE {
                    return Ok(());
                }
            } else if self.queue.len() < BACKLOG {
                self.sell(shim, stripe);
            }
            if let Some(delivery) = self.queue.pop_front() {
                self.deliver(delivery, progress, shim);
            }
        }
    }

    /// Every payment, with whether it was acknowledged.
    pub(super) fn payments(&self) -> impl Iterator<Item = Payment> {
        self.sales.iter().flat_map(|sale| {
            let is_acknowledged = sale.waiting == 0;
            sale.payments.iter().map(move |payment| Payment { is_acknowledged, ..payment.clone() })
        })
    }

    fn sell(&mut self, shim: SocketAddr, stripe: &FakeStripe) {
        let number = self.sales.len();
        let user = user(1 + self.rng.below(USERS) as u128);
        let Sale { payments, events, objects, session } =
            sale(&mut self.rng, &format!("{}x{number}", self.name), user);
        for (path, object) in objects {
            stripe.knows_at(&path, object);
        }
        let reconciled = session.map(|session| {
            let id = session["id"].clone();
            stripe.knows_session(session);
            id
        });
        self.tally.refunds_and_disputes +=
            payments.iter().filter(|payment| payment.was_reversed).count() as u64;
        self.sales.push(Sold { payments, waiting: events.len() });
        for event in events {
            self.enqueue(Delivery { sale: number, event, is_duplicate: false });
        }
        if let Some(id) = reconciled.filter(|_| self.rng.once_in(RECONCILES)) {
            self.tally.reconciles += 1;
            let body = json!({ "session_id": id }).to_string();
            let bearer = format!("Bearer {}", token(user));
            let path = "/reconcile-stripe-credit-pack";
            let bytes = request("POST", path, &[("Authorization", &bearer)], body.as_bytes());
            // Whatever it is answered: the webhook comes in any case.
            let _ = Wire::try_open(shim).and_then(|mut wire| wire.send(&bytes).and_then(|()| wire.answer()));
        }
    }

    /// Somewhere among what waits already.
    fn enqueue(&mut self, delivery: Delivery) {
        let place = self.rng.below(self.queue.len() + 1);
        self.queue.insert(place, delivery);
    }

    fn deliver(&mut self, delivery: Delivery, progress: &Progress, shim: SocketAddr) {
        let sent = Instant::now();
        let answer = deliver(shim, &delivery.event);
        let summary = answer.as_ref().map_or_else(|_| "no answer".to_owned(), Answer::summary);
        *self.tally.answers.entry(summary).or_default() += 1;
        if !answer.is_ok_and(|answer| answer.status == 200) {
            self.queue.push_back(delivery);
            thread::sleep(RETRY);
            return;
        }
        progress.acknowledge(sent);
        if !delivery.is_duplicate {
            self.sales[delivery.sale].waiting -= 1;
            if self.rng.once_in(DUPLICATES) {
                self.tally.duplicates += 1;
                self.enqueue(Delivery { is_duplicate: true, ..delivery });
            }
        }
        thread::sleep(PACE);
    }
}

//! Operations from numbers: what random histories are made of.

use super::change::{Anchor, Proration, Start};
use super::ending::CancelAt;
use super::months::DAY;
use super::operation::{BoughtBy, Operation, Portion, Up};
use super::reversal::NoteWay;
use super::subscription::BillingMode;

/// One operation as four numbers: its kind's place on the menu, and what it is done to and with. Smaller numbers make
/// plainer operations, so that a failing history shrinks to a plain one.
pub type Choice = [u8; 4];

/// A kind of operation; a menu is a list of them, the likelier ones more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the operations say what they are")]
pub enum Kind {
    Wait,
    Renew,
    RenewLate,
    Subscribe,
    SubscribeWithTrial,
    SubscribeWithPart,
    SubscribeDiscounted,
    Price,
    /// To a higher price, or to more units.
    Up,
    /// To the year.
    ToYear,
    Quantity,
    Anchor,
    AddItem,
    RemoveItem,
    ReplaceItem,
    Trial,
    Cancel,
    CancelLater,
    Keep,
    Collection,
    Pause,
    Resume,
    Buy,
    Card,
    Pay,
    Refund,
    FailRefund,
    Dispute,
    CloseDispute,
    CreditNote,
}

/// What a customer can do, or make a merchant do, to have more than was paid for.
pub const EVERYTHING: &[Kind] = &[
    Kind::Wait,
    Kind::Price,
    Kind::Quantity,
    Kind::Wait,
    Kind::Renew,
    Kind::Buy,
    Kind::Price,
    Kind::Anchor,
    Kind::AddItem,
    Kind::RemoveItem,
    Kind::ReplaceItem,
    Kind::Cancel,
    Kind::CancelLater,
    Kind::Keep,
    Kind::Subscribe,
    Kind::Trial,
    Kind::Collection,
    Kind::Pause,
    Kind::Resume,
    Kind::Card,
    Kind::Pay,
    Kind::Refund,
    Kind::Refund,
    Kind::FailRefund,
    Kind::Dispute,
    Kind::CloseDispute,
    Kind::CreditNote,
    Kind::SubscribeWithTrial,
    Kind::SubscribeWithPart,
];

/// The same without what gives money back or leaves invoices unpaid.
pub const CHANGES: &[Kind] = &[
    Kind::Wait,
    Kind::Price,
    Kind::Quantity,
    Kind::Wait,
    Kind::Renew,
    Kind::Buy,
    Kind::Anchor,
    Kind::AddItem,
    Kind::RemoveItem,
    Kind::ReplaceItem,
    Kind::Cancel,
    Kind::CancelLater,
    Kind::Subscribe,
];

/// What an honest customer does: pays, if late, and never goes down.
pub const HONEST: &[Kind] = &[Kind::Wait, Kind::Renew, Kind::Up, Kind::Buy, Kind::RenewLate, Kind::Renew];

/// The same in flexible billing, with years and moved anchors.
pub const HONEST_FLEXIBLE: &[Kind] =
    &[Kind::Wait, Kind::Renew, Kind::Up, Kind::Buy, Kind::ToYear, Kind::Anchor, Kind::Renew];

const PLANS: [&str; 4] = ["price_pro", "price_max", "price_roll", "price_pro_year"];
const ADDED: [&str; 3] = ["price_seat", "price_pro", "price_pack_month"];
const BUNDLES: [&[(&str, i64)]; 5] = [
    &[("price_pro", 1)],
    &[("price_max", 1)],
    &[("price_pro", 1), ("price_seat", 3)],
    &[("price_pack_month", 2)],
    &[("price_quarter", 1)],
];
const WAITS: [i64; 6] = [60, 3600, 5 * DAY, 10 * DAY, 15 * DAY, 31 * DAY];
const PRORATIONS: [Proration; 4] =
    [Proration::Invoice, Proration::Create, Proration::None, Proration::Invoice];

/// The operation that a choice makes of a menu, in a billing mode.
#[must_use]
pub fn operation([kind, to, how, with]: Choice, menu: &[Kind], mode: BillingMode) -> Operation {
    let kind = pick(kind, menu);
    let (subscription, item) = (usize::from(to) % 2, usize::from(to / 2) % 3);
    let proration = pick(how, &PRORATIONS);
    let paying = if how.is_multiple_of(2) { Proration::Invoice } else { Proration::Create };
    let anchor = if with.is_multiple_of(2) { Anchor::Unchanged } else { Anchor::Now };
    let seats = Some(pick(with / 2, &[1, 2, 5, 100]));
    let change = |price: Option<&'static str>, quantity, proration, anchor| Operation::Change {
        subscription,
        item,
        price,
        quantity,
        proration,
        anchor,
    };
    match kind {
        Kind::Wait => Operation::Wait(pick(to, &WAITS)),
        Kind::Renew => Operation::Renew { subscription },
        Kind::RenewLate => Operation::RenewLate { subscription, days: pick(how, &[1, 35]) },
        Kind::Price => change(Some(pick(with / 2, plans(mode))), None, proration, anchor),
        Kind::Up => {
            let way = pick(with / 2, &[Up::To("price_max"), Up::By(1), Up::By(3)]);
            Operation::GoUp { subscription, way, proration: paying, anchor }
        }
        Kind::ToYear => {
            let (proration, anchor) = (Proration::Invoice, Anchor::Unchanged);
            Operation::GoUp { subscription, way: Up::To("price_pro_year"), proration, anchor }
        }
        Kind::Quantity => change(None, seats, proration, anchor),
        Kind::Anchor => change(None, None, paying, Anchor::Now),
        Kind::AddItem => {
            Operation::AddItem { subscription, price: pick(with, &ADDED), quantity: 1, proration: paying }
        }
        Kind::RemoveItem => Operation::RemoveItem { subscription, item, proration },
        Kind::ReplaceItem => {
            Operation::ReplaceItem { subscription, item, price: pick(with, &PLANS[..3]), proration }
        }
        Kind::Cancel => Operation::Cancel { subscription, proration },
        Kind::CancelLater => {
            let when = pick(how, &[CancelAt::PeriodEnd, CancelAt::PeriodEndByDate, CancelAt::Days(20)]);
            Operation::CancelLater { subscription, when }
        }
        Kind::Keep => Operation::Keep { subscription },
        Kind::Trial if how.is_multiple_of(2) => Operation::EndTrial { subscription },
        Kind::Trial => Operation::ExtendTrial { subscription, days: 20 },
        Kind::Collection if how.is_multiple_of(2) => Operation::ResumeCollection { subscription },
        Kind::Collection => Operation::PauseCollection { subscription },
        Kind::Pause => Operation::Pause { subscription },
        Kind::Resume => Operation::Resume { subscription, anchor, proration },
        Kind::Buy => buy(how, with),
        _ => beginning(kind, how, with, mode).unwrap_or_else(|| money(kind, to, how)),
    }
}

fn beginning(kind: Kind, how: u8, with: u8, mode: BillingMode) -> Option<Operation> {
    let items = pick(with, &BUNDLES).to_vec();
    let (start, percent_off) = match kind {
        Kind::Subscribe => (Start::Paid, 0),
        Kind::SubscribeWithTrial => (Start::Trial(14), 0),
        Kind::SubscribeWithPart => (pick(how, &[Start::Part(10), Start::Part(20)]), 0),
        Kind::SubscribeDiscounted => (Start::Paid, pick(how, &[50, 100])),
        _ => return None,
    };
    Some(Operation::Subscribe { mode, items, start, percent_off })
}

fn buy(how: u8, with: u8) -> Operation {
    let by = pick(how, &[BoughtBy::Session, BoughtBy::Invoice]);
    Operation::Buy { price: "price_pack", quantity: pick(with, &[1, 3]), by }
}

fn money(kind: Kind, to: u8, how: u8) -> Operation {
    let place = usize::from(to);
    let portion = pick(how, &[Portion::Whole, Portion::Third, Portion::Cents(1)]);
    match kind {
        Kind::Card if how.is_multiple_of(2) => Operation::CardWorks,
        Kind::Card => Operation::CardFails,
        Kind::Pay => Operation::Pay { invoice: place },
        Kind::Refund => Operation::Refund { payment: place, portion },
        Kind::FailRefund => Operation::FailRefund { refund: place },
        Kind::Dispute => Operation::Dispute { payment: place, portion },
        Kind::CloseDispute if how.is_multiple_of(2) => Operation::WinDispute { dispute: place },
        Kind::CloseDispute => Operation::LoseDispute { dispute: place },
        _ => {
            let way = pick(how / 3, &[NoteWay::Credit, NoteWay::Card, NoteWay::ByHand]);
            Operation::CreditNote { invoice: place, portion, way }
        }
    }
}

/// Classic billing has one interval in a subscription, and the rest of a year at another's rate is not a cent a credit by
/// the month.
fn plans(mode: BillingMode) -> &'static [&'static str] {
    match mode {
        BillingMode::Classic => &PLANS[..3],
        BillingMode::Flexible => &PLANS,
    }
}

/// The element at that place, counted around.
fn pick<T: Copy>(place: u8, of: &[T]) -> T {
    of[usize::from(place) % of.len()]
}

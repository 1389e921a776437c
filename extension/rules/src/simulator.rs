//! A simulator of Stripe's billing of one customer, for tests: operations in, events and exact accounts of the money out.
//!
//! [`Stripe`] is a customer with subscriptions, a card and a credit at Stripe. Each [`Operation`] moves the clock on and
//! logs [`Happening`]s: the events that Stripe would send, in one of both shapes of its API, and the money that has
//! stayed by then. [`Choice`] makes operations from numbers, so that random histories shrink; [`exploit`], [`fair`] and
//! [`honest`] say what must hold of credits in every history, whoever keeps the books.
//!
//! In reading order, each using only those before it:
//!
//! 1. `price`, `months`, `settings`: what is sold, how long a month is, what is simulated;
//! 2. `line`, `subscription`, `lines`: periods, and what is billed of them;
//! 3. `payment`, `reversal`: what is paid, what its money buys, what goes back;
//! 4. `objects`, `account`: Stripe's JSON; the customer, the clock, the log;
//! 5. `billing`, `change`, `ending`, `money_back`: what happens by itself, by choice, and backwards;
//! 6. `operation`, `choice`: histories as data;
//! 7. `properties`: what must hold.
//!
//! It knows nothing of the rules. Not simulated: tax, several currencies, metered and tiered prices, schedules' phases
//! other than an item that another replaces, pending updates, prebilling, dunning's end, several charges for one invoice,
//! credit notes that are voided, and what pends of a canceled subscription (it is never billed).

mod price;
mod months;
mod settings;
mod line;
mod subscription;
mod lines;
mod payment;
mod reversal;
mod objects;
mod account;
mod billing;
mod change;
mod ending;
mod money_back;
mod operation;
mod choice;
mod properties;
#[cfg(test)]
mod tests;

pub use account::{Accounts, Event, Happening, Stripe, Usable, clock_event};
pub use change::{Anchor, Proration, Start};
pub use choice::{CHANGES, Choice, EVERYTHING, HONEST, HONEST_FLEXIBLE, Kind, operation};
pub use ending::CancelAt;
pub use line::{Line, LineKind};
pub use months::{DAY, Months};
pub use operation::{BoughtBy, Operation, Portion, Up};
pub use payment::{InvoiceStatus, Payment, PaymentKind};
pub use price::{PRICES, Policies, Price, catalog};
pub use properties::{Books, Step, Violation, exploit, fair, history, honest};
pub use reversal::{NoteWay, Reversal, ReversalKind};
pub use settings::{Api, Settings};
pub use subscription::{BillingMode, Item, Status, Subscription};

//! Whether the books are what was paid for and asked for: a pure function over what the harness did and what the
//! database says.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

/// Something that was paid for once: a checkout session, an invoice, a month of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its name, as in [`Granted::payment`].
    pub id: String,
    /// Who paid.
    pub user: Uuid,
    /// The credits that it buys.
    pub credits: i64,
    /// The part of them that is left once refunds and disputes took theirs.
    pub kept: i64,
    /// Whether a refund or a dispute was about it, even if nothing is taken back in the end.
    pub was_reversed: bool,
    /// Whether Stripe was answered 2xx for every event that says that it was paid.
    pub is_acknowledged: bool,
}

/// A call of the app's with an id of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The request id.
    pub id: String,
    /// Whose credits.
    pub user: Uuid,
    /// What the ledger may hold of it: one sum if the app had its answer, more if it gave up without one.
    pub sums: Vec<i64>,
}

/// What the harness did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// What was paid for.
    pub payments: Vec<Payment>,
    /// What the app asked for.
    pub requests: Vec<Request>,
}

/// What the database says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The checkout session or invoice, or `sub_…@start of the period`.
    pub payment: String,
    /// Whose grant.
    pub user: Uuid,
    /// The sum of the ledger rows that granted credits for it.
    pub posted: i64,
    /// What its grants are worth now.
    pub worth: i64,
}

/// The sum of the ledger rows of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The request id.
    pub request: String,
    /// Whose ledger.
    pub user: Uuid,
    /// The sum.
    pub sum: i64,
}

/// What the database says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// A row for each payment and user.
    pub granted: Vec<Granted>,
    /// A row for each request and user.
    pub posted: Vec<Posted>,
}

/// One way in which the books are wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "Display says each of them")]
pub enum Finding {
    LostGrant { payment: String },
    DoubledGrant { payment: String, credits: i64, posted: i64 },
    UnpaidGrant { payment: String, posted: i64 },
    UnacknowledgedPayment { payment: String },
    WrongGrant { payment: String, credits: i64, posted: i64 },
    WrongUser { payment: String },
    WrongWorth { payment: String, kept: i64, worth: i64 },
    LostSpend { request: String, sums: Vec<i64> },
    DoubledSpend { request: String, sum: i64 },
    WrongSpend { request: String, sums: Vec<i64>, sum: i64 },
    UnaskedSpend { request: String, sum: i64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Finding::LostGrant { payment } => {
                write!(f, "{payment} was paid and acknowledged, and grants nothing")
            }
            Finding::DoubledGrant { payment, credits, posted } => {
                write!(f, "{payment} granted {posted}, a multiple of its {credits}")
            }
            Finding::UnpaidGrant { payment, posted } => {
                write!(f, "{payment} granted {posted}, and nobody paid it")
            }
            Finding::UnacknowledgedPayment { payment } => write!(f, "{payment} was never acknowledged"),
            Finding::WrongGrant { payment, credits, posted } => {
                write!(f, "{payment} granted {posted} instead of {credits}")
            }
            Finding::WrongUser { payment } => write!(f, "{payment} granted to another user"),
            Finding::WrongWorth { payment, kept, worth } => {
                write!(f, "{payment} is worth {worth} instead of {kept} after what was taken back")
            }
            Finding::LostSpend { request, sums } => {
                write!(f, "{request} was acknowledged as {sums:?}, and the ledger has nothing")
            }
            Finding::DoubledSpend { request, sum } => {
                write!(f, "{request} is in the ledger more than once: {sum}")
            }
            Finding::WrongSpend { request, sums, sum } => {
                write!(f, "{request} came to {sum} instead of {sums:?}")
            }
            Finding::UnaskedSpend { request, sum } => {
                write!(f, "{request} came to {sum}, and nobody asked for it")
            }
        }
    }
}

/// Everything in which the books differ from what was done.
#[must_use]
pub fn compare(journal: &Journal, books: &Books) -> Vec<Finding> {
    let mut findings = payments(journal, books);
    findings.extend(requests(journal, books));
    findings.sort();
    findings
}

fn payments(journal: &Journal, books: &Books) -> Vec<Finding> {
    let mut granted: BTreeMap<&str, Vec<&Granted>> = BTreeMap::new();
    for row in &books.granted {
        granted.entry(&row.payment).or_default().push(row);
    }
    let mut findings = Vec::new();
    for paid in &journal.payments {
        let rows = granted.remove(paid.id.as_str()).unwrap_or_default();
        findings.extend(payment(paid, &rows));
    }
    findings.extend(granted.into_iter().map(|(payment, rows)| Finding::UnpaidGrant {
        payment: payment.to_owned(),
        posted: rows.iter().map(|row| row.posted).sum(),
    }));
    findings
}

fn payment(paid: &Payment, rows: &[&Granted]) -> Option<Finding> {
    let payment = paid.id.clone();
    let credits = paid.credits;
    let posted = rows.iter().map(|row| row.posted).sum::<i64>();
    let worth = rows.iter().map(|row| row.worth).sum::<i64>();
    if !paid.is_acknowledged {
        return Some(Finding::UnacknowledgedPayment { payment });
    }
    if rows.is_empty() {
        return Some(Finding::LostGrant { payment });
    }
    if rows.iter().any(|row| row.user != paid.user) {
        return Some(Finding::WrongUser { payment });
    }
    // What was refunded before it was granted is never posted, so that only a sum above the credits says anything.
    let is_right = if paid.was_reversed { (0..=credits).contains(&posted) } else { posted == credits };
    match (is_right, posted) {
        (true, _) if worth == paid.kept => None,
        (true, _) => Some(Finding::WrongWorth { payment, kept: paid.kept, worth }),
        (false, 0) => Some(Finding::LostGrant { payment }),
        (false, _) if posted % credits == 0 => Some(Finding::DoubledGrant { payment, credits, posted }),
        (false, _) => Some(Finding::WrongGrant { payment, credits, posted }),
    }
}

fn requests(journal: &Journal, books: &Books) -> Vec<Finding> {
    let mut posted: BTreeMap<(&str, Uuid), i64> =
        books.posted.iter().map(|row| ((row.request.as_str(), row.user), row.sum)).collect();
    let mut findings: Vec<Finding> = journal
        .requests
        .iter()
        .filter_map(|asked| {
            let sum = posted.remove(&(asked.id.as_str(), asked.user)).unwrap_or(0);
            let (request, sums) = (asked.id.clone(), asked.sums.clone());
            match sum {
                _ if sums.contains(&sum) => None,
                0 => Some(Finding::LostSpend { request, sums }),
                _ if sums.iter().any(|once| *once != 0 && sum % once == 0 && sum / once > 1) => {
                    Some(Finding::DoubledSpend { request, sum })
                }
                _ => Some(Finding::WrongSpend { request, sums, sum }),
            }
        })
        .collect();
    findings.extend(
        posted
            .into_iter()
            .filter(|(_, sum)| *sum != 0)
            .map(|((request, _), sum)| Finding::UnaskedSpend { request: request.to_owned(), sum }),
    );
    findings
}

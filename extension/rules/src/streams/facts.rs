//! The facts that plan credits are computed from, each as its own object says it. Facts only grow; nothing here is judged.

use std::fmt;

use crate::amount::{Credits, MinorUnits};
use crate::calendar::{Span, Time};
use crate::catalog::{
    Cancellation, NoPaymentRequired, PlanChange, Price, PriceKind, Renewal, ReversalPolicy,
};
use crate::lot::Pool;

/// Everything known of one user, as far back as [`horizon`](super::horizon::horizon) says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The payments that the lines name.
    pub payments: Vec<Payment>,
    /// The lines of paid invoices whose price the catalog knows; lines of usage-based prices are left out.
    pub lines: Vec<Line>,
    /// Lines from before the horizon that decide the trial and the first purchase's bonus: those of the earliest purchase
    /// that still stands, and the earliest line of 0 of a plan with trial credits. They open no period. Empty where
    /// `lines` goes back to the beginning.
    pub first_lines: Vec<Line>,
    /// The newest state of each subscription.
    pub subscriptions: Vec<SubscriptionState>,
    /// Every state of each subscription item, or every one whose content changed.
    pub items: Vec<ItemState>,
    /// Packs bought by sessions and payment intents, and what was given: grants that depend on no other fact.
    pub singles: Vec<Single>,
    /// Those who had a subscription of this user before: of each subscription, whom it left first comes first.
    pub former: Vec<FormerUser>,
    /// How far back `lines` goes; `None`: to the beginning.
    pub horizon: Option<Time>,
    /// Whether a line that a discount brought to 0 grants.
    pub no_payment_required: NoPaymentRequired,
}

/// A paid invoice, or a direct call that stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The `source_id` of the payment.
    pub id: String,
    /// When it was paid: the invoice's own time, or the earliest event in which it was paid.
    pub paid_at: Time,
    /// Refunds, disputes and credit notes.
    pub came_back: CameBack,
    /// Cents of the invoice's credit lines of catalog prices, as a number above 0. Read only if a part came back.
    pub credited: MinorUnits,
    /// Cents of all its other lines, after discounts. Read only if a part came back.
    pub charged: MinorUnits,
    /// Whether it is a direct call that names no invoice: an invoice's line of the same subscription, price and period
    /// replaces its line.
    pub direct: bool,
    /// When it became known, in one order with [`Draw::recorded_at`]: what was drawn before a fact was known stands before it,
    /// even if the fact's own time is earlier.
    pub known_at: Time,
}

/// How much of a payment came back (rule 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CameBack {
    /// In cents; more than `of` counts as `of`.
    pub amount: MinorUnits,
    /// What was charged, in cents; nothing can come back of 0 or less.
    pub of: MinorUnits,
    /// What becomes of credits that were drawn before: as decided when the reversal was first posted.
    pub policy: ReversalPolicy,
}

impl CameBack {
    /// Nothing came back.
    pub const NOTHING: CameBack =
        CameBack { amount: MinorUnits(0), of: MinorUnits(0), policy: ReversalPolicy::Debt };
}

/// A line of a paid invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The [`Payment::id`] of its invoice.
    pub payment: String,
    /// `sub_…`; a pack's line may have none.
    pub subscription: Option<String>,
    /// `si_…`; lines that name none form one stream of their subscription.
    pub item: Option<String>,
    /// The price id.
    pub price: String,
    /// What the price is worth, as in force for this line (rule 4).
    pub terms: Terms,
    /// 0 for a flat fee's line.
    pub quantity: i64,
    /// Before discounts; of a proration, Stripe has subtracted them already.
    pub amount: MinorUnits,
    /// Of `amount`: what discounts take.
    pub discount: MinorUnits,
    /// Whether its invoice or subscription carries a discount.
    pub is_discounted: bool,
    /// What it bills for.
    pub period: Period,
    /// Stripe's own flag.
    pub is_proration: bool,
    /// Whether it names the lines that it credits.
    pub names_credited: bool,
    /// Stripe's interval of the price, if it is known.
    pub interval: Option<Span>,
}

/// What one unit of a price is worth, and the policies of its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A plan or a pack; lines of anything else are ignored.
    pub kind: PriceKind,
    /// Of one unit for one `every`; of one part where it drips.
    pub credits: Credits,
    /// The billing interval, where Stripe's is not known.
    pub every: Span,
    /// A plan's period comes in parts of this span.
    pub drip: Option<Span>,
    /// The most that an opening period leaves of those before it; 0 under `renewal: reset`.
    pub max_rollover: Credits,
    /// `plan_change: keep`: a status alone takes nothing before the period ends.
    pub keeps_on_change: bool,
    /// `cancellation: expire`.
    pub expires_when_canceled: bool,
    /// Credits of a trial, once per user.
    pub trial_credits: Credits,
    /// Credits on top of the first purchase, once per user.
    pub first_purchase_bonus: Credits,
    /// When a pack's credits expire, counted from its payment; a recurring pack's never do.
    pub expires_after: Option<Span>,
}

impl From<&Price> for Terms {
    fn from(price: &Price) -> Terms {
        Terms {
            kind: price.kind,
            credits: price.credits,
            every: price.every,
            drip: price.drip,
            max_rollover: match price.renewal {
                Renewal::Reset => Credits::ZERO,
                Renewal::Rollover => price.max_rollover,
            },
            keeps_on_change: price.plan_change == PlanChange::Keep,
            expires_when_canceled: price.cancellation == Cancellation::Expire,
            trial_credits: price.trial_credits,
            first_purchase_bonus: price.first_purchase_bonus,
            expires_after: price.expires_after,
        }
    }
}

/// From, to: the end is no longer in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// Its first second.
    pub start: Time,
    /// The first second after it.
    pub end: Time,
}

/// A subscription as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// `sub_…`.
    pub id: String,
    /// As of when the rest is so.
    pub as_of: Time,
    /// As of when the earliest state with a complete list of items was so: an item without any [`ItemState`] is not in
    /// the list since then. `None` before the first.
    pub listed_since: Option<Time>,
    /// Whether its status is final: `canceled` or `incomplete_expired`.
    pub is_over: bool,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Until when it runs, if it is set to end or is over: until then credits last under `cancellation: expire`.
    pub ends_at: Option<Time>,
    /// When its first period began: the start of a plan's first charge that still stands, by lines from before the horizon.
    pub first_period_start: Option<Time>,
    /// When it became known until when it runs, and since when its list is.
    pub known_at: Time,
}

/// A subscription item as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemState {
    /// `sub_…`.
    pub subscription: String,
    /// `si_…`.
    pub item: String,
    /// As of when.
    pub as_of: Time,
    /// What it was.
    pub content: ItemContent,
    /// When it became known.
    pub known_at: Time,
}

/// What a subscription's list says of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemContent {
    /// It is in the list.
    Listed {
        /// The price id.
        price: String,
        /// What that is worth; `None` if the catalog does not know the price.
        terms: Option<Terms>,
        /// How many.
        quantity: i64,
        /// Stripe's interval of the price, if it is known.
        interval: Option<Span>,
    },
    /// It is no longer in the list.
    Removed,
}

/// A grant that depends on no other fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Single {
    /// Its payment, or the app's key.
    pub source_id: String,
    /// The price, or the purpose.
    pub item: String,
    /// Where it counts.
    pub pool: Pool,
    /// How many credits.
    pub credits: Credits,
    /// When it was paid or given.
    pub at: Time,
    /// When it expires.
    pub expires_at: Option<Time>,
    /// Refunds and disputes of its payment.
    pub came_back: CameBack,
}

/// Credits taken from a grant by a row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// From which grant.
    pub grant: GrantKey,
    /// When the ledger row was recorded, in the order of [`Payment::known_at`]. Rows of one grant between which nothing became
    /// known and no period opened may be summed.
    pub recorded_at: Time,
    /// When.
    pub at: Time,
    /// The same by the facts' own times. A settlement is as late as the latest payment that was known with it; where it is
    /// given back, as the fact that undid the debt. Of a spend it is when it was made.
    pub as_of: Time,
    /// How many; below 0 if they were given back.
    pub credits: Credits,
    /// By what.
    pub purpose: Purpose,
}

/// Who had a subscription before it moved to the user (rule 6): what was drawn by then stays theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerUser {
    /// What they drew of its grants until it left them, in the periods in which it counted then.
    pub draws: Vec<Draw>,
    /// The payments of the subscription: they tell whether the user's trial or bonus is the one that came with it.
    pub payments: Vec<String>,
}

/// What credits are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A spend or a reservation. What is given back of it to a grant that has expired is gone with the grant.
    Spend,
    /// The settlement of a debt. What is given back of it can be spent, also if the grant has expired meanwhile.
    Settlement,
}

/// A subscription item, or all lines of a subscription that name none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// `sub_…`.
    pub subscription: String,
    /// `si_…`.
    pub item: Option<String>,
}

/// What names a grant of a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantKey {
    /// Of a period of a stream: all of it, or one part.
    Period {
        /// The subscription and the item that opened the period.
        stream: StreamKey,
        /// The period.
        period: Period,
        /// The start of the part; `None` if the period does not come in parts.
        part: Option<Time>,
        /// A plan's is `subscription`, a recurring pack's `purchased`.
        pool: Pool,
    },
    /// The user's trial.
    Trial,
    /// The bonus of the user's first purchase.
    FirstPurchaseBonus,
    /// A [`Single`], or a pack's line that names no subscription item.
    Single {
        /// Its payment, or the app's key.
        source_id: String,
        /// The price, or the purpose.
        item: String,
    },
}

impl GrantKey {
    /// The `source_id` of the grant's row: the payment, or the subscription.
    #[must_use]
    pub fn source_id(&self) -> &str {
        match self {
            GrantKey::Period { stream, .. } => &stream.subscription,
            GrantKey::Trial => "trial",
            GrantKey::FirstPurchaseBonus => "first_purchase_bonus",
            GrantKey::Single { source_id, .. } => source_id,
        }
    }

    /// The `item` of the grant's row: with `source_id` it names the grant of a user.
    #[must_use]
    pub fn item(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrantKey::Period { stream, period, part, pool } => {
                let item = stream.item.as_deref().unwrap_or("-");
                write!(f, "{item}@{}-{}", period.start.timestamp(), period.end.timestamp())?;
                if let Some(part) = part {
                    write!(f, "+{}", part.timestamp())?;
                }
                write!(f, "/{}", pool.as_str())
            }
            GrantKey::Trial => f.write_str("trial"),
            GrantKey::FirstPurchaseBonus => f.write_str("first_purchase_bonus"),
            GrantKey::Single { item, .. } => f.write_str(item),
        }
    }
}

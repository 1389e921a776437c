//! Tables `payments` and `payment_names`: what was paid, and every Stripe id of it.

use std::collections::{BTreeMap, BTreeSet};

use stripe_credits_rules::amount::{Credits, MinorUnits};
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::lot::Evidence;
use stripe_credits_rules::name::Name;
use stripe_credits_rules::reversal::Paid;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A row of `payments`.
#[derive(Clone)]
pub(crate) struct Payment {
    /// The `source_id` of its grants: the session, invoice or payment intent that came first.
    pub(crate) source_id: String,
    pub(crate) source_type: SourceType,
    pub(crate) user: Uuid,
    /// Whether it was applied. An unpaid row only names the user to whom a session was attributed.
    pub(crate) paid: bool,
    /// Whether it pays for a subscription.
    of_subscription: bool,
    /// What says how many packs it bought, and how many credits those are worth.
    pub(crate) worth: Option<(Evidence, Credits)>,
}

/// The columns that [`payment`] reads, in its order.
macro_rules! payment_columns {
    () => {
        "p.source_id, p.source_type, p.user_id, p.paid_at is not null, p.subscription_id is not null, p.evidence, p.worth"
    };
}

fn payment(mut row: Row) -> Payment {
    Payment {
        source_id: row.get(),
        source_type: row.parse(SourceType::parse),
        user: row.get(),
        paid: row.get(),
        of_subscription: row.get(),
        worth: row.parse_opt(Evidence::parse).map(|evidence| (evidence, row.get())),
    }
}

/// The Stripe object that was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceType {
    CheckoutSession,
    Invoice,
    DirectCall,
    PaymentIntent,
}

impl SourceType {
    fn parse(text: &str) -> Option<SourceType> {
        let all = [
            SourceType::CheckoutSession,
            SourceType::Invoice,
            SourceType::DirectCall,
            SourceType::PaymentIntent,
        ];
        all.into_iter().find(|source| source.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            SourceType::CheckoutSession => "checkout_session",
            SourceType::Invoice => "invoice",
            SourceType::DirectCall => "direct_call",
            SourceType::PaymentIntent => "payment_intent",
        }
    }
}

/// A payment, as the object that was paid describes it.
#[derive(Default)]
pub(crate) struct PaymentFacts<'a> {
    pub(crate) customer_id: Option<&'a str>,
    pub(crate) subscription_id: Option<&'a str>,
    pub(crate) amount_total: Option<MinorUnits>,
    pub(crate) currency: Option<&'a str>,
    /// What it is worth, and what says so, if that is better than what is known.
    pub(crate) worth: Option<(Evidence, Credits)>,
}

/// What is known under names of payments, read at once. It stands while the caller holds the locks of these names and of the
/// payments that they name, and until it joins them.
pub(crate) struct Known {
    /// The ids that were asked for.
    ids: Vec<String>,
    found: Vec<Found>,
}

/// A name and what it names, or the row that attributes an unpaid session to a user.
struct Found {
    name: Option<String>,
    source_id: String,
    payment: Option<Payment>,
}

/// What is known under these names. Of an id that names no payment: the row that attributes it to a user.
pub(crate) fn known(sql: &mut Sql, ids: Vec<String>) -> Known {
    if ids.is_empty() {
        return Known { ids, found: Vec::new() };
    }
    // Two statements, because one that joins them takes half as much again to start.
    let pointers = sql.query(
        "select name, source_id from billing.payment_names where name = any($1)",
        &[ids.clone().into()],
    );
    let pointers: Vec<(String, String)> = pointers.map(|mut row| (row.get(), row.get())).collect();
    let mut sources = ids.clone();
    sources.extend(pointers.iter().map(|(_, source_id)| source_id.clone()));
    let rows = sql.query(
        concat!("select ", payment_columns!(), " from billing.payments p where p.source_id = any($1)"),
        &[sources.into()],
    );
    let payments: Vec<Payment> = rows.map(payment).collect();
    let of_source = |source_id: &str| payments.iter().find(|payment| payment.source_id == source_id).cloned();
    let named = pointers.into_iter().map(|(name, source_id)| Found {
        payment: of_source(&source_id),
        name: Some(name),
        source_id,
    });
    let attributed = payments.iter().filter(|payment| !payment.paid && ids.contains(&payment.source_id));
    let attributed = attributed.map(|payment| Found {
        name: None,
        source_id: payment.source_id.clone(),
        payment: Some(payment.clone()),
    });
    let found = named.chain(attributed).collect();
    Known { ids, found }
}

/// The payment of a session or an invoice, or else the row that attributes the session to a user.
pub(crate) fn of_source(sql: &mut Sql, source_id: &str) -> Option<Payment> {
    known(sql, vec![source_id.to_owned()]).payment(source_id, &[]).cloned()
}

impl Known {
    /// Whether all of these names were asked for.
    pub(crate) fn covers(&self, names: &[Name]) -> bool {
        names.iter().all(|name| self.ids.iter().any(|id| id == name.id))
    }

    /// The sources that the names point to.
    pub(crate) fn sources(&self) -> BTreeSet<&str> {
        self.found.iter().filter(|found| found.name.is_some()).map(|found| found.source_id.as_str()).collect()
    }

    /// The users of the payments.
    pub(crate) fn users(&self) -> impl Iterator<Item = Uuid> {
        self.found.iter().filter_map(|found| found.payment.as_ref()).map(|payment| payment.user)
    }

    /// The payment with one of these names. If none was applied, the row that attributes the session `source_id` to a user.
    pub(crate) fn payment(&self, source_id: &str, names: &[Name]) -> Option<&Payment> {
        let is_named = |id: &str| id == source_id || names.iter().any(|name| name.id == id);
        self.found
            .iter()
            .filter(|found| match &found.name {
                Some(name) => is_named(name),
                None => found.source_id == source_id,
            })
            .filter_map(|found| found.payment.as_ref())
            .min_by_key(|payment| (!payment.paid, payment.source_id != source_id, payment.source_id.as_str()))
    }

    /// Of these names, those that are none of a payment yet, each once.
    fn unknown<'a>(&self, names: &[Name<'a>]) -> Vec<Name<'a>> {
        let mut unknown: Vec<Name> = Vec::with_capacity(names.len());
        for name in names {
            let is_known = self.found.iter().any(|found| found.name.as_deref() == Some(name.id));
            if !is_known && unknown.iter().all(|other| other.id != name.id) {
                unknown.push(*name);
            }
        }
        unknown
    }

    /// The sources that names point to, each with its payment if that was applied.
    fn named(&self, names: &[Name]) -> BTreeMap<&str, Option<&Payment>> {
        let is_named = |name: &str| names.iter().any(|asked| asked.id == name);
        let found = self.found.iter().filter(|found| found.name.as_deref().is_some_and(is_named));
        found
            .map(|found| (found.source_id.as_str(), found.payment.as_ref().filter(|payment| payment.paid)))
            .collect()
    }
}

/// What joining names brought to light.
pub(crate) struct Joined {
    /// The payment that they name, if it was applied.
    pub(crate) payment: Option<Payment>,
    /// The payments that turned out to be the same one: what was granted for them is to be taken back.
    pub(crate) duplicates: Vec<Payment>,
    /// Whether something was not known before.
    pub(crate) is_new: bool,
    /// Whether nothing was: no payment, no name of it, and so no reversal.
    pub(crate) is_first: bool,
}

/// Joins the names of one payment; `own` is that of the object that was paid, if that is what brings them. The caller holds
/// the locks of all of them and of the payments that they name.
///
/// If two payments were applied that are one, the one with more behind it stays: a subscription's invoice, then a session,
/// then an invoice, then a payment intent. Two payments of different users, or two of subscriptions, are not joined: then
/// the names that name no payment go to the first.
pub(crate) fn join(sql: &mut Sql, known: &Known, own: Option<&str>, names: &[Name]) -> Joined {
    let unknown = known.unknown(names);
    let known = known.named(names);
    let is_first = known.is_empty();
    let mut paid: Vec<Payment> = known.values().filter_map(|payment| payment.cloned()).collect();
    paid.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
    let payment = (!paid.is_empty()).then(|| paid.remove(0));
    let is_same =
        |other: &Payment| payment.as_ref().is_some_and(|p| p.user == other.user && !other.of_subscription);
    let (duplicates, others): (Vec<_>, Vec<_>) = paid.into_iter().partition(is_same);
    let of_payment = payment.as_ref().map(|payment| payment.source_id.as_str());
    let first = known.keys().next().copied();
    let Some(source_id) = of_payment.or(own).or(first).or(names.first().map(|name| name.id)) else {
        return Joined { payment, duplicates, is_new: false, is_first };
    };
    let stays = |known: &str| known == source_id || others.iter().any(|other| other.source_id == known);
    let moving: Vec<String> =
        known.keys().filter(|known| !stays(known)).map(|known| (*known).to_owned()).collect();
    let is_new = point(sql, &unknown, source_id, moving);
    Joined { payment, duplicates, is_new, is_first }
}

impl Payment {
    /// Whether Stripe's lines say what it is worth, or a call: there is no need to ask for them.
    pub(crate) fn has_lines(&self) -> bool {
        self.worth.is_some_and(|(evidence, _)| evidence == Evidence::Lines)
    }

    /// Of two payments that are one, the one with the lower precedence stays.
    fn precedence(&self) -> (bool, SourceType, &str) {
        (!self.of_subscription, self.source_type, &self.source_id)
    }
}

/// Makes names that were none yet, and those that are known under the sources that are `moving`, names of a source. Returns
/// whether there was any.
fn point(sql: &mut Sql, unknown: &[Name], source_id: &str, moving: Vec<String>) -> bool {
    let is_moved = !moving.is_empty();
    if is_moved {
        sql.execute(
            "update billing.payment_names set source_id = $2 where source_id = any($1)",
            &[moving.into(), source_id.into()],
        );
    }
    if !unknown.is_empty() {
        let kinds: Vec<String> = unknown.iter().map(|name| name.kind.as_str().to_owned()).collect();
        sql.execute(
            "insert into billing.payment_names (name, kind, source_id)
             select unnest($1::text[]), unnest($2::text[]), $3",
            &[ids(unknown).into(), kinds.into(), source_id.into()],
        );
    }
    is_moved || !unknown.is_empty()
}

/// The ids of names.
pub(crate) fn ids(names: &[Name]) -> Vec<String> {
    names.iter().map(|name| name.id.to_owned()).collect()
}

/// Claims a payment for a user: this row makes it count once. Fills in what an earlier claim did not know, and sets the worth
/// anew if it is given. Its names are joined before.
pub(crate) fn claim(
    sql: &mut Sql,
    source_type: SourceType,
    source_id: &str,
    facts: &PaymentFacts,
    user: Uuid,
    now: Time,
) {
    let arguments = [
        source_id.into(),
        source_type.as_str().into(),
        uuid_datum(user).into(),
        facts.customer_id.into(),
        facts.subscription_id.into(),
        facts.amount_total.map(|amount| amount.0).into(),
        facts.currency.into(),
        facts.worth.map(|(evidence, _)| evidence.as_str()).into(),
        facts.worth.map(|(_, worth)| worth.0).into(),
        timestamp(now).into(),
    ];
    let inserted = sql.execute(
        "insert into billing.payments (source_id, source_type, user_id, customer_id, subscription_id, amount_total, currency,
             evidence, worth, paid_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
         on conflict (source_id) do nothing",
        &arguments,
    );
    if inserted > 0 {
        return;
    }
    sql.execute(
        "update billing.payments p set
             user_id = case when p.paid_at is null then $3 else p.user_id end,
             customer_id = coalesce(p.customer_id, $4),
             subscription_id = coalesce(p.subscription_id, $5),
             amount_total = coalesce(p.amount_total, $6),
             currency = coalesce(p.currency, $7),
             evidence = coalesce($8, p.evidence),
             worth = coalesce($9, p.worth),
             paid_at = coalesce(p.paid_at, $10)
         where p.source_id = $1",
        &arguments,
    );
}

/// Whether it is known which session or invoice a payment is, even if no credits were granted for that.
pub(crate) fn is_linked(sql: &mut Sql, name: &str) -> bool {
    let linked = "select from billing.payment_names n join billing.payment_names other using (source_id)
         where n.name = $1 and other.kind in ('checkout_session', 'invoice') limit 1";
    sql.query_opt(linked, &[name.into()]).is_some()
}

/// Attributes an unpaid session to a user. Must not be called for a paid one, whose row is locked after the account.
pub(crate) fn attribute(sql: &mut Sql, session_id: &str, user: Uuid, now: Time) {
    sql.execute(
        "insert into billing.payments (source_id, source_type, user_id, created_at)
         values ($1, 'checkout_session', $2, $3)
         on conflict (source_id) do update set user_id = excluded.user_id",
        &[session_id.into(), uuid_datum(user).into(), timestamp(now).into()],
    );
}

/// Records that a payment intent succeeded. Returns whether that was not known before.
pub(crate) fn record_success(sql: &mut Sql, payment_intent_id: &str) -> bool {
    let succeeds =
        "update billing.payment_names set succeeded = true where name = $1 and not succeeded returning 1";
    sql.query_opt(succeeds, &[payment_intent_id.into()]).is_some()
}

/// Whether a payment intent of the payment with one of these names succeeded.
pub(crate) fn has_succeeded(sql: &mut Sql, names: &[Name]) -> bool {
    let succeeded = "select from billing.payment_names n join billing.payment_names other using (source_id)
         where n.name = any($1) and other.succeeded limit 1";
    sql.query_opt(succeeded, &[ids(names).into()]).is_some()
}

/// The sessions of the payment with this name.
pub(crate) fn sessions(sql: &mut Sql, name: &str) -> Vec<String> {
    let rows = sql.query(
        "select other.name from billing.payment_names n join billing.payment_names other using (source_id)
         where n.name = $1 and other.kind = 'checkout_session' order by other.name",
        &[name.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// What was paid, and whether the payment turned out to be another.
pub(crate) fn paid(sql: &mut Sql, source_id: &str) -> (Paid, bool) {
    let row = sql.query_opt(
        "select amount_total, currency, joined_to is not null from billing.payments where source_id = $1",
        &[source_id.into()],
    );
    row.map_or((Paid::default(), false), |mut row| {
        (Paid { amount: row.get_opt(), currency: row.get_opt() }, row.get())
    })
}

/// Records that a payment turned out to be another, and so is worth nothing itself.
pub(crate) fn set_joined(sql: &mut Sql, source_id: &str, joined_to: &str) {
    sql.execute(
        "update billing.payments set joined_to = $2, worth = 0, evidence = coalesce(evidence, 'lines')
         where source_id = $1",
        &[source_id.into(), joined_to.into()],
    );
}

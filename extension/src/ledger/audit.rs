//! What the books should hold by all facts, compared with what they hold (rule 14): the part of
//! `validate_credits_consistency()` that only the rules can compute.
//!
//! A user's facts are loaded back to the beginning, not to a horizon, so that periods that closed long ago are computed as
//! well. Nothing is locked: one snapshot is consistent, since every operation commits its facts together with what it posts.

use std::collections::BTreeMap;

use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::NoPaymentRequired;
use stripe_credits_rules::reversal;
use stripe_credits_rules::streams::facts::{Facts, GrantKey};
use stripe_credits_rules::streams::holdings;
use uuid::Uuid;

use super::moves::{self, Former, Moves};
use super::targets::{self, GrantRow};
use super::{Fault, facts};
use crate::pg::sql::{Sql, reading};
use crate::tables::{invoice_lines, invoices, payments, repricings, reversals};

/// Of all users: grants of plans, trials and bonuses that do not hold what their facts are worth, and payments of which
/// another part came back than their reversals say. What a change of the catalog is worth to users and is not posted yet is no
/// fault. The facts of one user are in memory at a time.
pub(crate) fn worth_faults() -> Vec<Fault> {
    let of_plans = reading(users).into_iter().flat_map(|user| {
        reading(|sql| if repricings::is_pending(sql, user) { Vec::new() } else { of_plans(sql, user) })
    });
    let of_payments = reading(reversals::reversed_payments).into_iter();
    of_plans.chain(of_payments.filter_map(|source_id| reading(|sql| of_payment(sql, &source_id)))).collect()
}

/// The users who have facts of plans, or grants that only such facts make.
fn users(sql: &mut Sql) -> Vec<Uuid> {
    const USERS: &str = concat!(
        "select user_id from billing.invoice_lines
         union
         select user_id from billing.credit_grants
         where stripe_subscription_id is not null or (source_id, item) in ",
        once_per_user!(),
        " order by 1"
    );
    sql.query(USERS, &[]).map(|mut row| row.get()).collect()
}

fn of_plans(sql: &mut Sql, user: Uuid) -> Vec<Fault> {
    let beginning = invoice_lines::first_end(sql, user).unwrap_or(Time::UNIX_EPOCH);
    let mut facts = facts::load(sql, user, beginning).facts;
    let payments = facts.payments.iter().map(|payment| payment.id.clone()).collect();
    let moves = Moves::of_user(sql, user);
    let books = Books {
        user,
        rows: targets::of_periods(sql, user, None, payments),
        former: moves::add_kept(sql, &moves, &mut facts),
    };
    let Some(mut differing) = books.differences(&facts) else {
        let text = "the facts of the plans are worth more than can be held".to_owned();
        return vec![Fault { user, place: 0, text }];
    };
    if !differing.is_empty() {
        // A period that closed before this setting was changed holds what it held.
        facts.no_payment_required = match facts.no_payment_required {
            NoPaymentRequired::Grant => NoPaymentRequired::Ignore,
            NoPaymentRequired::Ignore => NoPaymentRequired::Grant,
        };
        let otherwise = books.differences(&facts).unwrap_or_default();
        differing.retain(|key, _| otherwise.contains_key(key));
    }
    let fault = |((user, key), difference): ((Uuid, GrantKey), Difference)| Fault {
        user,
        place: difference.grant_id,
        text: difference.text(&key),
    };
    differing.into_iter().map(fault).collect()
}

/// A user's grants of plans, and those that their subscriptions left behind with former users.
struct Books {
    user: Uuid,
    rows: Vec<GrantRow>,
    former: Vec<Former>,
}

impl Books {
    /// The grants that do not hold what these facts are worth, by user; `None` if that is more than can be held. Draws and time
    /// change what is left of a grant, never what it is worth; of a subscription that moved, what was drawn by then splits it.
    fn differences(&self, facts: &Facts) -> Option<BTreeMap<(Uuid, GrantKey), Difference>> {
        let held = holdings(facts, &[], Time::UNIX_EPOCH).ok()?;
        // A trial or a bonus that left with a subscription is checked with that.
        let (left, rows): (Vec<&GrantRow>, Vec<&GrantRow>) =
            self.rows.iter().partition(|row| row.held.kept.is_some());
        let is_here = |key: &GrantKey| !left.iter().any(|row| row.key == *key);
        let own = held.targets.into_iter().filter(|target| is_here(&target.key));
        let own = own.map(|target| (target.key, target.worth.0)).collect();
        let mut differing = differences(self.user, &rows, own);
        for (index, former) in self.former.iter().enumerate() {
            let of_user = held.former.iter().filter(|target| target.former == index);
            let mut worth: BTreeMap<GrantKey, i64> =
                of_user.map(|target| (target.key.clone(), target.worth.0)).collect();
            for row in &former.rows {
                // What no fact is about stays as far as it was drawn.
                let kept = row.held.kept.unwrap_or_default().0;
                worth.entry(row.key.clone()).or_insert(row.held.amount.clamp(0, kept));
            }
            differing.extend(differences(former.user, &former.rows.iter().collect::<Vec<_>>(), worth));
        }
        Some(differing)
    }
}

/// A grant whose amount is not what its facts are worth.
struct Difference {
    /// 0 if there is no such grant.
    grant_id: i64,
    amount: i64,
    worth: i64,
}

impl Difference {
    fn text(&self, key: &GrantKey) -> String {
        let (Difference { grant_id, amount, worth }, source_id) = (self, key.source_id());
        match grant_id {
            0 => format!("grant {key} of {source_id} is missing, its facts are worth {worth}"),
            _ => format!(
                "grant {grant_id}: its amount is {amount}, the facts of {key} of {source_id} are worth {worth}"
            ),
        }
    }
}

fn differences(
    user: Uuid,
    rows: &[&GrantRow],
    mut worth: BTreeMap<GrantKey, i64>,
) -> BTreeMap<(Uuid, GrantKey), Difference> {
    let mut differing = BTreeMap::new();
    for row in rows {
        let (amount, worth) = (row.held.amount, worth.remove(&row.key).unwrap_or(0));
        if amount != worth {
            differing.insert((user, row.key.clone()), Difference { grant_id: row.id, amount, worth });
        }
    }
    let missing = worth.into_iter().filter(|(_, worth)| *worth != 0);
    differing.extend(missing.map(|(key, worth)| ((user, key), Difference { grant_id: 0, amount: 0, worth })));
    differing
}

/// Rule 5: what came back of a payment is what all of its reversals say together.
fn of_payment(sql: &mut Sql, source_id: &str) -> Option<Fault> {
    let recorded = invoices::find(sql, vec![source_id.to_owned()]).pop()?;
    let (paid, _) = payments::paid(sql, source_id);
    let known = reversals::of_payment(sql, source_id);
    let part = if known.is_empty() { None } else { reversal::part(&paid, &known) };
    let (reversed, charged) = part.map_or((0, 0), |part| (part.reversed.0, part.charged.0));
    let recorded_reversed = recorded.reversed.0;
    let recorded_charged =
        if recorded_reversed == 0 { charged } else { recorded.charged.map_or(0, |charged| charged.0) };
    if (recorded_reversed, recorded_charged) == (reversed, charged) {
        return None;
    }
    let text = format!(
        "payment {source_id}: {recorded_reversed} of {recorded_charged} came back, by its reversals {reversed} of {charged}"
    );
    Some(Fault { user: recorded.user, place: 0, text })
}

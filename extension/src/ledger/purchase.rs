//! Credits of one payment that depend on no other fact: a pack that a session or a payment intent paid for.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::ReversalPolicy;
use stripe_credits_rules::lot::NewGrant;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::reversal;
use stripe_credits_rules::streams::facts::{CameBack, Facts, GrantKey, Single};
use stripe_credits_rules::streams::holdings;

use super::targets::{self, Cause, GrantRow};
use super::{Account, Origin, earliest};
use crate::pg::sql::Sql;
use crate::tables::{catalog, invoice_lines, invoices, payments, reversals};

/// What a payment bought, and when: credits that expire do so from then, however late that becomes known.
pub(crate) struct Bought<'a> {
    pub(crate) grants: &'a [NewGrant],
    pub(crate) at: Time,
    /// Whether nothing was known of the payment before, so that nothing is granted for it yet.
    pub(crate) is_first: bool,
}

impl Bought<'_> {
    fn singles(&self, source_id: &str, rows: &[GrantRow], came_back: CameBack) -> Vec<Single> {
        let single = |grant: &NewGrant| {
            let row = rows.iter().find(|row| row.key.item() == grant.item);
            Single {
                source_id: source_id.to_owned(),
                item: grant.item.clone(),
                pool: grant.pool,
                credits: grant.credits,
                at: row.and_then(|row| row.held.available_from).unwrap_or(self.at),
                expires_at: grant.expires_at,
                came_back,
            }
        };
        self.grants.iter().map(single).collect()
    }
}

/// What came back of a payment, by all of its reversals together, and whether that is known: not while it is unknown what was
/// charged.
pub(crate) fn came_back(sql: &mut Sql, source_id: &str) -> (CameBack, bool) {
    let known = reversals::of_payment(sql, source_id);
    if known.is_empty() {
        return (CameBack::NOTHING, true);
    }
    let (paid, _) = payments::paid(sql, source_id);
    let Some(part) = reversal::part(&paid, &known) else {
        return (CameBack::NOTHING, false);
    };
    let policy =
        catalog::settings(sql).map_or(ReversalPolicy::default(), |settings| settings.reversal_policy);
    let policy = invoices::set_came_back(sql, source_id, part.reversed, part.charged, policy);
    (CameBack { amount: part.reversed, of: part.charged, policy }, true)
}

impl Account {
    /// Posts the difference between what came back of a payment and what is posted of that; what it changes of plans is posted
    /// when the account is settled. `false` if it is not known what was charged, so that reversals wait. A payment that turned
    /// out to be another grants nothing any more.
    pub(crate) fn touch_reversals(&mut self, sql: &mut Sql, source_id: &str, origin: &Origin) -> bool {
        let (came_back, is_known) = came_back(sql, source_id);
        let (_, is_joined) = payments::paid(sql, source_id);
        let nothing = Bought { grants: &[], at: self.now, is_first: false };
        let bought = is_joined.then_some(&nothing);
        // What comes back and does not fit stays as it is posted, until the next change of it.
        let _ = self.settle_purchase(sql, source_id, bought, came_back, Cause::Reversal, origin);
        if let Some(start) = invoice_lines::start(sql, source_id, self.user) {
            self.touch_streams(start, Cause::Reversal);
        }
        is_known
    }

    /// Makes a payment's grants hold what it bought, less what came back of it; what it bought before, if `bought` is `None`.
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] if that is more than can be held; nothing is posted then.
    pub(crate) fn settle_purchase(
        &mut self,
        sql: &mut Sql,
        source_id: &str,
        bought: Option<&Bought>,
        came_back: CameBack,
        cause: Cause,
        origin: &Origin,
    ) -> Result<(), Reason> {
        let is_first = bought.is_some_and(|bought| bought.is_first);
        let rows = if is_first { Vec::new() } else { targets::of_payment(sql, self.user, source_id) };
        let singles: Vec<Single> = match bought {
            Some(bought) => bought.singles(source_id, &rows, came_back),
            None => rows.iter().filter_map(|row| known(source_id, row, came_back)).collect(),
        };
        let facts = Facts { singles, ..Facts::default() };
        let draws = self.draws(sql, &rows);
        let held = holdings(&facts, &draws, self.now).map_err(|_| Reason::OutOfRange)?;
        let credits = |key: &GrantKey| -> Option<Credits> {
            let of_item = bought?.grants.iter().find(|grant| grant.item == key.item());
            Some(of_item.map_or(Credits::ZERO, |grant| grant.credits))
        };
        let name = |item: String| Some(bought?.grants.iter().find(|grant| grant.item == item)?.name.clone());
        let changes = targets::changes(rows, held.targets, self.now, &credits, &|_| cause);
        self.check_fits(sql, &changes, std::iter::empty())?;
        self.post_changes(sql, changes, &|target| name(target.key.item()), origin);
        self.next_due = earliest(self.next_due, held.next_change);
        Ok(())
    }
}

/// What a grant was bought for, as it is known.
fn known(source_id: &str, row: &GrantRow, came_back: CameBack) -> Option<Single> {
    Some(Single {
        source_id: source_id.to_owned(),
        item: row.key.item(),
        pool: row.pool,
        credits: row.held.bought?,
        at: row.held.available_from?,
        expires_at: row.held.expires_at,
        came_back,
    })
}

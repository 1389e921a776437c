//! The account's row, written with what an operation changed of it.

use serde_json::Value;
use stripe_credits_rules::calendar::Time;

use super::Account;
use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::json::Json;
use crate::pg::sql::Sql;

/// What every operation changes; what follows is of those that change more.
macro_rules! save {
    ($more:literal) => {
        concat!(
            "update billing.accounts set subscription_credits = $2, purchased_credits = $3, promotional_credits = $4, debt = $5,
                 last_grant_id = $6, last_transaction_id = $7, last_hash = $8, last_recorded_at = $9, last_outbox_id = $10,
                 version = version + 1, updated_at = $11, mirror_due_since = coalesce(mirror_due_since, $12)",
            $more,
            " where user_id = $1"
        )
    };
}

/// What most operations leave as it is. Its columns are written only if something of it changed: they would be an eighth of the
/// work of a statement that runs for every spend.
#[derive(Default, PartialEq)]
pub(super) struct Standing {
    tier: String,
    subscription_status: String,
    signed_up_at: Option<Time>,
    free_next: Option<Time>,
    periods_next: Option<Time>,
    next_due: Option<Time>,
    test_clock: Option<String>,
    to_set_aside: Option<Value>,
}

impl Account {
    /// What most operations leave as it is, as it is now.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            tier: self.balances.tier.clone(),
            subscription_status: self.balances.subscription_status.clone(),
            signed_up_at: self.signed_up_at,
            free_next: self.free_next,
            periods_next: self.periods_next,
            next_due: self.next_due,
            test_clock: self.test_clock.clone(),
            to_set_aside: self.to_set_aside.clone(),
        }
    }

    /// Writes the account, if anything of it changed, and what is told of that.
    pub(super) fn save(&mut self, sql: &mut Sql) {
        const WITH_STANDING: &str = save!(
            ", tier = $13, subscription_status = $14, signed_up_at = $15, free_next_at = $16, periods_next_at = $17,
                 next_due_at = $18, test_clock = $19, to_set_aside = $20"
        );
        if !self.dirty {
            return;
        }
        self.tell(sql);
        let mut args = vec![
            uuid_datum(self.user).into(),
            self.balances.subscription.0.into(),
            self.balances.purchased.0.into(),
            self.balances.promotional.0.into(),
            self.balances.debt.0.into(),
            self.last_grant_id.into(),
            self.last_transaction_id.into(),
            self.last_hash.as_slice().into(),
            timestamp(self.recorded_at).into(),
            self.last_outbox_id.into(),
            timestamp(self.now).into(),
            timestamp(clock()).into(),
        ];
        let standing = self.standing();
        if standing == self.saved {
            sql.execute(save!(""), &args);
        } else {
            args.extend([
                standing.tier.as_str().into(),
                standing.subscription_status.as_str().into(),
                standing.signed_up_at.map(timestamp).into(),
                standing.free_next.map(timestamp).into(),
                standing.periods_next.map(timestamp).into(),
                standing.next_due.map(timestamp).into(),
                standing.test_clock.as_deref().into(),
                standing.to_set_aside.as_ref().map(|all| Json::from_text(&all.to_string())).into(),
            ]);
            sql.execute(WITH_STANDING, &args);
            drop(args);
            self.saved = standing;
        }
        self.dirty = false;
    }
}

//! Several accounts of one operation: those that a payment or a subscription counts in now, or did before it moved.

use std::collections::BTreeSet;

use serde_json::json;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use super::streams::Computed;
use super::targets::FormerChange;
use super::{Account, Cause, Origin, moves};
use crate::outcome::Outcome;
use crate::pg::convert::{clock, uuid_datum};
use crate::pg::sql::Sql;
use crate::tables::ownership::{self, Move};

/// Locks those of the users' accounts that exist, in the order of their users, for operations that come one after the other
/// in one transaction.
pub(crate) fn lock(sql: &mut Sql, users: &BTreeSet<Uuid>) {
    let users: Vec<pgrx::Uuid> = users.iter().copied().map(uuid_datum).collect();
    sql.execute(
        "select from billing.accounts where user_id = any($1) order by user_id for update",
        &[users.into()],
    );
}

/// Accounts under their locks.
pub(crate) struct Accounts(Vec<Account>);

impl Accounts {
    /// Locks accounts in the order of their users, as everything does that locks several (rule 15), and posts what is due in
    /// each.
    #[must_use = "accounts that are posted to have to be closed"]
    pub(crate) fn open(sql: &mut Sql, users: &BTreeSet<Uuid>) -> Accounts {
        let mut accounts = Accounts(users.iter().map(|user| Account::open(sql, *user)).collect());
        accounts.agree_on_time();
        accounts
    }

    /// Lets what follows be recorded in each account after what was recorded in any of them.
    fn agree_on_time(&mut self) -> Time {
        let latest = self.known_at();
        for account in &mut self.0 {
            account.recorded_at = latest;
        }
        latest
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        self.0.iter_mut()
    }

    /// The account of one of the users that they were opened for.
    pub(crate) fn of(&mut self, user: Uuid) -> &mut Account {
        self.0.iter_mut().find(|account| account.user == user).expect("it was opened")
    }

    /// When what becomes known now becomes known: after what was recorded in any of them. Whoever records a fact has that saved
    /// by [`Accounts::renew_versions`].
    pub(crate) fn known_at(&self) -> Time {
        self.0.iter().map(|account| account.recorded_at).max().unwrap_or_else(clock)
    }

    /// Saves each of them when it is closed, whether anything is posted to it or not.
    pub(crate) fn renew_versions(&mut self) {
        self.0.iter_mut().for_each(Account::renew_version);
    }

    /// Whether this operation has posted anything.
    pub(crate) fn is_changed(&self) -> bool {
        self.0.iter().any(Account::is_changed)
    }

    /// Posts what was touched in each account, with what that leaves to former users of its subscriptions.
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] if that is more than one of the accounts can hold; nothing is posted to any of them then.
    pub(crate) fn settle(&mut self, sql: &mut Sql, origin: &Origin) -> Result<(), Reason> {
        let computed: Vec<Option<Computed>> =
            self.0.iter_mut().map(|account| account.compute_streams(sql)).collect::<Result<_, _>>()?;
        let left: Vec<&FormerChange> =
            computed.iter().flatten().flat_map(|computed| &computed.of_former).collect();
        for (account, computed) in self.0.iter().zip(&computed) {
            let left_here = left.iter().copied().filter(|change| change.user == account.user);
            account.check_fits(
                sql,
                computed.as_ref().map_or(&[], |computed| &computed.changes),
                left_here,
            )?;
        }
        for (index, computed) in computed.into_iter().enumerate() {
            let Some(mut computed) = computed else { continue };
            let left = std::mem::take(&mut computed.of_former);
            self.0[index].post_streams(sql, computed, origin);
            for change in left {
                if let Some(account) = self.0.iter_mut().find(|account| account.user == change.user) {
                    account.post_former(sql, &change, origin);
                }
            }
        }
        for account in &mut self.0 {
            account.settle_facts(sql, origin);
        }
        Ok(())
    }

    /// Whether a user can hold what others hold of a subscription, or held of it and may again. Asked before it moves: what is
    /// refused writes nothing.
    pub(crate) fn can_take_over(
        &mut self,
        sql: &mut Sql,
        subscription_id: &str,
        from: &[Uuid],
        to: Uuid,
    ) -> bool {
        let worth: i128 =
            from.iter().map(|from| i128::from(moves::worth(sql, *from, subscription_id).0)).sum();
        worth <= i128::from(self.of(to).room(sql).0)
    }

    /// Moves a subscription to a user (rule 6): its facts count in that user's account from now on. What was drawn of its grants
    /// stays with whom drew it, and the rest moves. The caller holds the locks of the subscription and of its payments.
    pub(crate) fn move_subscription(
        &mut self,
        sql: &mut Sql,
        subscription_id: &str,
        from: &[Uuid],
        to: Uuid,
        origin: &Origin,
    ) {
        let test_clock = self.0.iter().find(|account| from.contains(&account.user));
        let test_clock = test_clock.and_then(|account| account.test_clock.clone());
        if let Some(clock_id) = test_clock.filter(|_| self.of(to).test_clock.is_none()) {
            self.of(to).live_by(sql, &clock_id);
        }
        for from in from {
            self.of(*from).leave_debt(sql, subscription_id, origin);
        }
        let moved_at = self.agree_on_time();
        for from in from {
            let moved = Move { subscription_id: subscription_id.to_owned(), from: *from, to, moved_at };
            moves::mark(sql, &moved);
            ownership::record_move(sql, &moved, origin.event_id);
        }
        let start = ownership::start(sql, subscription_id);
        for user in from.iter().chain([&to]) {
            let account = self.of(*user);
            account.touch_streams(start.unwrap_or(account.now()), Cause::Move);
            account.moving = Some(subscription_id.to_owned());
            account.renew_version();
        }
        // If the user cannot hold it, what is posted stands.
        let _ = self.settle(sql, origin);
        self.0.iter_mut().for_each(|account| account.moving = None);
    }

    /// Ends the operation. Returns the outcome of the user's account; what was posted to others is in its details.
    #[must_use]
    pub(crate) fn close(self, sql: &mut Sql, verdict: Verdict, user: Uuid) -> Outcome {
        let (mut own, mut others) = (Outcome::of(verdict), Vec::new());
        for outcome in self.close_each(sql, verdict) {
            if outcome.user == Some(user) {
                own = outcome;
            } else if let Some(postings) = outcome.details.get("postings") {
                others.push(json!({
                    "user_id": outcome.user,
                    "credits": outcome.credits.0,
                    "postings": postings,
                }));
            }
        }
        if others.is_empty() { own } else { own.with("others", others) }
    }

    /// Ends the operation. Returns the outcome of each account.
    #[must_use]
    pub(crate) fn close_each(self, sql: &mut Sql, verdict: Verdict) -> Vec<Outcome> {
        self.0.into_iter().map(|account| account.close(sql, verdict)).collect()
    }
}

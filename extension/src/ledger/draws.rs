//! What a spend, a reservation or an adjustment takes from an account's grants, and what is given back of it.

use std::collections::BTreeMap;

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::draw::{self, Share};
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::streams::facts::{Draw, GrantKey, Purpose};
use uuid::Uuid;

use super::{Account, Origin, Requested, TransactionType, earliest, shares};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// How many grants a spend reads at first, and the factor by which it reads more if they do not cover it: the first grant
/// covers most spends, and a user may have a thousand.
const FIRST_GRANTS_READ: i64 = 8;
const GRANTS_READ_GROWTH: i64 = 16;

/// What can be spent, with what is selected `before` it, in the draw order (rule 8), which the index `credit_grants_draw` has,
/// after what comes `first`; the limit follows.
macro_rules! spendable {
    ($before:literal, $first:literal) => {
        concat!(
            "select ",
            $before,
            "id, pool, remaining from billing.credit_grants where user_id = $1 and spendable order by ",
            $first,
            "priority_at, draw_rank, id limit "
        )
    };
}

/// The first grant in draw order, which covers most spends, and whether a request was made before.
const BEFORE_SPEND: &str = concat!(
    spendable!(
        "exists (select from billing.credit_transactions where user_id = $1 and request_id = $2), ",
        ""
    ),
    "1"
);

/// The grants in draw order.
const SPENDABLE: &str = concat!(spendable!("", ""), "$2");

/// The same with purchased credits last: a correction by hand takes what was paid for only if there is nothing else.
const SPENDABLE_PURCHASED_LAST: &str = concat!(spendable!("", "pool = 'purchased', "), "$2");

/// Takes credits from a grant, and counts them where they went. Only what changes is named: each expression is compiled anew for
/// each draw.
macro_rules! draw {
    ($counted:literal) => {
        concat!(
            "update billing.credit_grants set remaining = remaining - $3, spendable = remaining > $3, ",
            $counted,
            " where user_id = $1 and id = $2"
        )
    };
}

/// What was drawn from these grants, by the ledger rows after one, and recorded by a time if it is given.
pub(super) fn of_grants(
    sql: &mut Sql,
    user: Uuid,
    (after, by): (i64, Option<Time>),
    grants: &BTreeMap<i64, &GrantKey>,
) -> Vec<Draw> {
    let ids: Vec<i64> = grants.keys().copied().collect();
    let rows = sql.query(
        "select grant_id, recorded_at, created_at,
             case when transaction_type = 'debt_settlement'
                 then coalesce((metadata ->> 'as_of')::timestamptz, created_at) else created_at end,
             -amount, transaction_type = 'debt_settlement'
         from billing.credit_transactions
         where user_id = $1 and id > $2 and ($4::timestamptz is null or recorded_at <= $4) and grant_id = any ($3)
             and (transaction_type in ('spend', 'spend_refund', 'reservation', 'release', 'debt_settlement')
                 or transaction_type = 'adjustment' and amount < 0)
         order by id",
        &[uuid_datum(user).into(), after.into(), ids.into(), by.map(timestamp).into()],
    );
    rows.filter_map(|mut row| {
        let grant = (*grants.get(&row.get())?).clone();
        let (recorded_at, at, as_of, credits) = (row.get(), row.get(), row.get(), row.get());
        let purpose = if row.get() { Purpose::Settlement } else { Purpose::Spend };
        Some(Draw { grant, recorded_at, at, as_of, credits, purpose })
    })
    .collect()
}

impl Account {
    /// What a request did, if it was made before. A request id is of one kind of request.
    pub(crate) fn requested(&self, sql: &mut Sql, request_id: &str) -> Option<Requested> {
        let row = sql.query_opt(
            "select transaction_type, sum(amount)::bigint, min(metadata ->> 'spend_request_id')
             from billing.credit_transactions
             where user_id = $1 and request_id = $2
                 and transaction_type in ('spend', 'reservation', 'spend_refund', 'adjustment') group by 1",
            &[uuid_datum(self.user).into(), request_id.into()],
        );
        row.map(|mut row| Requested {
            transaction_type: row.parse(TransactionType::parse_requested),
            credits: row.get(),
            spend_request_id: row.get_opt(),
        })
    }

    /// The same for a spend, with the first grant in draw order: in one statement, as most requests are new.
    pub(crate) fn requested_or_first_grant(
        &self,
        sql: &mut Sql,
        request_id: &str,
    ) -> (Option<Requested>, Option<Share>) {
        let row = sql.query_opt(BEFORE_SPEND, &[uuid_datum(self.user).into(), request_id.into()]);
        let Some(mut row) = row else { return (self.requested(sql, request_id), None) };
        let was_made = row.get();
        let first = Share { grant_id: row.get(), pool: row.parse(Pool::parse), credits: row.get() };
        (if was_made { self.requested(sql, request_id) } else { None }, Some(first))
    }

    /// Draws credits from the grants in draw order, an adjustment purchased ones last. `false` if the account has
    /// fewer: nothing is drawn then.
    pub(crate) fn take(
        &mut self,
        sql: &mut Sql,
        amount: Credits,
        transaction_type: TransactionType,
        origin: &Origin,
    ) -> bool {
        if amount > self.available() {
            return false;
        }
        for share in self.in_draw_order(sql, amount, transaction_type) {
            self.draw_from(sql, share, transaction_type, origin);
        }
        true
    }

    /// The same for a spend, by the first grant in draw order if that covers it.
    pub(crate) fn spend(
        &mut self,
        sql: &mut Sql,
        amount: Credits,
        first: Option<Share>,
        origin: &Origin,
    ) -> bool {
        match first.filter(|first| first.credits >= amount) {
            Some(first) => {
                self.draw_from(sql, Share { credits: amount, ..first }, TransactionType::Spend, origin);
                true
            }
            None => self.take(sql, amount, TransactionType::Spend, origin),
        }
    }

    /// What an amount takes from which grant. The account has as many credits.
    fn in_draw_order(&self, sql: &mut Sql, amount: Credits, transaction_type: TransactionType) -> Vec<Share> {
        let spendable = match transaction_type {
            TransactionType::Adjustment => SPENDABLE_PURCHASED_LAST,
            _ => SPENDABLE,
        };
        let mut grants = FIRST_GRANTS_READ;
        loop {
            let in_order = shares(sql.query(spendable, &[uuid_datum(self.user).into(), grants.into()]));
            let drawn = draw::draw(&in_order, amount);
            let covered: i64 = drawn.iter().map(|share| share.credits.0).sum();
            if covered == amount.0 {
                return drawn;
            }
            assert!(
                i64::try_from(in_order.len()) == Ok(grants),
                "the grants hold less than the account says"
            );
            grants *= GRANTS_READ_GROWTH;
        }
    }

    /// Draws credits from a grant, and posts that.
    pub(super) fn draw_from(
        &mut self,
        sql: &mut Sql,
        share: Share,
        transaction_type: TransactionType,
        origin: &Origin,
    ) {
        let statement = match transaction_type {
            TransactionType::Expiry => draw!("expired = expired + $3"),
            TransactionType::DebtSettlement => draw!("drawn = drawn + $3, settled = settled + $3"),
            _ => draw!("drawn = drawn + $3"),
        };
        let updated = sql.execute(
            statement,
            &[uuid_datum(self.user).into(), share.grant_id.into(), share.credits.0.into()],
        );
        assert!(updated == 1, "grants are never deleted");
        let grant = Some((share.grant_id, share.pool));
        self.post(sql, Credits(-share.credits.0), grant, transaction_type, origin);
    }

    /// Returns credits to a grant, and posts that. Where more was drawn than the grant is worth, they repay that first. If the
    /// grant has expired meanwhile, they expire when the account is closed.
    pub(super) fn return_to(
        &mut self,
        sql: &mut Sql,
        share: Share,
        transaction_type: TransactionType,
        origin: &Origin,
    ) {
        const RETURN: &str = concat!(
            "with before as (
                 select id, remaining, owed,
                     greatest(amount - (drawn - $3) - moved, 0) - pending - set_aside - expired as left_over,
                     -- What settled a debt can be spent when it comes back, also if its time is over.
                     moved_with is null or $4 = 0 or expires_at > $5 as has_end
                 from billing.credit_grants where user_id = $1 and id = $2
             )
             update billing.credit_grants g set
                 drawn = g.drawn - $3, settled = g.settled - $4, closed_at = null,
                 matters_until = case when g.matters_until is not null then timestamptz 'infinity' end,
                 expires_at = case when b.has_end then g.expires_at end,
                 priority_at = case when b.has_end then g.priority_at end,
                 owed = least(g.owed, greatest(g.drawn - $3 + g.moved - g.amount, 0)),
                 remaining = b.left_over, spendable = b.left_over > 0
             from before b where g.user_id = $1 and g.id = b.id
             returning g.remaining - b.remaining, g.owed <> b.owed, g.expires_at,
                 case when g.moved_with is not null then null
                     when g.stripe_subscription_id is not null then g.period_start
                     when (g.source_id, g.item) = ",
            trial!(),
            " then g.available_from end"
        );
        let settled = if transaction_type == TransactionType::DebtSettlement { share.credits.0 } else { 0 };
        let mut row = sql.query_one(
            RETURN,
            &[
                uuid_datum(self.user).into(),
                share.grant_id.into(),
                share.credits.0.into(),
                settled.into(),
                timestamp(self.now).into(),
            ],
        );
        let spendable: Credits = row.get();
        self.is_owed_changed |= row.get::<bool>();
        self.next_due = earliest(self.next_due, row.get_opt());
        // What is left of its period may be set aside.
        self.touch_grant(row.get_opt());
        self.dirty = true;
        let grant = Some((share.grant_id, share.pool));
        self.post(sql, share.credits, grant, transaction_type, origin);
        if spendable != share.credits {
            let repaid = Credits(spendable.0 - share.credits.0);
            self.post(sql, repaid, grant, TransactionType::Reversal, origin);
        }
    }

    /// What a reservation drew from each grant, in the order in which it did.
    pub(crate) fn drawn(&self, sql: &mut Sql, request_id: &str) -> Vec<Share> {
        shares(sql.query(
            "select grant_id, pool, -amount from billing.credit_transactions
             where user_id = $1 and request_id = $2 and transaction_type = 'reservation' order by id",
            &[uuid_datum(self.user).into(), request_id.into()],
        ))
    }

    /// What a spend or a committed reservation drew from each grant and was not given back, in the order in which it drew.
    pub(crate) fn spent(&self, sql: &mut Sql, request_id: &str) -> Vec<Share> {
        shares(sql.query(
            "with given_back as (
                 select b.grant_id, sum(b.amount)::bigint as credits
                 from (
                     select grant_id, amount from billing.credit_transactions
                     where user_id = $1 and request_id = $2 and transaction_type = 'release'
                     union all
                     select grant_id, amount from billing.credit_transactions
                     where user_id = $1 and metadata ->> 'spend_request_id' = $2 and transaction_type = 'spend_refund'
                 ) b group by b.grant_id
             )
             select t.grant_id, t.pool, -t.amount - coalesce(b.credits, 0)
             from billing.credit_transactions t left join given_back b using (grant_id)
             where t.user_id = $1 and t.request_id = $2 and t.transaction_type in ('spend', 'reservation')
                 and -t.amount > coalesce(b.credits, 0)
             order by t.id",
            &[uuid_datum(self.user).into(), request_id.into()],
        ))
    }

    /// Returns what a reservation held to the grants it came from.
    pub(crate) fn return_reserved(&mut self, sql: &mut Sql, request_id: &str, back: &[Share]) {
        let origin = Origin { request_id: Some(request_id), ..Origin::default() };
        self.return_drawn(sql, back, TransactionType::Release, &origin);
    }

    /// Returns what a request drew to the grants it came from.
    pub(crate) fn return_drawn(
        &mut self,
        sql: &mut Sql,
        back: &[Share],
        transaction_type: TransactionType,
        origin: &Origin,
    ) {
        for share in back {
            self.return_to(sql, *share, transaction_type, origin);
        }
    }
}

//! An account in memory that posts by the rules, as the extension's ledger.rs does, to compare the model with.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bill, Books, Money, Operation, PACK_CENTS, PACK_CREDITS, PERIOD, Plan, Policies, TRIAL_CREDITS};
use crate::amount::{Credits, MinorUnits};
use crate::calendar::{Time, from_unix};
use crate::catalog::{Cancellation, PlanChange};
use crate::draw::{Share, draw, give_back};
use crate::lot::{self, ExistingGrant, NewGrant, Pool};
use crate::plan::{self, Returned};
use crate::reversal::{self, Paid, Reversal, ReversalKind};

/// A row of `credit_grants`.
struct Grant {
    pool: Pool,
    expires_at: Option<Time>,
    settled: i64,
    /// The columns that the rules of plans read; of others than lots, some of them.
    columns: plan::Grant,
}

/// A row of `credit_transactions`, as far as a later one depends on it.
struct Row {
    grant: usize,
    amount: i64,
    why: Why,
}

#[derive(Clone, PartialEq)]
enum Why {
    Spend,
    Reservation(String),
    Settlement,
    Other,
}

pub(super) struct Ledger {
    policies: Policies,
    starts_at: i64,
    now: Time,
    grants: Vec<Grant>,
    rows: Vec<Row>,
    subscriptions: Vec<plan::SubscribedPlan>,
    paid: BTreeMap<String, Paid>,
    owed: BTreeMap<String, i64>,
    reversals: BTreeMap<String, Vec<Reversal>>,
    held: BTreeSet<String>,
    returned: Vec<Returned>,
    lots_settled: usize,
    debt: i64,
}

fn at(seconds: i64) -> Time {
    from_unix(seconds).expect("a time")
}

impl Ledger {
    pub(super) fn new(policies: Policies, starts_at: i64, now: i64) -> Ledger {
        Ledger {
            policies,
            starts_at,
            now: at(now),
            grants: Vec::new(),
            rows: Vec::new(),
            subscriptions: Vec::new(),
            paid: BTreeMap::new(),
            owed: BTreeMap::new(),
            reversals: BTreeMap::new(),
            held: BTreeSet::new(),
            returned: Vec::new(),
            lots_settled: 0,
            debt: 0,
        }
    }

    /// What there is; the tier is not the ledger's.
    pub(super) fn books(&self) -> Books {
        let pool = |pool| {
            self.grants.iter().filter(|grant| grant.pool == pool).map(|grant| grant.columns.remaining.0).sum()
        };
        let grants =
            self.grants.iter().map(|g| (g.columns.source_id.clone(), g.columns.remaining.0)).collect();
        Books {
            pools: [Pool::Subscription, Pool::Purchased, Pool::Promotional].map(pool),
            debt: self.debt,
            grants,
            tier: Default::default(),
        }
    }

    /// Carries out an operation that the model applied.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Buy { session, packs } => {
                let worth = NewGrant::new(
                    session.clone(),
                    String::new(),
                    Credits(PACK_CREDITS * packs),
                    Pool::Purchased,
                );
                self.purchase(session, worth, PACK_CENTS);
            }
            Operation::Grant { request, amount, expires_at } => {
                let lot = NewGrant::new(request.clone(), String::new(), Credits(*amount), Pool::Promotional);
                self.add(request, &NewGrant { expires_at: expires_at.map(at), ..lot });
            }
            Operation::Spend { amount, .. } => self.take(*amount, &Why::Spend),
            Operation::Reserve { request, amount } => {
                self.held.insert(request.clone());
                self.take(*amount, &Why::Reservation(request.clone()));
            }
            Operation::Commit { request, amount } => self.end(request, *amount),
            Operation::Release { request } | Operation::RunOut { request } => self.end(request, Some(0)),
            Operation::Expiry { source } => {
                let grant = self.grants.iter_mut().find(|grant| grant.columns.source_id == *source);
                grant.expect("it was granted").expires_at = Some(self.now);
            }
            Operation::Refund { source, refund, cents, failed } => {
                let undone_at = failed.then(|| at(0));
                let of_refund = reversal(refund, ReversalKind::Refund, *cents);
                self.reversed(source, Reversal { undone_at, ..of_refund });
            }
            Operation::Count { source, cents } => {
                self.reversed(source, reversal(source, ReversalKind::Charge, *cents));
            }
            Operation::Dispute { source, dispute, cents, money } => {
                let withdrawn_at = (*money == Money::Withdrawn).then(|| at(0));
                let reinstated_at = (*money == Money::Reinstated).then(|| at(0));
                let of_dispute = reversal(dispute, ReversalKind::Dispute, *cents);
                self.reversed(source, Reversal { withdrawn_at, reinstated_at, ..of_dispute });
            }
            Operation::Change { subscription, at: as_of, facts } => {
                let at_once = self.policies.plan_change == PlanChange::Reset;
                let known = plan::SubscribedPlan {
                    id: id(*subscription),
                    price_id: Some(facts.plan.price_id().to_owned()),
                    lot_limit: at_once.then_some(Credits(facts.plan.credits())),
                    as_of: at(*as_of),
                    ended_at: facts.ended_at.map(at),
                    ends: facts.ends(),
                };
                self.subscriptions.truncate(*subscription);
                self.subscriptions.push(known);
            }
            Operation::Pay(bill) => self.pay(bill),
        }
        self.close();
    }

    fn close(&mut self) {
        self.settle_lots();
        for index in 0..self.grants.len() {
            let remaining = self.grants[index].columns.remaining.0;
            if self.is_over(index) && remaining > 0 {
                self.grants[index].columns.expired.0 += remaining;
                self.change(index, -remaining, Why::Other);
            }
        }
        self.take(self.debt.min(self.available()), &Why::Settlement);
    }

    fn is_over(&self, index: usize) -> bool {
        self.grants[index].expires_at.is_some_and(|expires_at| expires_at <= self.now)
    }

    fn available(&self) -> i64 {
        self.grants.iter().map(|grant| grant.columns.remaining.0).sum()
    }

    fn change(&mut self, grant: usize, amount: i64, why: Why) {
        self.grants[grant].columns.remaining.0 += amount;
        self.rows.push(Row { grant, amount, why });
    }

    fn take(&mut self, amount: i64, why: &Why) {
        let mut order: Vec<usize> = (0..self.grants.len()).collect();
        order.sort_by_key(|index| {
            let Grant { pool, expires_at, columns, .. } = &self.grants[*index];
            let resets = *pool == Pool::Subscription && columns.max_rollover == Credits::ZERO;
            let priority_at = [*expires_at, resets.then_some(columns.period.1)].into_iter().flatten().min();
            let rank =
                [Pool::Subscription, Pool::Promotional, Pool::Purchased].iter().position(|p| p == pool);
            (priority_at.is_none(), priority_at, rank, *index)
        });
        let shares: Vec<Share> = order.into_iter().map(|index| self.share(index)).collect();
        let drawn = draw(&shares, Credits(amount));
        assert_eq!(drawn.iter().map(|share| share.credits.0).sum::<i64>(), amount);
        for Share { grant_id, credits, .. } in drawn {
            let grant = index(grant_id);
            if *why == Why::Settlement {
                self.grants[grant].settled += credits.0;
                self.debt -= credits.0;
            }
            self.change(grant, -credits.0, why.clone());
        }
    }

    fn share(&self, index: usize) -> Share {
        let grant = &self.grants[index];
        Share { grant_id: grant.columns.id, pool: grant.pool, credits: grant.columns.remaining }
    }

    fn end(&mut self, request: &str, kept: Option<i64>) {
        assert!(self.held.remove(request), "it is held");
        let drawn: Vec<(i64, Share)> = (0..)
            .zip(&self.rows)
            .filter(|(_, row)| row.why == Why::Reservation(request.to_owned()))
            .map(|(id, row)| (id, Share { credits: Credits(-row.amount), ..self.share(row.grant) }))
            .collect();
        let shares: Vec<Share> = drawn.iter().map(|(_, share)| *share).collect();
        let Some(kept) = kept else { return };
        let mut sources = BTreeSet::new();
        for share in give_back(&shares, Credits(kept)) {
            let drawn_by = drawn.iter().find(|(_, drawn)| drawn.grant_id == share.grant_id).expect("drawn").0;
            self.returned.push(Returned { grant_id: share.grant_id, drawn_by, credits: share.credits });
            self.change(index(share.grant_id), share.credits.0, Why::Other);
            sources.insert(self.grants[index(share.grant_id)].columns.source_id.clone());
        }
        for source in sources {
            self.reverse(&source);
        }
    }

    fn purchase(&mut self, source: &str, worth: NewGrant, cents: i64) {
        let of_source = self.grants.iter().filter(|grant| grant.columns.source_id == source);
        let held: Vec<ExistingGrant> = of_source
            .map(|grant| ExistingGrant { item: worth.item.clone(), credits: grant.columns.granted })
            .collect();
        for lot in lot::difference(&held, &[worth]).expect("small numbers").add {
            self.add(source, &lot);
        }
        let paid = Paid { amount: Some(MinorUnits(cents)), currency: Some("usd".into()) };
        self.paid.insert(source.to_owned(), paid);
        self.reverse(source);
    }

    fn pay(&mut self, bill: &Bill) {
        let Bill { plan, period, .. } = *bill;
        let credits = if bill.cents == 0 { TRIAL_CREDITS } else { plan.credits() };
        let cycle = lot::Cycle {
            subscription_id: id(bill.subscription),
            price_id: plan.price_id().to_owned(),
            start: at(period.0),
            end: at(period.1),
            max_rollover: Credits(plan.max_rollover()),
            expires: self.policies.cancellation == Cancellation::Expire,
            paid_at: at(bill.at),
        };
        let lot = NewGrant::new(plan.key().to_owned(), String::new(), Credits(credits), Pool::Subscription);
        self.purchase(&bill.id, NewGrant { cycle: Some(cycle), ..lot }, bill.cents);
    }

    fn add(&mut self, source: &str, lot: &NewGrant) {
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.columns.source_id == source) {
            grant.columns.granted.0 += lot.credits.0;
            grant.columns.remaining.0 += lot.credits.0;
            return;
        }
        let never = at(self.starts_at - PERIOD);
        let cycle = lot.cycle.clone().unwrap_or_else(|| lot::Cycle {
            subscription_id: String::new(),
            price_id: Plan::Pro.price_id().to_owned(),
            start: never,
            end: never,
            max_rollover: Credits::ZERO,
            expires: false,
            paid_at: never,
        });
        let columns = plan::Grant {
            id: i64::try_from(self.grants.len()).expect("few") + 1,
            source_id: source.to_owned(),
            subscription_id: cycle.subscription_id,
            price_id: cycle.price_id,
            period: (cycle.start, cycle.end),
            paid_at: cycle.paid_at,
            max_rollover: cycle.max_rollover,
            expires: cycle.expires,
            available_from: None,
            expires_at: lot.expires_at,
            granted: lot.credits,
            remaining: lot.credits,
            set_aside: Credits::ZERO,
            pending: Credits::ZERO,
            expired: Credits::ZERO,
            reversed: Credits::ZERO,
            owed: Credits::ZERO,
            consumed: None,
            closed_through: None,
            is_new: true,
        };
        self.grants.push(Grant { pool: lot.pool, expires_at: lot.expires_at, settled: 0, columns });
    }

    fn settle_lots(&mut self) {
        let lots = self.grants.iter().filter(|grant| grant.pool == Pool::Subscription);
        let lots: Vec<plan::Grant> = lots
            .map(|grant| plan::Grant {
                owed: Credits(self.owed.get(&grant.columns.source_id).copied().unwrap_or(0)),
                is_new: index(grant.columns.id) >= self.lots_settled,
                expires_at: grant.expires_at,
                ..grant.columns.clone()
            })
            .collect();
        self.lots_settled = self.grants.len();
        let through = i64::try_from(self.rows.len()).expect("few") - 1;
        let returned = std::mem::take(&mut self.returned);
        for target in plan::settle(&lots, &self.subscriptions, &returned, self.now) {
            let Grant { columns, expires_at, .. } = &mut self.grants[index(target.id)];
            *expires_at = target.expires_at;
            (columns.remaining, columns.set_aside, columns.expired) =
                (target.remaining, target.set_aside, target.expired);
            columns.closed_through = match (target.consumed, columns.consumed) {
                (None, _) => None,
                (Some(now), Some(before)) if now <= before => columns.closed_through,
                (Some(_), _) => Some(through),
            };
            columns.consumed = target.consumed;
        }
    }

    fn reversed(&mut self, source: &str, incoming: Reversal) {
        let known = self.reversals.entry(source.to_owned()).or_default();
        match known.iter().position(|known| known.id == incoming.id) {
            Some(at) => known[at] = known[at].clone().merge(incoming),
            None => known.push(incoming),
        }
        self.reverse(source);
    }

    fn reverse(&mut self, source: &str) {
        let (Some(paid), Some(known)) = (self.paid.get(source), self.reversals.get(source)) else { return };
        let Some(part) = reversal::part(paid, known) else { return };
        let Some(grant) = self.grants.iter().position(|grant| grant.columns.source_id == source) else {
            return;
        };
        let is_over = self.is_over(grant);
        let columns = &mut self.grants[grant].columns;
        let books = if is_over {
            reversal::GrantBalance {
                expired: Credits(columns.expired.0 + columns.reversed.0 + columns.set_aside.0),
                reversed: Credits::ZERO,
                available: columns.remaining,
            }
        } else {
            reversal::GrantBalance {
                expired: columns.expired,
                reversed: columns.reversed,
                available: Credits(columns.remaining.0 + columns.set_aside.0),
            }
        };
        let settlement = reversal::settle(&[books], part.of(columns.granted), self.policies.reversal);
        let more = settlement.reversed[0].0 - books.reversed.0;
        let set_aside = more.clamp(0, columns.set_aside.0);
        columns.set_aside.0 -= set_aside;
        columns.reversed.0 += more;
        if more != set_aside {
            self.change(grant, set_aside - more, Why::Other);
        }
        let owed = self.owed.insert(source.to_owned(), settlement.owed.0).unwrap_or(0);
        self.debt += settlement.owed.0 - owed;
        let overpaid = (-self.debt).max(0);
        self.debt = self.debt.max(0);
        for source in self.unsettle(overpaid) {
            self.reverse(&source);
        }
    }

    fn unsettle(&mut self, credits: i64) -> BTreeSet<String> {
        let mut sources = BTreeSet::new();
        let settled = (0..self.grants.len()).rev().filter(|index| self.grants[*index].settled > 0);
        let settled: Vec<Share> = settled
            .map(|index| Share { credits: Credits(self.grants[index].settled), ..self.share(index) })
            .collect();
        for Share { grant_id, credits, .. } in draw(&settled, Credits(credits)) {
            let grant = index(grant_id);
            let rows =
                (0..).zip(&self.rows).filter(|(_, row)| row.grant == grant && row.why == Why::Settlement);
            let rows: Vec<(i64, Credits)> = rows.map(|(id, row)| (id, Credits(-row.amount))).collect();
            self.returned.extend(plan::last_settled(grant_id, &rows, credits));
            self.grants[grant].settled -= credits.0;
            self.change(grant, credits.0, Why::Settlement);
            sources.insert(self.grants[grant].columns.source_id.clone());
        }
        sources
    }
}

fn reversal(id: &str, kind: ReversalKind, cents: i64) -> Reversal {
    Reversal {
        id: id.to_owned(),
        kind,
        amount: MinorUnits(cents),
        currency: Some("usd".into()),
        // All of a payment is one charge here.
        charge_id: Some("ch".to_owned()),
        charged: None,
        refund_id: None,
        made_at: None,
        undone_at: None,
        withdrawn_at: None,
        reinstated_at: None,
        disputed_at: None,
    }
}

fn id(subscription: usize) -> String {
    format!("sub_{subscription}")
}

fn index(grant_id: i64) -> usize {
    usize::try_from(grant_id - 1).expect("ids count from 1")
}

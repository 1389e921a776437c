//! The grants and closings of one moment, computed from all that is known.

use std::collections::BTreeMap;

use super::catalog::Catalog;
use super::closings::{self, Closing, closings};
use super::facts::Facts;
use super::grants::{self, Grant, Key};
use super::lines::{World, lines};
use super::periods::periods;
use super::status;
use super::takeovers::Takeovers;

pub(super) struct View {
    pub(super) now: i64,
    pub(super) grants: Vec<Grant>,
    pub(super) closings: Vec<Closing>,
    pub(super) tier: String,
    /// Under `forgive`: what each grant would be worth had no money come back.
    unreversed: Option<BTreeMap<Key, i64>>,
}

impl View {
    pub(super) fn of(facts: &Facts, catalog: &Catalog, gifts: &[Grant], now: i64) -> View {
        let takeovers = Takeovers::of(facts);
        let world = World { facts, catalog, takeovers: &takeovers, counts_reversals: true };
        let (mut grants, closings) = of_world(&world, now);
        grants.extend_from_slice(gifts);
        let unreversed = catalog.forgives.then(|| {
            let (grants, _) = of_world(&World { counts_reversals: false, ..world }, now);
            grants.iter().map(|grant| (grant.key.clone(), grant.worth())).collect()
        });
        View { now, grants, closings, tier: status::tier(&world), unreversed }
    }

    pub(super) fn grant(&self, key: &Key) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.key == *key)
    }

    /// The names of the closings that have come: what a draw remembers.
    pub(super) fn closed(&self) -> impl Iterator<Item = &String> {
        self.closings.iter().flat_map(|closing| &closing.ids)
    }

    /// "Drawn beyond worth is debt." "`reversal_policy: forgive` writes off what refunds, disputes and credit notes leave;
    /// what a credit line takes back is always debt": what would be missing had no money come back.
    pub(super) fn missing(&self, key: &Key, drawn: i64) -> i64 {
        let missing = (drawn - self.grant(key).map_or(0, Grant::worth)).max(0);
        match &self.unreversed {
            Some(worths) => missing.min((drawn - worths.get(key).copied().unwrap_or(0)).max(0)),
            None => missing,
        }
    }

    /// The moments after `now` at which time alone changes something.
    pub(super) fn moments(&self) -> Vec<i64> {
        let times = self.grants.iter().flat_map(|grant| {
            let fixed = [Some(grant.starts), grant.expires];
            fixed.into_iter().flatten().chain(grant.part_ends.iter().copied())
        });
        let mut moments: Vec<i64> = times.filter(|time| *time > self.now).collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

/// What a world gives without the app's own gifts.
fn of_world(world: &World, now: i64) -> (Vec<Grant>, Vec<Closing>) {
    let lines = lines(world);
    let periods = periods(&lines);
    let openings = closings::openings(&periods, now);
    let mut grants = grants::packs(world, &lines);
    for period in &periods {
        let next = closings::next_opening(&openings, period);
        let removed = status::expires_by_removal(world, &periods, period);
        for mut grant in grants::of_period(world, period) {
            grant.free_until = next.filter(|_| !period.is_purchased);
            grant.expires = [grant.expires, removed].into_iter().flatten().min();
            grants.push(grant);
        }
    }
    let mut ended_trial = None;
    if let Some((trial, stream)) = grants::trial(&lines) {
        ended_trial = closings::end_of_trial(&openings, &trial, &stream);
        grants.push(trial);
    }
    grants.extend(grants::bonus(&lines));
    let mut closings = closings(world, &periods, &grants, now);
    closings.extend(status::limits(world, &periods, &grants, now));
    closings.extend(ended_trial.map(Closing::of_trial));
    closings.sort_by_key(|closing| closing.at);
    (grants, closings)
}

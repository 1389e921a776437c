//! Several users among whom subscriptions move (rule 6): "Its user is the server's latest word (the subscription's
//! metadata): when that names another user, the row, the tier, what is left and what is to come move there; `attribute`
//! does the same by hand."
//!
//! Each user is a [`Customer`] of its own, who has the facts of the subscriptions that are theirs now. What is noted as it
//! happens is whom a subscription left, and what this user had drawn of it by then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::catalog::Catalog;
use super::facts::{self, Facts};
use super::grants::{Grant, Key};
use super::json::{id, integer, metadata};
use super::ledger::{Draw, Kept};
use super::view::View;
use super::{Books, Customer, Outcome, Step};

/// Users, and everything that Stripe has sent of any of them.
pub struct Users {
    catalog: Catalog,
    facts: Facts,
    /// Whom the server named as a subscription's user, and when.
    words: BTreeMap<String, Vec<Word>>,
    /// Whom a session, a payment intent or an invoice of no subscription names: "a pack's session that was paid for another
    /// user stays that user's".
    buyers: BTreeMap<String, String>,
    /// Whom a subscription left last, whom it left first coming first.
    left: Vec<Left>,
    users: BTreeMap<String, Customer>,
    now: i64,
}

/// "Whose a subscription is the server's latest word says: the metadata of its states, or `attribute('sub_…', user)`."
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    as_of: i64,
    /// An operator speaks after every state that is known, and after what operators said before: the number of it, from 1.
    by_operator: usize,
    user: String,
}

/// A user whom a subscription left.
struct Left {
    subscription: String,
    user: String,
    /// "What the old user had drawn stays drawn and stays theirs."
    draws: Vec<Draw>,
}

impl Users {
    /// These users, of whom nothing is known.
    ///
    /// # Panics
    ///
    /// If the document is no catalog.
    #[must_use]
    pub fn new(catalog: &Value, users: &[&str]) -> Users {
        let customer = |user: &&str| ((*user).to_owned(), Customer::new(catalog));
        Users {
            catalog: Catalog::read(catalog),
            facts: Facts::default(),
            words: BTreeMap::new(),
            buyers: BTreeMap::new(),
            left: Vec::new(),
            users: users.iter().map(customer).collect(),
            now: i64::MIN,
        }
    }

    /// An event comes from Stripe, of whichever user.
    pub fn deliver(&mut self, at: i64, event: &Value) {
        self.advance(at);
        let object = &event["data"]["object"];
        let own_time = facts::own_time(event).unwrap_or(at);
        self.each(|user| user.ledger.learn(own_time));
        let named = ["user_id", "userId", "supabase_user_id"].iter().find_map(|key| metadata(object, key));
        if let (Some(id), Some(user)) = (id(&object["id"]), named) {
            match object["object"].as_str() {
                Some("subscription") => {
                    let as_of = integer(&event["created"]).unwrap_or(at);
                    self.hear(&id, Word { as_of, by_operator: 0, user });
                }
                Some("checkout.session" | "payment_intent" | "invoice") => {
                    self.buyers.entry(id).or_insert(user);
                }
                _ => {}
            }
        }
        self.facts.learn(event, at);
        self.share();
    }

    /// An operator gives a subscription to a user. "What an operator said stands until the metadata change."
    pub fn attribute(&mut self, at: i64, subscription: &str, user: &str) {
        self.advance(at);
        self.each(|user| user.ledger.learn_nothing());
        let states =
            self.facts.subscriptions.get(subscription).into_iter().flatten().map(|state| state.as_of);
        let words = self.words.get(subscription).into_iter().flatten().map(|word| word.as_of);
        let as_of = states.chain(words).max().unwrap_or(at);
        let by_operator = self.words.get(subscription).map_or(0, Vec::len) + 1;
        self.hear(subscription, Word { as_of, by_operator, user: user.to_owned() });
        self.share();
    }

    /// One user's app calls.
    ///
    /// # Panics
    ///
    /// If the user is none of these.
    pub fn ask(&mut self, at: i64, user: &str, step: &Step) -> Outcome {
        self.advance(at);
        self.each(|user| user.ledger.learn_nothing());
        let outcome = self.users.get_mut(user).expect("one of the users").apply(at, step);
        self.share();
        outcome
    }

    /// What a user has after the last step.
    #[must_use]
    pub fn books(&self, user: &str) -> Books {
        self.users[user].books()
    }

    /// Whose a subscription is.
    #[must_use]
    pub fn owner(&self, subscription: &str) -> Option<&str> {
        let mut words: Vec<&Word> = self.words.get(subscription)?.iter().collect();
        words.sort();
        // "A state that names the same user as the one before says nothing new."
        let mut before = None;
        words.retain(|word| {
            word.by_operator > 0 || before.replace(&word.user).is_none_or(|before| *before != word.user)
        });
        words.last().map(|word| word.user.as_str())
    }

    fn each(&mut self, what: impl FnMut(&mut Customer)) {
        self.users.values_mut().for_each(what);
    }

    fn advance(&mut self, to: i64) {
        self.now = to;
        self.each(|user| user.advance(to));
        self.share();
    }

    /// A word is known from now on. If it changes whose the subscription is, that moves.
    fn hear(&mut self, subscription: &str, word: Word) {
        let before = self.owner(subscription).map(str::to_owned);
        self.words.entry(subscription.to_owned()).or_default().push(word);
        let now = self.owner(subscription).map(str::to_owned);
        if let (Some(before), Some(now)) = (before, now)
            && before != now
        {
            self.leave(subscription, before, &now);
            // Whoever has it again is no former user of it.
            self.left.retain(|left| left.subscription != subscription || left.user != now);
        }
    }

    /// "What the old user had drawn stays drawn and stays theirs, with the debt that came of it"; "the present user has the
    /// rest, below 0 too": what was credited beyond what was paid is no debt of the old user's, and what settled it comes
    /// back before the subscription leaves. From what is over by then nothing could be drawn again: that goes with the debt.
    fn leave(&mut self, subscription: &str, user: String, to: &str) {
        let keys = self.keys_of(subscription, &user);
        let customer = self.users.get_mut(&user).expect("one of the users");
        let view = customer.view();
        for key in &keys {
            if let Some(grant) = view.grant(key).filter(|grant| grant.worth() < 0) {
                customer.ledger.kept.insert(key.clone(), Kept::of(grant, 0));
            }
        }
        let known = customer.ledger.draws_of(&keys).len();
        customer.ledger.settle(&view);
        let draws = customer.ledger.draws_of(&keys);
        let is_over = |draw: &&Draw| view.grant(draw.key()).is_some_and(|grant| grant.is_over(view.now));
        let gone_with: Vec<Draw> = draws[known..].iter().filter(is_over).filter_map(Draw::undone).collect();
        self.users.get_mut(to).expect("one of the users").ledger.take_over(gone_with);
        self.left.retain(|left| left.subscription != subscription || left.user != user);
        self.left.push(Left { subscription: subscription.to_owned(), user, draws });
    }

    /// The grants of a subscription: of its periods, of packs on its invoices, and "the trial and the first purchase's bonus,
    /// if they came with the subscription".
    fn keys_of(&self, subscription: &str, user: &str) -> BTreeSet<Key> {
        let alone = self.facts.only(&|id| id == subscription, &|_| true);
        let its = View::of(&alone, &self.catalog, &[], self.now);
        let all = self.users[user].view();
        let is_its = |grant: &&Grant| all.grant(&grant.key).is_some_and(|own| own.starts == grant.starts);
        its.grants.iter().filter(is_its).map(|grant| grant.key.clone()).collect()
    }

    /// Lets every user know what is theirs now, and settle what is owed.
    fn share(&mut self) {
        let takeovers = super::takeovers::Takeovers::of(&self.facts);
        for draw in self.left.iter_mut().flat_map(|left| &mut left.draws) {
            draw.rename(&self.facts, &takeovers);
        }
        let names: Vec<String> = self.users.keys().cloned().collect();
        for user in &names {
            let is_theirs = |subscription: &str| self.owner(subscription) == Some(user.as_str());
            let is_others = |id: &str| self.buyers.get(id).is_some_and(|buyer| buyer != user);
            let mut facts = self.facts.only(&is_theirs, &is_others);
            facts.subscriptions.retain(|subscription, _| is_theirs(subscription));
            let of_others = self.left.iter().filter(|left| is_theirs(&left.subscription));
            let of_others = of_others.flat_map(|left| left.draws.iter().cloned()).collect();
            let customer = self.users.get_mut(user).expect("one of them");
            customer.facts = facts;
            customer.ledger.rename(&self.facts);
            customer.ledger.of_others = of_others;
        }
        let closed: BTreeSet<String> =
            self.users.values().flat_map(|user| user.view().closed().cloned().collect::<Vec<_>>()).collect();
        for user in &names {
            let kept = self.kept_by(user);
            let customer = self.users.get_mut(user).expect("one of them");
            customer.ledger.kept = kept;
            customer.ledger.closed_elsewhere.clone_from(&closed);
            customer.settle();
        }
    }

    /// "Each former user has `min(what this user had drawn when the subscription left, what is left of W)`, whom it left
    /// first coming first."
    fn kept_by(&self, user: &str) -> BTreeMap<Key, Kept> {
        let mut kept = BTreeMap::new();
        for (place, left) in self.left.iter().enumerate().filter(|(_, left)| left.user == user) {
            let Some(owner) = self.owner(&left.subscription) else { continue };
            let view = self.users[owner].view();
            let earlier: Vec<&Draw> = self.left[..place]
                .iter()
                .filter(|other| other.subscription == left.subscription)
                .flat_map(|other| &other.draws)
                .collect();
            for key in left.draws.iter().map(Draw::key) {
                let Some(grant) = view.grant(key) else { continue };
                let before = Draw::sum(earlier.iter().copied(), key);
                let own = Draw::sum(&left.draws, key);
                kept.insert(key.clone(), Kept::of(grant, own.min(grant.worth().max(0) - before).max(0)));
            }
        }
        kept
    }
}

//! Every vector, step by step: `vectors/README.md` says what a vector is.

use serde_json::Value;
use stripe_credits_rules::calendar::{TimeDelta, from_unix};
use stripe_credits_rules::vectors::{all, at_base, expected};

use crate::account::Account;
use crate::stripe::{Catalog, Told};

const DAY: i64 = 86_400;

/// A base for vectors that name none, and one from which months of 30 days cross months of 31 and of 28.
const BASES: [i64; 2] = [1_700_000_000, 1_700_000_000 + 47 * DAY];

/// What clock a vector is played by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// It stands at each step's time.
    Moves,
    /// All of it was long ago.
    Stands,
}

/// The first step whose numbers differ.
fn play(vector: &Value, base: i64, clock: Clock) -> Option<String> {
    let catalog = Catalog::read(&vector["catalog"]);
    let last = vector["last"].as_i64().expect("last");
    let at = |seconds: i64| from_unix(base + seconds).expect("a time");
    let (mut account, mut told) = (Account::new(at(0)), Told::default());
    if clock == Clock::Stands {
        account = Account::new(at(last) + TimeDelta::seconds(1));
    }
    for (index, step) in vector["steps"].as_array().expect("steps").iter().enumerate() {
        let happened = at(step["at"].as_i64().expect("at"));
        if clock == Clock::Moves {
            account.pass_to(happened);
        }
        if step["deliver"].is_object() {
            told.hear(&at_base(&step["deliver"], base), account.known_at());
            account.learn(told.facts(&catalog), happened);
        }
        if let Some(amount) = step["spend"].as_i64() {
            let outcome = if account.spend(amount) { "applied" } else { "rejected" };
            if step["outcome"] != outcome {
                return Some(format!("step {index}: spending {amount} was {outcome}"));
            }
        }
        let balances = account.balances();
        let got = serde_json::json!({
            "balance": balances.balance(),
            "debt": balances.debt,
            "total": balances.total(),
            "subscription": balances.subscription,
            "purchased": balances.purchased,
            "promotional": balances.promotional,
        });
        let expected = expected(vector, index);
        if got != expected {
            return Some(format!("step {index}: {got}, not {expected}\n{:#?}", account.holdings().targets));
        }
    }
    None
}

#[test]
fn every_vector_stands_after_every_step() {
    let vectors = all();
    assert_eq!(vectors.len(), 85);
    let mut wrong = Vec::new();
    for (name, vector) in &vectors {
        let bases = vector["base"].as_i64().map_or(BASES.to_vec(), |base| vec![base]);
        let clocks: &[Clock] =
            if vector["clock"] == "any" { &[Clock::Moves, Clock::Stands] } else { &[Clock::Moves] };
        for (base, clock) in bases.iter().flat_map(|base| clocks.iter().map(move |clock| (*base, *clock))) {
            if let Some(difference) = play(vector, base, clock) {
                wrong.push(format!("{name} from {base}, clock {clock:?}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

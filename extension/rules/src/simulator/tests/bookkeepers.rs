//! The properties hold of bookkeepers that are right, and each finds those that are wrong.

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::{choices, kinds_of_simulation};
use crate::simulator::{
    BillingMode, Books, CHANGES, EVERYTHING, HONEST, Happening, Settings, Step, Violation, exploit, fair,
    history, honest,
};

/// What a bookkeeper does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Refunds, disputes and credit notes take nothing back.
    KeepsMoneyBack,
    /// Lines below 0 take nothing back.
    KeepsCredits,
    /// What is drawn twice is never owed.
    ForgivesDebt,
    /// A renewal grants nothing.
    SkipsRenewals,
    /// A renewal that is paid late grants nothing.
    SkipsLateRenewals,
}

/// Gives a credit for each cent that stays: right at prices of a credit a cent.
struct Bookkeeper {
    flaw: Flaw,
    bought: i64,
    drawn: i64,
}

impl Bookkeeper {
    fn new(flaw: Flaw) -> Bookkeeper {
        Bookkeeper { flaw, bought: 0, drawn: 0 }
    }

    fn play(&mut self, step: Step<'_>) -> Books {
        match step {
            Step::Deliver(event) => self.hear(&event.event_type, &event.body["data"]["object"]),
            Step::Spend { amount, .. } => self.drawn += amount,
            Step::Look { .. } => {}
        }
        let left = self.bought - self.drawn;
        if self.flaw == Flaw::ForgivesDebt && left < 0 {
            self.drawn = self.bought;
        }
        Books { balance: left.max(0), debt: (self.drawn - self.bought).max(0) }
    }

    fn hear(&mut self, event_type: &str, object: &serde_json::Value) {
        let cents = |field: &str| object[field].as_i64().unwrap_or(0);
        let back = i64::from(self.flaw != Flaw::KeepsMoneyBack);
        self.bought += match event_type {
            "invoice.paid" => self.worth(object),
            "checkout.session.completed" => cents("amount_total"),
            "refund.created" | "charge.dispute.funds_withdrawn" => -back * cents("amount"),
            "refund.failed" | "charge.dispute.funds_reinstated" => back * cents("amount"),
            "credit_note.created" if object["type"] == "post_payment" => {
                let refunds = object["refunds"].as_array().into_iter().flatten();
                let refunded: i64 = refunds.filter_map(|refund| refund["amount_refunded"].as_i64()).sum();
                let older = if object["refund"].is_string() { cents("total") } else { 0 };
                -back * (cents("total") - refunded - older)
            }
            _ => 0,
        };
    }

    fn worth(&self, invoice: &serde_json::Value) -> i64 {
        let renews = invoice["billing_reason"] == "subscription_cycle";
        let late = invoice["created"] != invoice["status_transitions"]["paid_at"];
        if (self.flaw == Flaw::SkipsRenewals && renews) || (self.flaw == Flaw::SkipsLateRenewals && late) {
            return 0;
        }
        let lines = invoice["lines"]["data"].as_array().into_iter().flatten();
        let amounts = lines.filter_map(|line| line["amount"].as_i64());
        let kept = amounts.map(|amount| if self.flaw == Flaw::KeepsCredits { amount.max(0) } else { amount });
        kept.sum::<i64>() - invoice["pre_payment_credit_notes_amount"].as_i64().unwrap_or(0)
    }
}

type Property = fn(&[Happening], Bookkeeper) -> Result<(), Violation>;

fn exploits(history: &[Happening], mut books: Bookkeeper) -> Result<(), Violation> {
    exploit(history, |step| books.play(step))
}

fn is_fair(history: &[Happening], mut books: Bookkeeper) -> Result<(), Violation> {
    fair(history, |step| books.play(step))
}

fn is_honest(history: &[Happening], mut books: Bookkeeper) -> Result<(), Violation> {
    honest(history, &[255, 100, 0], |step| books.play(step))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_bookkeeper_that_counts_money_gives_and_takes_what_is_right(
        (mode, settings) in kinds_of_simulation(),
        choices in choices(14),
    ) {
        let all = history(settings.clone(), mode, EVERYTHING, &choices);
        prop_assert_eq!(exploits(&all, Bookkeeper::new(Flaw::None)), Ok(()));
        prop_assert_eq!(is_fair(&all, Bookkeeper::new(Flaw::None)), Ok(()));
        // Not with years and moved anchors: what is paid ahead is there at once in these books, and may be drawn too early.
        let honest = history(settings, mode, HONEST, &choices);
        prop_assert_eq!(is_honest(&honest, Bookkeeper::new(Flaw::None)), Ok(()));
    }
}

#[test]
fn each_property_finds_the_bookkeepers_that_break_it() {
    let flaws: [(Flaw, &[_], Property); 5] = [
        (Flaw::KeepsMoneyBack, EVERYTHING, exploits),
        (Flaw::KeepsCredits, CHANGES, exploits),
        (Flaw::ForgivesDebt, CHANGES, exploits),
        (Flaw::SkipsRenewals, CHANGES, is_fair),
        (Flaw::SkipsLateRenewals, HONEST, is_honest),
    ];
    for (flaw, menu, property) in flaws {
        let found = TestRunner::deterministic().run(&choices(14), |choices| {
            let history = history(Settings::default(), BillingMode::Classic, menu, &choices);
            property(&history, Bookkeeper::new(flaw))
                .map_err(|violation| TestCaseError::fail(violation.to_string()))
        });
        let Err(TestError::Fail(_, choices)) = found else { panic!("{flaw:?} was not found") };
        assert!(choices.len() <= 4, "{flaw:?}: shrinks to {} operations", choices.len());
    }
}

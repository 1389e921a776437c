//! The rules and the model agree.

use proptest::prelude::*;

use super::choice::Among;
use super::ledger::Ledger;
use super::*;

/// By when periods are over: past ones are, future ones are not.
const NOW: i64 = 1_800_000_000;
const PAST: i64 = 1_000_000_000;
const FUTURE: i64 = 3_000_000_000;

fn policies() -> impl Strategy<Value = Policies> {
    let reversal = prop::sample::select(vec![ReversalPolicy::Debt, ReversalPolicy::Forgive]);
    let cancellation = prop::sample::select(vec![Cancellation::Keep, Cancellation::Expire]);
    let plan_change = prop::sample::select(vec![PlanChange::Reset, PlanChange::Reset, PlanChange::Keep]);
    (reversal, cancellation, plan_change).prop_map(|(reversal, cancellation, plan_change)| Policies {
        reversal,
        cancellation,
        plan_change,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_the_rules_agree_with_the_model(
        policies in policies(),
        starts_at in prop::sample::select(vec![PAST, FUTURE]),
        numbers in proptest::collection::vec(any::<u64>(), 1..70),
    ) {
        let mut person = Person::new("a", policies, starts_at, NOW);
        let mut ledger = Ledger::new(policies, starts_at, NOW);
        let mut done = Vec::new();
        for number in numbers {
            let Some(operation) = person.choose(number, Among::Everything) else { continue };
            let outcome = person.apply(&operation);
            if !(outcome.starts_with("rejected") || outcome == "already_applied" && !money_moves(&operation)) {
                ledger.apply(&operation);
            }
            done.push(format!("{operation:?}: {outcome}"));
            let expected = Books { tier: Default::default(), ..person.books() };
            prop_assert_eq!(ledger.books(), expected, "after:\n{}", done.join("\n"));
        }
    }
}

/// Whether it is something that changes what is known even where nothing is posted for it.
fn money_moves(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Buy { .. }
            | Operation::Refund { .. }
            | Operation::Count { .. }
            | Operation::Dispute { .. }
            | Operation::Change { .. }
    )
}

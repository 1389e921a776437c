//! The torture run's judge is right: each way in which books can be wrong is found, and told apart from the others. The
//! run itself is `cargo xtask torture`.

use stripe_credits_tests::torture::verdict::{
    Books, Finding, Granted, Journal, Payment, Posted, Request, compare,
};
use stripe_credits_tests::{ANN, BOB};

/// A pack, a refunded pack and a month, a spend, a refund of a part of it, and a call without an answer.
fn journal() -> Journal {
    let paid = |id: &str, credits| Payment {
        id: id.to_owned(),
        user: ANN,
        credits,
        kept: credits,
        was_reversed: false,
        is_acknowledged: true,
    };
    let asked = |id: &str, sums: &[i64]| Request { id: id.to_owned(), user: ANN, sums: sums.to_vec() };
    Journal {
        payments: vec![
            paid("cs_1", 500),
            Payment { kept: 300, was_reversed: true, ..paid("cs_2", 500) },
            paid("sub_1@0", 10_000),
        ],
        requests: vec![asked("job-1", &[-70]), asked("job-2", &[20]), asked("job-3", &[0, -30])],
    }
}

/// The books of that.
fn books() -> Books {
    let granted =
        |payment: &str, posted, worth| Granted { payment: payment.to_owned(), user: ANN, posted, worth };
    let posted = |request: &str, sum| Posted { request: request.to_owned(), user: ANN, sum };
    Books {
        granted: vec![
            granted("cs_1", 500, 500),
            granted("cs_2", 500, 300),
            granted("sub_1@0", 10_000, 10_000),
        ],
        posted: vec![posted("job-1", -70), posted("job-2", 20)],
    }
}

/// What is found once the books were changed.
fn found(change: impl FnOnce(&mut Books)) -> Vec<Finding> {
    let mut books = books();
    change(&mut books);
    compare(&journal(), &books)
}

fn cs_1() -> String {
    "cs_1".to_owned()
}

fn job(number: u32) -> String {
    format!("job-{number}")
}

#[test]
fn books_that_are_what_was_done_are_right_with_and_without_what_had_no_answer() {
    assert_eq!(found(|_| {}), []);
    let kept = |books: &mut Books| {
        books.posted.push(Posted { request: job(3), user: ANN, sum: -30 });
    };
    assert_eq!(found(kept), [], "a call without an answer may have been done");
    let netted = |books: &mut Books| books.granted[1].posted = 300;
    assert_eq!(found(netted), [], "a refund that came before its purchase");
}

#[test]
fn lost_doubled_unpaid_and_unacknowledged_grants_are_told_apart() {
    let lost = [Finding::LostGrant { payment: cs_1() }];
    assert_eq!(found(|books| drop(books.granted.remove(0))), lost);
    assert_eq!(found(|books| (books.granted[0].posted, books.granted[0].worth) = (0, 0)), lost);

    let doubled = [Finding::DoubledGrant { payment: cs_1(), credits: 500, posted: 1000 }];
    assert_eq!(found(|books| books.granted.push(books.granted[0].clone())), doubled);
    assert_eq!(found(|books| books.granted[0].posted = 1000), doubled, "twice in one ledger");

    let unpaid = |books: &mut Books| "cs_9".clone_into(&mut books.granted[0].payment);
    let gift = Finding::UnpaidGrant { payment: "cs_9".to_owned(), posted: 500 };
    assert_eq!(found(unpaid), [Finding::LostGrant { payment: cs_1() }, gift]);

    let mut unanswered = journal();
    unanswered.payments[0].is_acknowledged = false;
    let open = [Finding::UnacknowledgedPayment { payment: cs_1() }];
    assert_eq!(compare(&unanswered, &books()), open, "granted, and Stripe was never answered 2xx");
    let mut nothing = books();
    nothing.granted.remove(0);
    assert_eq!(compare(&unanswered, &nothing), open, "and not granted");
}

#[test]
fn a_wrong_amount_a_wrong_user_and_a_refund_that_took_nothing_are_told_apart() {
    let wrong = [Finding::WrongGrant { payment: cs_1(), credits: 500, posted: 499 }];
    assert_eq!(found(|books| books.granted[0].posted = 499), wrong);
    assert_eq!(found(|books| books.granted[0].user = BOB), [Finding::WrongUser { payment: cs_1() }]);
    let refund = [Finding::WrongWorth { payment: "cs_2".to_owned(), kept: 300, worth: 500 }];
    assert_eq!(found(|books| books.granted[1].worth = 500), refund);
    let month = [Finding::WrongWorth { payment: "sub_1@0".to_owned(), kept: 10_000, worth: 5_000 }];
    assert_eq!(found(|books| books.granted[2].worth = 5_000), month, "nobody refunded it");
}

#[test]
fn lost_doubled_wrong_and_unasked_spends_are_told_apart() {
    let lost = [Finding::LostSpend { request: job(1), sums: vec![-70] }];
    assert_eq!(found(|books| drop(books.posted.remove(0))), lost);
    let doubled = Finding::DoubledSpend { request: job(1), sum: -140 };
    assert_eq!(found(|books| books.posted[0].sum = -140), [doubled]);
    let wrong = Finding::WrongSpend { request: job(2), sums: vec![20], sum: 19 };
    assert_eq!(found(|books| books.posted[1].sum = 19), [wrong]);
    let twice = Finding::DoubledSpend { request: job(3), sum: -60 };
    let posted = Posted { request: job(3), user: ANN, sum: -60 };
    assert_eq!(found(|books| books.posted.push(posted)), [twice], "once at most");
    let unasked = Finding::UnaskedSpend { request: job(9), sum: -1 };
    let posted = Posted { request: job(9), user: ANN, sum: -1 };
    assert_eq!(found(|books| books.posted.push(posted)), [unasked]);
    let others = |books: &mut Books| books.posted[0].user = BOB;
    let gone = Finding::UnaskedSpend { request: job(1), sum: -70 };
    assert_eq!(found(others), [lost[0].clone(), gone], "of another user");
}

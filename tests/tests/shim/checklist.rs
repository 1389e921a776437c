//! `cargo xtask checklist`, here against the fake Stripe: the same code, but for the address.

use stripe_credits_tests::Database;
use stripe_credits_tests::app::app;
use stripe_credits_tests::fake_stripe::{FakeStripe, KEY};
use stripe_credits_tests::shim::SECRET;
use stripe_credits_tests::tokens::JWT_SECRET;
use xtask::checklist::api::Api;
use xtask::checklist::{Ended, Played, Shop, play};

/// Plays all of it against a fake.
fn played(stripe: &FakeStripe, database: &Database, has_buyer: bool) -> Vec<Played> {
    let setup = app(database, stripe).without("JWT_ISSUER").without("JWT_AUDIENCE");
    let shim = setup.start();
    let api = Api::new(&stripe.base(), KEY).expect("a test key");
    let shop = Shop {
        stripe: &api,
        shim: &format!("http://{}", shim.address()),
        webhook_secret: SECRET,
        jwt_secret: JWT_SECRET,
        has_buyer,
    };
    let mut told = 0;
    let books = postgres::Client::connect(&database.url(), postgres::NoTls).expect("the database is there");
    let played = play(&shop, books, |_| told += 1).expect("it is played");
    assert_eq!(told, played.len());
    played
}

#[test]
fn the_twelve_scenarios_pass_at_a_stripe_where_a_buyer_pays() {
    let (stripe, database) = (FakeStripe::start(), Database::new());
    stripe.has_buyers();
    let played = played(&stripe, &database, true);
    assert_eq!(played.len(), 12);
    assert!(played.iter().all(|played| played.ended == Ended::Passed), "{played:#?}");
}

#[test]
fn what_a_person_has_to_pay_is_left_out_unattended_and_a_wrong_balance_fails() {
    let (stripe, database) = (FakeStripe::start(), Database::new());
    let all = played(&stripe, &database, false);
    let left_out: Vec<u8> =
        all.iter().filter(|played| played.ended == Ended::LeftOut).map(|played| played.number).collect();
    assert_eq!(left_out, [4, 5]);
    assert!(!all.iter().any(|played| matches!(played.ended, Ended::Failed(_))), "{all:#?}");

    // A Stripe that declines: nothing is taken as played.
    let (stripe, database) = (FakeStripe::start(), Database::new());
    stripe.decline_cards();
    let all = played(&stripe, &database, false);
    let failed = all.iter().filter(|played| matches!(played.ended, Ended::Failed(_))).count();
    assert_eq!(failed, 8, "{all:#?}");
}

#[test]
fn a_live_key_is_refused_before_anything_is_asked() {
    for key in ["sk_live_of_a_shop", "rk_test_of_a_shop", "pk_test_of_a_shop", ""] {
        let refused = Api::new("http://127.0.0.1:1", key).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("sk_test_")), "{key}");
    }
}

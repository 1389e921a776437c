//! examples/return-flow in a real browser: the buyer comes back from Stripe to the app's page, which asks the real
//! shim, on another origin. Asserted are the page's words, its address, the books and the number of requests.

use std::time::Duration;

use serde_json::{Value, json};
use stripe_credits_tests::app::app;
use stripe_credits_tests::browser::{Browser, Tab};
use stripe_credits_tests::fake_redis::{Behaviour, FakeRedis};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::pages::Pages;
use stripe_credits_tests::shim::{Setup, Shim, unix_now, until};
use stripe_credits_tests::subscription::{Invoice, invoice, line, period, subscribing, subscription};
use stripe_credits_tests::tokens::{Signer, claims, token};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, session};

const PACK: &str = "/reconcile-stripe-credit-pack";
const PLAN: &str = "/reconcile-stripe-checkout";
const CREDITS: &str = "/credits";
/// What Stripe's pages send the buyer back to.
const BOUGHT_PACK: &str = "/index.html?tab=credits&credits_checkout=success&session_id=cs_1";
const BOUGHT_PLAN: &str = "/index.html?tab=credits&checkout=success&session_id=cs_1";
/// The address after the purchase shows.
const DONE: &str = "/index.html?tab=credits";
/// What the page says then.
const HAS_500: &str = "Your purchase is in: you have 500 credits.";
/// Longer than the page looks for a purchase.
const PAST_THE_LIMIT: Duration = Duration::from_secs(61);

/// Everything that a test needs; dropped in this order.
struct Scene {
    browser: Browser,
    shim: Shim,
    pages: Pages,
    stripe: FakeStripe,
    database: Database,
}

impl Scene {
    fn start() -> Scene {
        Scene::with(|shim| shim)
    }

    /// With other settings of the shim's.
    fn with(change: impl FnOnce(Setup) -> Setup) -> Scene {
        let (database, stripe, pages) = (Database::with_catalog(), FakeStripe::start(), Pages::start());
        let shim = change(app(&database, &stripe).with("CORS_ORIGINS", &pages.origin())).start();
        pages.configure(&format!("http://{}", shim.address()));
        Scene { browser: Browser::start(), shim, pages, stripe, database }
    }

    /// A tab in which Ann is signed in.
    fn anns_tab(&self) -> Tab<'_> {
        let tab = self.browser.tab();
        tab.is_signed_in(&self.pages, ANN);
        tab
    }

    fn comes_back(&self, tab: &Tab, path: &str) {
        tab.open(&self.pages.url(path));
    }

    fn is_done(&self, tab: &Tab) {
        assert_eq!(tab.address(), self.pages.url(DONE));
    }

    /// The outcomes of so many reconciles, and no more.
    fn reconciled(&self, route: &str, count: usize) -> Vec<Value> {
        self.shim.requests(route, count).iter().map(|line| line["outcome"].clone()).collect()
    }

    /// The number of requests to a route so far.
    fn asked(&self, route: &str) -> u64 {
        self.shim.metric("stripe_credits_requests_total", &[("route", route)])
    }

    fn books(&self) -> Connection {
        self.database.connect()
    }
}

/// Ann has bought a pack, and Stripe has the money.
fn pack_is_paid(scene: &Scene) {
    scene.stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
}

/// Ann has bought a pack, and Stripe does not have the money yet.
fn pack_is_on_its_way(scene: &Scene) {
    let unpaid = paid_pack("cs_1", ANN).with("payment_status", "unpaid");
    scene.stripe.knows_session(unpaid.json().clone());
}

/// Ann has bought the plan pro, and this is its first invoice.
fn plan_is_bought(scene: &Scene, invoice: &Invoice) {
    scene.stripe.knows_session(subscribing("cs_1", "sub_1", "in_1").of(ANN).json().clone());
    scene.stripe.knows_line_items_of("cs_1", &[("price_pro", 1)]);
    scene.stripe.knows_subscription(subscription("sub_1", "price_pro").of(ANN).json().clone());
    scene.stripe.knows_invoice(invoice.json().clone());
}

/// That invoice, paid.
fn plans_invoice() -> Invoice {
    invoice("in_1", "sub_1").line(line("price_pro", 10_000, period(0))).of(ANN)
}

#[test]
fn a_pack_is_reconciled_once_and_its_parameters_go_once_it_shows() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["applied"]);
    assert_eq!(scene.asked(CREDITS), 2, "before and after");
    assert_eq!(scene.stripe.asked().len(), 1);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);

    tab.reload();
    tab.says("There is no purchase to confirm.");
    assert_eq!(scene.asked(PACK), 1);
}

#[test]
fn a_purchase_that_is_in_is_celebrated_unless_less_motion_is_asked_for() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    // Whatever is added to the page, also what is gone again when it is looked at.
    let watch = "window.seen = 0; new MutationObserver(() => {
        seen = Math.max(seen, document.querySelectorAll('.confetti i').length) }).observe(document, { childList: true,
        subtree: true })";
    for (less_motion, pieces) in [(false, 60), (true, 0)] {
        if less_motion {
            tab.calm();
        }
        tab.open(&scene.pages.url("/sign-in.html"));
        tab.init(watch);
        scene.comes_back(&tab, BOUGHT_PACK);
        tab.says(HAS_500);
        until("the confetti is gone", || {
            tab.run("document.querySelector('.confetti') === null") == json!(true)
        });
        assert_eq!(tab.run("seen"), json!(pieces), "less motion: {less_motion}");
    }
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_page_that_listens_shows_a_late_purchase_when_it_lands() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    until("it has looked once more since it listens", || {
        scene.asked("/events") == 1 && scene.asked(CREDITS) >= 3
    });
    let looks = scene.asked(CREDITS);
    pack_is_paid(&scene);
    let page_time = || tab.run("Date.now()").as_u64().expect("milliseconds");
    let since = page_time();
    assert_eq!(scene.shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    tab.says(HAS_500);
    scene.is_done(&tab);
    // Without events it looks every two seconds, with them every 15.
    assert!(page_time() - since < 12_000, "{} ms", page_time() - since);
    assert!(scene.asked(CREDITS) - looks <= 3, "{} looks", scene.asked(CREDITS) - looks);
    assert_eq!(scene.reconciled(PACK, 2), ["ignored", "already_applied"]);
}

#[test]
fn a_page_that_cannot_listen_looks_every_two_seconds() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    tab.cut("/events");
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    until("it looks again and again", || {
        tab.advance(Duration::from_millis(500));
        scene.asked(CREDITS) >= 5
    });
    assert_eq!(scene.asked("/events"), 0);
    pack_is_paid(&scene);
    assert_eq!(scene.shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    tab.says(HAS_500);
    scene.is_done(&tab);
}

#[test]
fn each_step_is_told_with_its_status_and_time_and_without_a_secret() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    let steps = tab.run(&format!(
        "(async () => {{
            const {{ followReturn }} = await import('./stripe-credits/browser.js');
            const auth = await import('./auth.js');
            history.replaceState(null, '', '?credits_checkout=success&session_id=cs_1');
            const steps = [];
            const options = {{ url: 'http://{}', ...auth, onStep: (step) => steps.push(step) }};
            return new Promise((resolve) => followReturn({{ ...options, onLate: () => resolve([...steps]) }}));
        }})()",
        scene.shim.address()
    ));
    let told: Vec<(&Value, &Value, &Value)> = steps
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (&step["step"], &step["status"], &step["reason"]))
        .collect();
    let pack = json!("POST /reconcile-stripe-credit-pack");
    let credits = json!("GET /credits");
    let (ok, conflict, unpaid, nothing) = (json!(200), json!(409), json!("unpaid"), Value::Null);
    assert_eq!(told, [(&credits, &ok, &nothing), (&pack, &conflict, &unpaid), (&credits, &ok, &nothing)]);
    assert!(steps[0]["hasToken"] == json!(true) && steps[0]["ms"].is_number(), "{steps}");
    assert!(!steps.to_string().contains(&token(ANN)[..20]), "{steps}");
}

#[test]
fn a_plan_is_reconciled_by_its_own_route() {
    let scene = Scene::start();
    plan_is_bought(&scene, &plans_invoice());
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PLAN);
    tab.says("you have 10,000 credits and the plan Pro.");
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PLAN, 1), ["applied"]);
    assert_eq!(scene.books().ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn a_plan_that_is_active_before_its_invoice_is_paid_is_still_on_its_way() {
    let scene = Scene::start();
    plan_is_bought(&scene, &plans_invoice().unpaid("open"));
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PLAN);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    // The tier shows by now: a change of the credits, but not the purchase.
    until("it asks again", || scene.asked(PLAN) == 2);
    assert_eq!(scene.books().tier(ANN), "pro active");
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PLAN));

    plan_is_bought(&scene, &plans_invoice());
    assert_eq!(scene.shim.deliver(&plans_invoice().paid("evt_1")).summary(), "200 applied");
    tab.says("you have 10,000 credits and the plan Pro.");
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PLAN, 3), ["ignored", "ignored", "already_applied"]);
    assert_eq!(scene.books().ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn what_the_webhook_has_applied_already_shows_at_once() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    assert_eq!(scene.shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["already_applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_token_that_has_expired_is_signed_out_and_the_purchase_goes_on_after_signing_in() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    let mut expired = claims(ANN);
    expired["exp"] = json!(unix_now() - 60);
    let expired = Signer::secret().sign(&expired);
    tab.run(&format!("localStorage.setItem('token', '{expired}')"));
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.is_at(&scene.pages.url("/sign-in.html?return_to="));
    assert_eq!(tab.run("localStorage.getItem('token')"), Value::Null, "signed out");
    assert!(tab.address().contains("credits_checkout%3Dsuccess%26session_id%3Dcs_1"), "{}", tab.address());
    assert_eq!(scene.books().ledger(ANN), [""; 0]);

    tab.sign_in(&token(ANN));
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
    // The back button leads neither to the refused visit nor to the sign-in.
    tab.back();
    tab.says("There is no purchase to confirm.");
    assert_eq!(tab.address(), scene.pages.url("/index.html"));
}

#[test]
fn a_token_that_expires_while_a_late_payment_is_looked_for_leads_to_sign_in_too() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    tab.run("localStorage.setItem('token', 'a.b.c')");
    tab.is_at(&scene.pages.url("/sign-in.html?return_to="));
    pack_is_paid(&scene);
    tab.sign_in(&token(ANN));
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn without_a_signed_in_user_the_page_goes_to_sign_in_without_a_request() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.browser.tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.is_at(&scene.pages.url("/sign-in.html?return_to="));
    assert_eq!([PACK, CREDITS].map(|route| scene.asked(route)), [0; 2]);
    tab.sign_in(&token(ANN));
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_token_refused_after_signing_in_is_reported_without_a_loop() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.browser.tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.is_at(&scene.pages.url("/sign-in.html?return_to="));
    let forged = Signer::Secret("x".repeat(40)).sign(&claims(ANN));
    tab.sign_in(&forged);
    tab.says("Your sign-in was not accepted");
    assert!(tab.address().starts_with(&scene.pages.url(BOUGHT_PACK)), "{}", tab.address());
    tab.reload();
    tab.says("Your sign-in was not accepted");
    assert_eq!([PACK, CREDITS].map(|route| scene.asked(route)), [0, 2], "one a visit");

    tab.click("Sign in again");
    tab.is_at(&scene.pages.url("/sign-in.html?return_to="));
    tab.sign_in(&token(ANN));
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_setting_that_the_shim_lacks_is_named_and_the_parameters_stay() {
    let scene = Scene::with(|shim| shim.without("STRIPE_SECRET_KEY").without("STRIPE_API_BASE"));
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("This page is not set up. It lacks STRIPE_SECRET_KEY.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    assert_eq!(scene.shim.requests(PACK, 1).len(), 1);
    assert_eq!(scene.books().ledger(ANN), [""; 0]);
}

#[test]
fn a_page_that_knows_no_shim_says_so() {
    let scene = Scene::start();
    let tab = scene.anns_tab();
    scene.pages.configure("");
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("This page is not set up. It lacks url.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));

    scene.pages.configure(&format!("http://{}/", scene.shim.address()));
    pack_is_paid(&scene);
    tab.click("Look again");
    tab.says(HAS_500);
    scene.is_done(&tab);
}

#[test]
fn a_payment_on_its_way_is_reported_and_shows_once_the_webhook_comes() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    until("the page keeps looking", || scene.asked(CREDITS) >= 4);
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    assert_eq!(scene.reconciled(PACK, 1), ["ignored"]);

    pack_is_paid(&scene);
    let paid = paid_pack("cs_1", ANN).event("evt_1", "checkout.session.async_payment_succeeded");
    assert_eq!(scene.shim.deliver(&paid).summary(), "200 applied");
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 2), ["ignored", "already_applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn credits_of_another_purchase_are_not_taken_for_this_one() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    assert_eq!(scene.shim.deliver(&paid_pack("cs_2", ANN).completed("evt_2")).summary(), "200 applied");
    assert_eq!(scene.reconciled(PACK, 2), ["ignored", "ignored"]);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));

    pack_is_paid(&scene);
    assert_eq!(scene.shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    tab.says("Your purchase is in: you have 1,000 credits.");
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 3), ["ignored", "ignored", "already_applied"]);
}

#[test]
fn a_late_payment_keeps_its_parameters_and_a_later_visit_finds_it() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("This page keeps looking.");
    tab.advance(PAST_THE_LIMIT);
    tab.says("Your payment is still on its way to us. You can close this page: nothing is lost.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    let looks = scene.asked(CREDITS);
    tab.advance(PAST_THE_LIMIT);
    assert_eq!(scene.asked(CREDITS), looks, "it has stopped");

    pack_is_paid(&scene);
    tab.click("Look again");
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 2), ["ignored", "applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_price_that_the_catalog_lacks_is_late_until_the_catalog_knows_it() {
    let scene = Scene::start();
    let bought = session("cs_1").of(ANN).metadata("price_id", "price_new");
    scene.stripe.knows_session(bought.json().clone());
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    let mut document = catalog();
    let pack = json!({"key": "pack_new", "name": "A new pack", "credits": 750, "prices": ["price_new"]});
    document["packs"].as_array_mut().expect("packs").push(pack);
    scene.books().load_catalog(&document);
    tab.says("you have 750 credits.");
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 2), ["parked", "already_applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 750"]);
}

#[test]
fn while_stripe_fails_the_page_keeps_asking_and_then_shows_the_purchase_once() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    scene.stripe.fail(Fault::Failing);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your payment is still on its way to us. This page keeps looking.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    scene.stripe.recover();
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_shim_that_asks_for_time_gets_it() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    scene.stripe.fail_next([Fault::RateLimited]);
    let tab = scene.anns_tab();
    let page_time = || tab.run("Date.now()").as_u64().expect("milliseconds");
    let since = page_time();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("This page keeps looking.");
    until("it asks again", || {
        tab.advance(Duration::from_millis(500));
        scene.asked(PACK) == 2
    });
    // 503 came with Retry-After: 10; without it two seconds are usual.
    assert!(page_time() - since >= 10_000, "{} ms", page_time() - since);
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 2), ["error", "applied"]);
}

#[test]
fn scenario_05_another_users_session_is_reported_and_asked_for_once() {
    let scene = Scene::start();
    scene.stripe.knows_session(paid_pack("cs_1", BOB).json().clone());
    let tab = scene.anns_tab();
    let before = scene.books().everything();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("This purchase belongs to another account. Sign in with the one that made it.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    tab.advance(PAST_THE_LIMIT);
    assert_eq!(scene.reconciled(PACK, 1), ["rejected"]);
    assert_eq!(scene.books().everything(), before);

    tab.click("Sign in again");
    tab.is_at(&scene.pages.url("/sign-in.html?return_to="));
    tab.sign_in(&token(BOB));
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!((scene.books().ledger(BOB), scene.books().balance(ANN)), (vec!["purchase 500".to_owned()], 0));
}

#[test]
fn what_can_never_be_reconciled_is_reported_and_asked_for_once() {
    let scene = Scene::start();
    let tshirt = session("cs_tshirt").of(ANN).metadata("price_id", "price_tshirt");
    scene.stripe.knows_session(tshirt.json().clone());
    scene.stripe.knows_session(subscribing("cs_plan", "sub_1", "in_1").of(ANN).json().clone());
    let tab = scene.anns_tab();
    for (count, session_id, reason) in [
        (1, "cs_nowhere", "unknown_session"),
        (2, "{CHECKOUT_SESSION_ID}", "not_a_session"),
        (3, "cs_tshirt", "not_credits"),
        (4, "cs_plan", "wrong_mode"),
    ] {
        let path = format!("/index.html?credits_checkout=success&session_id={session_id}");
        scene.comes_back(&tab, &path);
        tab.says(&format!("This purchase cannot be confirmed ({reason})."));
        assert!(tab.address().contains("session_id="), "{}", tab.address());
        assert_eq!(scene.shim.requests(PACK, count).len(), count);
    }
    scene.comes_back(&tab, "/index.html?credits_checkout=success");
    tab.says("This purchase cannot be confirmed (not_a_session).");
    assert_eq!(scene.shim.requests(PACK, 4).len(), 4);
    assert_eq!(scene.books().ledger(ANN), [""; 0]);
}

#[test]
fn an_answer_that_is_lost_on_its_way_is_asked_for_again_and_the_purchase_is_one() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    tab.lose_answers(PACK);
    tab.cut(CREDITS);
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("We cannot be reached just now. This page keeps looking.");
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    tab.mend(PACK);
    tab.mend(CREDITS);
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn while_the_shim_is_unreachable_the_parameters_stay_and_a_later_visit_succeeds() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    tab.cut(PACK);
    tab.cut(CREDITS);
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("We cannot be reached just now. This page keeps looking.");
    tab.advance(PAST_THE_LIMIT);
    tab.says("We cannot be reached just now. You can close this page: nothing is lost.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    assert_eq!(scene.asked(PACK), 0);
    tab.mend(PACK);
    tab.mend(CREDITS);
    tab.click("Look again");
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["applied"]);
}

#[test]
fn an_unreadable_balance_is_reported_and_the_parameters_stay_until_it_shows() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    tab.cut(CREDITS);
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your purchase is in. Your balance does not show it yet. This page keeps looking.");
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    tab.mend(CREDITS);
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["applied"], "it is known to be in");
}

#[test]
fn a_balance_from_a_cache_is_read_until_it_shows_the_purchase() {
    let redis = FakeRedis::start();
    let scene = Scene::with(|shim| shim.with("REDIS_URL", &redis.url()).with("CREDITS_MAX_AGE", "600"));
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    // Read before the purchase counts, and told again after it: a replica of Redis that is behind.
    assert_eq!(scene.shim.get_as(ANN, CREDITS).status, 200);
    let (old, _) = redis.kept(&format!("credits:{ANN}")).expect("what was read is kept");
    redis.behave(Behaviour::Lying(old));
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("Your purchase is in. Your balance does not show it yet. This page keeps looking.");
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
    assert_eq!(tab.address(), scene.pages.url(BOUGHT_PACK));
    redis.behave(Behaviour::Good);
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["applied"]);
}

#[test]
fn two_tabs_are_one_purchase() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let (one, other) = (scene.anns_tab(), scene.browser.tab());
    scene.stripe.fail_next([Fault::Held; 2]);
    scene.comes_back(&one, BOUGHT_PACK);
    scene.comes_back(&other, BOUGHT_PACK);
    // Both are asking before either is answered.
    until("both have asked", || scene.stripe.asked().len() == 2);
    scene.stripe.release();
    for tab in [&one, &other] {
        tab.says(HAS_500);
        scene.is_done(tab);
    }
    let mut outcomes = scene.reconciled(PACK, 2);
    outcomes.sort_by_key(Value::to_string);
    assert_eq!(outcomes, ["already_applied", "applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_reload_in_the_middle_is_one_purchase() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    scene.stripe.fail_next([Fault::Held]);
    scene.comes_back(&tab, BOUGHT_PACK);
    until("it has asked", || scene.stripe.asked().len() == 1);
    tab.reload();
    tab.says(HAS_500);
    scene.stripe.release();
    scene.is_done(&tab);
    // The request that the reload abandoned is finished all the same.
    assert_eq!(scene.reconciled(PACK, 2).len(), 2);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_page_that_asks_twice_at_once_reconciles_once() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    let outcomes = tab.run(
        "(async () => {
            const { followReturn } = await import('./stripe-credits/browser.js');
            const { shimUrl } = await import('./config.js');
            const auth = await import('./auth.js');
            history.replaceState({ of: 'the app' }, '', '?checkout=&credits_checkout=success&session_id=cs_1#top');
            const twice = [followReturn({ url: shimUrl, ...auth }), followReturn({ url: shimUrl, ...auth })];
            return [...(await Promise.all(twice)), location.search + location.hash, history.state];
        })()",
    );
    for outcome in [&outcomes[0], &outcomes[1]] {
        assert_eq!(
            (&outcome["status"], &outcome["credits"]["credits_balance"]),
            (&json!("credited"), &json!(500))
        );
    }
    assert_eq!((&outcomes[2], &outcomes[3]), (&json!("#top"), &json!({"of": "the app"})));
    assert_eq!(scene.reconciled(PACK, 1), ["applied"]);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn what_fails_of_the_pages_own_stops_neither_a_sign_in_nor_the_looking() {
    let scene = Scene::start();
    let tab = scene.anns_tab();
    let flow = |options: &str| {
        tab.run(&format!(
            "(async () => {{
                const {{ followReturn }} = await import('./stripe-credits/browser.js');
                const auth = await import('./auth.js');
                const fails = async () => {{ throw new Error('as ordered') }};
                const url = 'http://{}';
                history.replaceState(null, '', '?credits_checkout=success&session_id=cs_1');
                return new Promise((resolve) => {{ followReturn({options}).then(resolve) }});
            }})()",
            scene.shim.address()
        ))
    };
    let missing = json!({"status": "misconfigured", "missing": ["url", "getToken", "signOut", "signIn"]});
    assert_eq!(flow("{}"), missing);
    let returned_to = flow("{ url, getToken: async () => null, signOut: fails, signIn: resolve }");
    let path = "/index.html?credits_checkout=success&session_id=cs_1&after_sign_in=1";
    assert_eq!(returned_to, scene.pages.url(path));
    let late = flow("{ url, ...auth, getToken: fails, onLate: resolve }");
    assert_eq!(late, json!({"status": "late", "reason": "unreachable"}));
}

#[test]
fn the_back_button_asks_nothing_again_once_the_purchase_has_shown() {
    let scene = Scene::start();
    pack_is_paid(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says(HAS_500);
    tab.open(&scene.pages.url("/sign-in.html"));
    tab.back();
    scene.is_done(&tab);
    assert_eq!(scene.reconciled(PACK, 1), ["applied"]);
}

#[test]
fn the_back_button_in_the_middle_returns_to_a_purchase_that_goes_on() {
    let scene = Scene::start();
    pack_is_on_its_way(&scene);
    let tab = scene.anns_tab();
    scene.comes_back(&tab, BOUGHT_PACK);
    tab.says("This page keeps looking.");
    tab.open(&scene.pages.url("/sign-in.html"));
    pack_is_paid(&scene);
    assert_eq!(scene.shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    tab.back();
    tab.says(HAS_500);
    scene.is_done(&tab);
    assert_eq!(scene.books().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_canceled_checkout_is_reported_and_asks_nothing() {
    let scene = Scene::start();
    let tab = scene.browser.tab();
    for query in ["credits_checkout=cancel", "checkout=cancel", "checkout=cancel&session_id=cs_1"] {
        scene.comes_back(&tab, &format!("/index.html?{query}"));
        tab.says("The checkout was canceled. Nothing was charged.");
    }
    for query in ["", "?checkout=open&session_id=cs_1", "?session_id=cs_1"] {
        scene.comes_back(&tab, &format!("/index.html{query}"));
        tab.says("There is no purchase to confirm.");
    }
    assert_eq!([PACK, PLAN, CREDITS].map(|route| scene.asked(route)), [0; 3]);
    assert_eq!(scene.stripe.asked(), []);
}

#[test]
fn a_return_address_outside_the_app_is_not_followed() {
    let scene = Scene::start();
    let tab = scene.browser.tab();
    for wanted in ["https://evil.test/", "//evil.test", "javascript:alert(1)", "http://", "data:text/html,x"]
    {
        tab.open(&scene.pages.url(&format!("/sign-in.html?return_to={wanted}")));
        tab.sign_in(&token(ANN));
        tab.says("There is no purchase to confirm.");
        assert_eq!(tab.address(), scene.pages.url("/index.html"), "{wanted}");
    }
}

//! The console in a real browser: a support question answered by keyboard alone, and pages that everybody can read.

use serde_json::json;
use stripe_credits_tests::app::{SERVICE_TOKEN, without_stripe};
use stripe_credits_tests::browser::{Browser, Tab};
use stripe_credits_tests::shim::{Setup, Shim, until};
use stripe_credits_tests::subscription::{PRO, line, period, renewal, subscription};
use stripe_credits_tests::{ANN, Connection, Database, paid_pack, session};

fn setup(database: &Database) -> Setup {
    without_stripe(database).with("SERVICE_TOKEN", SERVICE_TOKEN).with("CONSOLE", "on")
}

fn url(shim: &Shim, path: &str) -> String {
    format!("http://{}{path}", shim.operators_address())
}

/// Some weeks of a user's life: a plan, packs, spends, a refund, corrections, something that waits.
fn lived(books: &mut Connection) {
    books.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    let bill = renewal("in_0", "sub_1", PRO, 0).line(line("price_tshirt", 2500, period(0)));
    books.apply(&bill.paid("evt_2"));
    let mail = json!({"email": "ann@example.com", "name": "Ann Example"});
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1").with("customer_details", mail);
    books.apply(&paid.completed("evt_3"));
    for (n, amount) in (1_i64..).zip([600_i64, 1400, 900, 250, 2100, 1800]) {
        books.advance_time(ANN, "3 days");
        books.call("spend_credits($1, $2, $3, 'a film')", &[&ANN, &amount, &format!("film-{n}")]);
    }
    books.call("spend_credits($1, 120, 'job-1', 'one picture, large')", &[&ANN]);
    books.advance_time(ANN, "5 days");
    books.reserve(ANN, 5, "job-3");
    books.call("adjust_credits($1, 200, 'ticket-18', 'late delivery', 'Grace Support')", &[&ANN]);
    books.apply(
        &paid_pack("cs_2", ANN)
            .with("customer", "cus_1")
            .metadata("price_id", "price_new")
            .completed("evt_4"),
    );
    books.run("update billing.stripe_events set first_received_at = now() - interval '3 days' where event_id = 'evt_4'");
    let unowned = session("cs_3").metadata("price_id", "price_pack").with("customer", "cus_7");
    books.apply(&unowned.with("customer_details", json!({"email": "bob@example.com"})).completed("evt_5"));
}

fn sign_in(tab: &Tab, shim: &Shim) {
    tab.open(&url(shim, "/console"));
    tab.is_at(&url(shim, "/console/sign-in"));
    tab.fill("Your name", "Grace Support");
    tab.fill("Service token", SERVICE_TOKEN);
    tab.click("Sign in");
    is_signed_in(tab, shim);
}

fn is_signed_in(tab: &Tab, shim: &Shim) {
    until("the sign-in leads to the start", || tab.address() == url(shim, "/console"));
}

#[test]
fn a_question_is_answered_from_the_address_to_the_refund_by_keyboard_alone() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    lived(&mut books);
    let shim = setup(&database).start();
    let browser = Browser::start();
    let tab = browser.tab();
    tab.open(&url(&shim, "/console"));
    // The first field has the focus.
    tab.is_at(&url(&shim, "/console/sign-in"));
    tab.types("Grace Support");
    tab.tab_to("textbox", "Service token");
    tab.types(SERVICE_TOKEN);
    tab.press("Enter");
    is_signed_in(&tab, &shim);

    tab.tab_to("searchbox", "User, e-mail address, or an id of Stripe’s");
    tab.types("Ann@Example.com");
    tab.press("Enter");
    tab.is_at(&url(&shim, "/console?q=Ann%40Example.com"));
    tab.tab_to("link", "Give back… job-1");
    tab.press("Enter");
    tab.is_at(&url(&shim, "/console?q=Ann%40Example.com&refund=job-1"));
    // The form that was asked for has the focus.
    until("the form has the focus", || tab.run("document.activeElement.id") == "back");
    tab.types("20");
    tab.tab_to("textbox", "Reason for giving back, for the ledger");
    tab.types("the picture was blurred");
    tab.press("Enter");
    tab.says("Gave back 20 credits of job-1. The balance is 3,545 now.");
    // Whoever does not see the page hears the title first, and reads on from what came of the form.
    assert_eq!(tab.run("document.title.split(':')[0]"), "Done");
    assert_eq!(tab.run("location.hash"), "#notice");
    let refunds =
        "select concat_ws('|', amount, description, metadata ->> 'by') from billing.credit_transactions
         where transaction_type = 'spend_refund' order by id";
    let given = ["20|the picture was blurred|Grace Support"];
    assert_eq!(books.column::<String>(refunds, &[]), given);

    tab.reload();
    tab.tab_to("link", "Give back… job-1");
    assert_eq!(tab.run("document.querySelector('[role=status]').textContent"), "", "it is said once");
    tab.back();
    tab.tab_to("button", "Sign out");
    tab.press("Enter");
    tab.is_at(&url(&shim, "/console/sign-in"));
    assert_eq!(books.column::<String>(refunds, &[]), given, "a reload and the back button repeat nothing");
}

#[test]
fn a_form_whose_button_is_pressed_twice_counts_once() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.buy(ANN, "cs_1");
    let shim = setup(&database).start();
    let browser = Browser::start();
    let tab = browser.tab();
    sign_in(&tab, &shim);
    tab.open(&url(&shim, &format!("/console?q={ANN}")));
    tab.run("document.querySelector('input[value=give]').click()");
    tab.fill("How many", "5");
    tab.fill("Reason, for the ledger", "we are sorry");
    // Both presses are sent before either is answered.
    tab.run(
        "const form = document.querySelector('form[action=\"/console/adjust\"]');
         const send = () => fetch(form.action, {method: 'POST', body: new URLSearchParams(new FormData(form))});
         send().catch(() => {}), form.requestSubmit()",
    );
    tab.is_at(&url(&shim, &format!("/console?q={ANN}#notice")));
    assert_eq!(books.ledger(ANN), ["purchase 500", "adjustment 5"]);
}

#[test]
fn every_page_is_one_that_everybody_can_read() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    lived(&mut books);
    let shim = setup(&database).start();
    let browser = Browser::start();
    let tab = browser.tab();
    let user = format!("/console?q={ANN}");
    let paths = [
        ("sign-in", "/console/sign-in"),
        ("start", "/console"),
        ("user", user.as_str()),
        ("session", "/console?q=cs_1"),
        ("invoice", "/console?q=in_0"),
        ("waiting", "/console?q=evt_5"),
        ("found", "/console?q=bob%40example.com"),
        ("attribute", "/console?q=evt_5&attribute=cus_7"),
        ("refund", "/console?q=cs_1&refund=job-1"),
        ("nothing", "/console?q=cs_none"),
    ];
    let mut faults = Vec::new();
    for (name, path) in paths {
        if name == "start" {
            sign_in(&tab, &shim);
        }
        tab.open(&url(&shim, path));
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 640), ("dark", 360)] {
            let wide = tab.look(name, scheme, width);
            if wide > width {
                faults.push(format!("{name} is {wide} wide on a screen of {width}"));
            }
            let of_page = tab.accessibility_faults().into_iter();
            faults.extend(of_page.map(|fault| format!("{name} {scheme} {width}: {fault}")));
        }
    }
    // What came of a form is a page of its own.
    tab.open(&url(&shim, &user));
    tab.click("Try again evt_4");
    tab.says("evt_4 still waits. Add the price to the catalog");
    tab.look("refused", "light", 1280);
    faults.extend(tab.accessibility_faults());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_browser_runs_no_script_of_a_page_and_shows_what_is_stored_as_text() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.buy(ANN, "cs_1");
    let evil = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>";
    books.call("adjust_credits($1, 5, 'ticket-1', $2)", &[&ANN, &evil]);
    let shim = setup(&database).start();
    let browser = Browser::start();
    let tab = browser.tab();
    sign_in(&tab, &shim);
    tab.open(&url(&shim, &format!("/console?q={ANN}")));
    assert!(tab.text().contains(evil));
    // As if something had got into the page after all.
    let inject = format!(
        "const script = document.createElement('script'); script.textContent = 'window.pwned = 3';
         document.body.append(script); document.body.insertAdjacentHTML('beforeend', {evil:?}); String(window.pwned)"
    );
    assert_eq!(tab.run(&inject), "undefined");
    assert_eq!(tab.run("String(window.pwned)"), "undefined");
    // The stylesheet is the page's own, so it does apply.
    assert_eq!(tab.run("getComputedStyle(document.querySelector('table')).borderCollapse"), "collapse");
}

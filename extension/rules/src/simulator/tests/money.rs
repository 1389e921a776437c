//! Accounts, invoices and prorations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{choices, kinds_of_simulation};
use crate::simulator::{
    Anchor, Api, BillingMode, BoughtBy, DAY, EVERYTHING, Event, Happening, Months, NoteWay, Operation,
    Portion, Proration, Settings, Start, Status, Stripe, Up, history,
};

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is not a whole number"))
}

fn numbers(values: &Value, field: &str) -> i64 {
    values.as_array().into_iter().flatten().map(|value| number(&value[field])).sum()
}

/// The customer's money as the events alone tell it.
#[derive(Default)]
struct Reported {
    paid: i64,
    totals: i64,
    back: i64,
    credit_in_open: BTreeMap<String, i64>,
}

impl Reported {
    fn add(&mut self, event: &Event) {
        let object = &event.body["data"]["object"];
        match event.event_type.as_str() {
            "invoice.paid" => {
                self.paid += number(&object["amount_paid"]);
                self.totals += number(&object["total"]) - number(&object["pre_payment_credit_notes_amount"]);
                self.credit_in_open.remove(object["id"].as_str().unwrap_or_default());
            }
            "invoice.payment_failed" => {
                let used = number(&object["ending_balance"]) - number(&object["starting_balance"]);
                self.credit_in_open.insert(object["id"].as_str().unwrap_or_default().to_owned(), used);
            }
            "invoice.voided" => {
                self.credit_in_open.remove(object["id"].as_str().unwrap_or_default());
            }
            "checkout.session.completed" => {
                self.paid += number(&object["amount_total"]);
                self.totals += number(&object["amount_total"]);
            }
            "refund.created" | "charge.dispute.funds_withdrawn" => self.back += number(&object["amount"]),
            "refund.failed" | "charge.dispute.funds_reinstated" => self.back -= number(&object["amount"]),
            "credit_note.created" if object["type"] == "post_payment" => {
                let refunded = numbers(&object["refunds"], "amount_refunded");
                let by_older = if object["refund"].is_null() { 0 } else { number(&object["total"]) };
                self.back += number(&object["total"]) - refunded - by_older;
            }
            _ => {}
        }
    }

    fn kept(&self) -> i64 {
        self.totals - self.back + self.credit_in_open.values().sum::<i64>()
    }
}

/// What a line bills after discounts, and what an invoice has to say of its lines and of the customer's balance.
fn check_invoice(invoice: &Value) -> Result<(), TestCaseError> {
    let lines = &invoice["lines"]["data"];
    let discounts: i64 =
        lines.as_array().into_iter().flatten().map(|line| numbers(&line["discount_amounts"], "amount")).sum();
    prop_assert_eq!(number(&invoice["subtotal"]), numbers(lines, "amount"));
    prop_assert_eq!(number(&invoice["total"]), numbers(lines, "amount") - discounts);
    let by_balance = number(&invoice["ending_balance"]) - number(&invoice["starting_balance"]);
    let written_off = number(&invoice["pre_payment_credit_notes_amount"]);
    if invoice["status"] == "paid" || invoice["status"] == "open" {
        let by_card = number(&invoice["amount_paid"]) + number(&invoice["amount_remaining"]);
        prop_assert_eq!(number(&invoice["total"]), by_balance + by_card + written_off);
        prop_assert_eq!(number(&invoice["amount_due"]), by_card);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_events_tell_the_money_that_the_accounts_hold(
        (mode, settings) in kinds_of_simulation(),
        choices in choices(14),
    ) {
        let mut reported = Reported::default();
        for happening in history(settings, mode, EVERYTHING, &choices) {
            for event in &happening.events {
                reported.add(event);
                if event.event_type.starts_with("invoice.") {
                    check_invoice(&event.body["data"]["object"])?;
                }
            }
            let accounts = happening.accounts;
            prop_assert_eq!(reported.paid, accounts.paid, "{}", happening.what);
            prop_assert_eq!(reported.kept(), accounts.kept, "{}", happening.what);
            prop_assert_eq!(accounts.kept, accounts.paid - accounts.returned - accounts.credit);
            let bought = reported.totals - reported.back; // a cent is a credit
            prop_assert!((accounts.paid_for - bought).abs() <= accounts.tolerance, "{bought} {accounts:?}");
        }
    }

    #[test]
    fn time_never_goes_back_and_no_two_states_share_a_second(
        (mode, settings) in kinds_of_simulation(),
        choices in choices(14),
    ) {
        let (mut last, mut ids, mut states) = (0, BTreeSet::new(), BTreeSet::new());
        for event in history(settings, mode, EVERYTHING, &choices).iter().flat_map(|h| &h.events) {
            prop_assert!(event.at >= last);
            last = event.at;
            prop_assert!(ids.insert(event.body["id"].to_string()));
            if event.event_type.starts_with("customer.subscription.") {
                let state = (event.body["data"]["object"]["id"].to_string(), event.at);
                prop_assert!(states.insert(state));
            }
        }
    }

    #[test]
    fn both_shapes_of_the_api_tell_one_history(choices in choices(14)) {
        let play = |api| {
            let settings = Settings { api, ..Settings::default() };
            let reported = |happening: Happening| {
                let events = happening.events.into_iter().filter(|e| e.event_type != "invoice_payment.paid");
                let events: Vec<_> = events.map(|event| (event.at, event.event_type)).collect();
                (happening.what, happening.accounts, events)
            };
            history(settings, BillingMode::Classic, EVERYTHING, &choices).into_iter().map(reported).collect::<Vec<_>>()
        };
        prop_assert_eq!(play(Api::Older), play(Api::Current));
    }
}

/// A customer with a plan, in months of 30 days, and a minute between operations.
fn subscribed(mode: BillingMode, items: &[(&'static str, i64)]) -> Stripe {
    let settings = Settings { months: Months::Even, seconds_between: 0, ..Settings::default() };
    let mut stripe = Stripe::new(settings);
    let items = items.to_vec();
    stripe.apply(&Operation::Subscribe { mode, items, start: Start::Paid, percent_off: 0 });
    stripe
}

fn price(price: &'static str, proration: Proration, anchor: Anchor) -> Operation {
    Operation::Change { subscription: 0, item: 0, price: Some(price), quantity: None, proration, anchor }
}

/// The amounts of the newest payment's lines, in cents.
fn newest_amounts(stripe: &Stripe) -> Vec<i64> {
    stripe.payments().last().into_iter().flat_map(|payment| &payment.lines).map(|line| line.amount).collect()
}

/// The newest event's object.
fn newest_object(stripe: &Stripe, event_type: &str) -> Value {
    let events = stripe.happenings().iter().flat_map(|happening| &happening.events);
    let newest = events.rev().find(|event| event.event_type == event_type);
    newest.unwrap_or_else(|| panic!("no {event_type}")).body["data"]["object"].clone()
}

#[test]
fn a_change_credits_and_charges_by_time() {
    for mode in [BillingMode::Classic, BillingMode::Flexible] {
        let mut stripe = subscribed(mode, &[("price_pro", 1)]);
        stripe.apply(&Operation::Wait(15 * DAY));
        stripe.apply(&price("price_max", Proration::Invoice, Anchor::Unchanged));
        assert_eq!(newest_amounts(&stripe), [-5_000, 15_000]);
        stripe.apply(&Operation::Wait(6 * DAY));
        stripe.apply(&price("price_pro", Proration::Create, Anchor::Unchanged));
        assert_eq!(newest_amounts(&stripe), [-5_000, 15_000]);
        stripe.apply(&Operation::Renew { subscription: 0 });
        assert_eq!(newest_amounts(&stripe), [-9_000, 3_000, 10_000], "what pends rides on the renewal");
    }
}

#[test]
fn a_new_anchor_bills_a_whole_period() {
    for mode in [BillingMode::Classic, BillingMode::Flexible] {
        let mut stripe = subscribed(mode, &[("price_pro", 1)]);
        stripe.apply(&Operation::Wait(12 * DAY));
        stripe.apply(&price("price_max", Proration::Invoice, Anchor::Now));
        assert_eq!(newest_amounts(&stripe), [-6_000, 30_000]);
        assert_eq!(stripe.subscriptions()[0].next_end(), stripe.now() + 30 * DAY);
    }
}

#[test]
fn flexible_billing_credits_only_what_it_charged() {
    let mut stripe = subscribed(BillingMode::Flexible, &[("price_pro", 1)]);
    stripe.apply(&Operation::Wait(15 * DAY));
    stripe.apply(&price("price_max", Proration::None, Anchor::Unchanged));
    stripe.apply(&Operation::Wait(1));
    stripe.apply(&price("price_pro", Proration::Invoice, Anchor::Unchanged));
    assert_eq!(
        newest_amounts(&stripe),
        [-5_000, 5_000],
        "the month of pro, not the one of max that was never charged"
    );
    let first = stripe.payments()[0].id.clone();
    let credit = newest_object(&stripe, "invoice.paid")["lines"]["data"][0].clone();
    let details = &credit["parent"]["subscription_item_details"]["proration_details"];
    assert_eq!(details["credited_items"]["invoice"], json!(first));
}

#[test]
fn flexible_billing_keeps_the_anchor_when_the_interval_changes() {
    let mut stripe = subscribed(BillingMode::Flexible, &[("price_pro", 1)]);
    let begin = stripe.now();
    stripe.apply(&Operation::Wait(9 * DAY));
    stripe.apply(&price("price_pro_year", Proration::Invoice, Anchor::Unchanged));
    assert_eq!(newest_amounts(&stripe), [-7_000, 120_000 - 3_000]);
    assert_eq!(stripe.subscriptions()[0].next_end(), begin + 360 * DAY);
}

#[test]
fn more_of_a_year_in_mid_month_is_not_a_whole_part_of_it() {
    let mut stripe = subscribed(BillingMode::Flexible, &[("price_pro", 1)]);
    let usable = |stripe: &Stripe| stripe.happenings().last().map(|happening| happening.usable.credits);
    stripe.apply(&price("price_pro_year", Proration::Invoice, Anchor::Unchanged));
    assert_eq!(usable(&stripe), Some(0), "a part of the year, less the whole month");
    stripe.apply(&Operation::Wait(10 * DAY));
    let (way, proration, anchor) = (Up::By(3), Proration::Invoice, Anchor::Unchanged);
    stripe.apply(&Operation::GoUp { subscription: 0, way, proration, anchor });
    assert_eq!(usable(&stripe), Some(-10_000), "at least: it is two thirds of a part, three times");
}

#[test]
fn a_first_payment_that_never_comes_ends_the_subscription() {
    let mut stripe = Stripe::new(Settings::default());
    stripe.apply(&Operation::CardFails);
    let items = vec![("price_pro", 1)];
    let mode = BillingMode::Classic;
    stripe.apply(&Operation::Subscribe { mode, items, start: Start::Paid, percent_off: 0 });
    assert_eq!(newest_object(&stripe, "customer.subscription.created")["status"], "incomplete");
    stripe.apply(&Operation::Wait(DAY));
    assert_eq!(stripe.subscriptions()[0].status, Status::IncompleteExpired);
    assert_eq!(newest_object(&stripe, "invoice.voided")["status"], "void");
    assert_eq!(stripe.accounts().kept, 0);
}

#[test]
fn a_late_payment_is_paid_when_it_is_paid() {
    let mut stripe = subscribed(BillingMode::Classic, &[("price_pro", 1)]);
    stripe.apply(&Operation::CardFails);
    stripe.apply(&Operation::Renew { subscription: 0 });
    assert_eq!(newest_object(&stripe, "customer.subscription.updated")["status"], "past_due");
    assert_eq!(stripe.accounts().paid_for, 10_000);
    stripe.apply(&Operation::CardWorks);
    stripe.apply(&Operation::Wait(DAY));
    stripe.apply(&Operation::Pay { invoice: 0 });
    let paid_at = &newest_object(&stripe, "invoice.paid")["status_transitions"]["paid_at"];
    assert_eq!(*paid_at, json!(stripe.now()));
    assert_eq!(newest_object(&stripe, "customer.subscription.updated")["status"], "active");
    assert_eq!(stripe.accounts().paid_for, 20_000);
}

#[test]
fn a_refunded_cent_takes_a_cents_worth_and_the_whole_takes_all() {
    let mut stripe = subscribed(BillingMode::Classic, &[("price_pro", 1)]);
    stripe.apply(&Operation::Wait(15 * DAY));
    stripe.apply(&price("price_max", Proration::Invoice, Anchor::Unchanged));
    assert_eq!(stripe.accounts().paid_for, 20_000);
    stripe.apply(&Operation::Refund { payment: 1, portion: Portion::Cents(1_000) });
    assert_eq!(stripe.accounts().paid_for, 19_000);
    stripe.apply(&Operation::Refund { payment: 1, portion: Portion::Whole });
    assert_eq!(stripe.accounts().paid_for, 10_000);
    assert_eq!(newest_object(&stripe, "charge.refunded")["amount_refunded"], 10_000);
}

#[test]
fn a_dispute_moves_the_money_both_ways() {
    let mut stripe = Stripe::new(Settings::default());
    stripe.apply(&Operation::Buy { price: "price_pack", quantity: 2, by: BoughtBy::Session });
    stripe.apply(&Operation::Dispute { payment: 0, portion: Portion::Whole });
    assert_eq!(stripe.accounts().paid_for, 0);
    assert_eq!(newest_object(&stripe, "charge.dispute.created")["balance_transactions"], json!([]));
    stripe.apply(&Operation::WinDispute { dispute: 0 });
    assert_eq!(stripe.accounts().paid_for, 1_000);
    let dispute = newest_object(&stripe, "charge.dispute.funds_reinstated");
    assert_eq!(numbers(&dispute["balance_transactions"], "amount"), 0);
}

#[test]
fn a_credit_note_of_a_paid_invoice_says_where_the_money_went() {
    for (api, way) in
        [Api::Older, Api::Current].into_iter().flat_map(|api| [(api, NoteWay::Card), (api, NoteWay::Credit)])
    {
        let mut stripe = Stripe::new(Settings { api, ..Settings::default() });
        stripe.apply(&Operation::Buy { price: "price_pack", quantity: 2, by: BoughtBy::Invoice });
        stripe.apply(&Operation::CreditNote { invoice: 0, portion: Portion::Cents(400), way });
        let note = newest_object(&stripe, "credit_note.created");
        assert_eq!((&note["total"], &note["type"]), (&json!(400), &json!("post_payment")));
        let refund = match (way, api) {
            (NoteWay::Card, _) => Some(newest_object(&stripe, "refund.created")["id"].clone()),
            _ => None,
        };
        match api {
            Api::Older => assert_eq!(note["refund"], refund.unwrap_or_default()),
            Api::Current => assert_eq!(note["refunds"][0]["refund"], refund.unwrap_or_default()),
        }
        assert_eq!(stripe.accounts().credit, if way == NoteWay::Credit { 400 } else { 0 });
        assert_eq!((stripe.accounts().kept, stripe.accounts().paid_for), (600, 600));
    }
}

#[test]
fn a_credit_note_of_an_open_invoice_is_never_paid() {
    let mut stripe = subscribed(BillingMode::Classic, &[("price_pro", 1)]);
    stripe.apply(&Operation::CardFails);
    stripe.apply(&Operation::Renew { subscription: 0 });
    let note = |portion| Operation::CreditNote { invoice: 1, portion, way: NoteWay::Card };
    stripe.apply(&note(Portion::Third));
    assert_eq!(newest_object(&stripe, "credit_note.created")["pre_payment_amount"], 3_333);
    stripe.apply(&note(Portion::Whole));
    let invoice = newest_object(&stripe, "invoice.paid");
    assert_eq!((&invoice["total"], &invoice["amount_paid"]), (&json!(10_000), &json!(0)));
    assert_eq!(stripe.accounts().paid_for, 10_000, "the first month's");
}

#[test]
fn what_is_below_the_minimum_goes_to_the_balance() {
    let mut stripe = subscribed(BillingMode::Classic, &[("price_pro", 1)]);
    stripe.apply(&Operation::Wait(30 * DAY - 60));
    stripe.apply(&price("price_max", Proration::Invoice, Anchor::Unchanged));
    assert_eq!(newest_amounts(&stripe), [0, 1]);
    assert_eq!(stripe.accounts().credit, -1);
    stripe.apply(&Operation::Renew { subscription: 0 });
    assert_eq!(newest_object(&stripe, "invoice.paid")["amount_paid"], 30_001);
}

#[test]
fn a_pause_bills_nothing_and_a_resumption_what_is_asked() {
    for (anchor, amount) in [(Anchor::Now, 10_000), (Anchor::Unchanged, 5_000)] {
        let mut stripe = subscribed(BillingMode::Classic, &[("price_pro", 1)]);
        stripe.apply(&Operation::Wait(10 * DAY));
        stripe.apply(&Operation::Pause { subscription: 0 });
        stripe.apply(&Operation::Wait(35 * DAY));
        assert_eq!(stripe.payments().len(), 1);
        stripe.apply(&Operation::Resume { subscription: 0, anchor, proration: Proration::Invoice });
        assert_eq!(newest_amounts(&stripe), [amount]);
        assert_eq!(newest_object(&stripe, "customer.subscription.resumed")["status"], "active");
    }
}

#[test]
fn a_discount_is_an_amount_of_whole_lines_and_within_prorated_ones() {
    let settings = Settings { months: Months::Even, seconds_between: 0, ..Settings::default() };
    let mut stripe = Stripe::new(settings);
    let items = vec![("price_pro", 1)];
    let mode = BillingMode::Classic;
    stripe.apply(&Operation::Subscribe { mode, items, start: Start::Paid, percent_off: 50 });
    let invoice = newest_object(&stripe, "invoice.paid");
    assert_eq!((&invoice["subtotal"], &invoice["total"]), (&json!(10_000), &json!(5_000)));
    stripe.apply(&Operation::Wait(15 * DAY));
    stripe.apply(&price("price_max", Proration::Invoice, Anchor::Unchanged));
    assert_eq!(newest_amounts(&stripe), [-2_500, 7_500]);
    assert_eq!(stripe.accounts().paid_for, 20_000, "whole credits for half the money");
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::calendar::{self, Span};

const START: i64 = 1_700_000_000;
const END: i64 = 1_702_592_000;

fn invoice(fields: &Value) -> Invoice {
    try_read(fields).expect("an invoice")
}

fn try_read(fields: &Value) -> Result<Invoice, String> {
    let mut object = json!({
        "id": "in_1", "object": "invoice", "status": "paid", "customer": "cus_1", "created": START,
        "total": 10_000, "currency": "usd", "lines": { "object": "list", "has_more": false, "data": [] },
    });
    merge(&mut object, fields);
    read(&serde_json::value::to_raw_value(&object).expect("JSON"))
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

fn with_lines(lines: &[Value]) -> Value {
    json!({ "lines": { "object": "list", "has_more": false, "data": lines } })
}

/// The one line of an invoice.
fn read_line(line: &Value) -> InvoiceLine {
    invoice(&with_lines(std::slice::from_ref(line))).lines.expect("all lines").remove(0)
}

/// A plan's line as it was until 2025-03-31, with other fields.
fn older(fields: &Value) -> Value {
    let mut line = json!({
        "id": "il_1", "object": "line_item", "type": "subscription", "amount": 10_000, "currency": "usd",
        "quantity": 2, "discount_amounts": [], "period": { "start": START, "end": END }, "proration": false,
        "proration_details": { "credited_items": null }, "subscription": "sub_1", "subscription_item": "si_1",
        "price": {
            "id": "price_pro", "object": "price", "type": "recurring", "product": "prod_pro",
            "recurring": { "interval": "month", "interval_count": 1, "usage_type": "licensed" },
        },
    });
    merge(&mut line, fields);
    line
}

/// The same line as it has been since, with other fields of what it was made from.
fn newer(origin: &Value) -> Value {
    let mut details = json!({
        "invoice_item": null, "proration": false, "proration_details": { "credited_items": null },
        "subscription": "sub_1", "subscription_item": "si_1",
    });
    merge(&mut details, origin);
    json!({
        "id": "il_1", "object": "line_item", "amount": 10_000, "currency": "usd", "quantity": 2,
        "discount_amounts": [], "period": { "start": START, "end": END },
        "parent": {
            "type": "subscription_item_details", "invoice_item_details": null,
            "subscription_item_details": details,
        },
        "pricing": {
            "type": "price_details", "price_details": { "price": "price_pro", "product": "prod_pro" },
        },
    })
}

/// What [`older`] is read as.
fn plan_line() -> InvoiceLine {
    InvoiceLine {
        subscription_id: Some("sub_1".into()),
        item_id: Some("si_1".into()),
        price: Some(LinePrice {
            id: "price_pro".into(),
            product_id: Some("prod_pro".into()),
            interval: Some(Span::Months(1)),
            is_metered: false,
        }),
        is_recurring: true,
        quantity: LineQuantity::Whole(2),
        amount: Some(MinorUnits(10_000)),
        discount: MinorUnits(0),
        period: calendar::from_unix(START).zip(calendar::from_unix(END)),
        is_proration: false,
        names_credited: false,
    }
}

/// Without what a line of the newer shape does not tell of its price.
fn told_by_both(mut line: InvoiceLine) -> InvoiceLine {
    let price = line.price.take();
    InvoiceLine { price: price.map(|price| LinePrice { interval: None, ..price }), ..line }
}

#[test]
fn a_line_reads_the_same_in_both_shapes() {
    assert_eq!(read_line(&older(&json!({}))), plan_line());
    let credited = json!({ "credited_items": { "invoice": "in_0", "invoice_line_items": ["il_0"] } });
    for fields in [
        json!({}),
        json!({ "proration": true }),
        json!({ "proration": true, "proration_details": credited }),
        json!({ "subscription": { "id": "sub_2", "object": "subscription" } }),
        json!({ "subscription": null }),
        json!({ "subscription_item": null }),
    ] {
        let (of_older, of_newer) = (read_line(&older(&fields)), read_line(&newer(&fields)));
        assert_eq!(told_by_both(of_older), of_newer, "{fields}");
    }
}

#[test]
fn each_field_of_a_line_is_read_from_each_of_its_places() {
    let is = |fields: &Value| read_line(&older(fields));
    let whole = plan_line();
    let credit = InvoiceLine {
        amount: Some(MinorUnits(-500)),
        is_proration: true,
        names_credited: true,
        ..whole.clone()
    };
    let credited = json!({ "credited_items": { "invoice": "in_0" } });
    assert_eq!(
        is(&json!({ "amount": -500, "proration": true, "proration_details": credited })),
        credit,
        "a credit is kept"
    );
    assert_eq!(is(&json!({ "amount": 0 })), InvoiceLine { amount: Some(MinorUnits(0)), ..whole.clone() });
    let discounts = json!([{ "amount": 300 }, { "amount": 200, "discount": "di_1" }, { "amount": "1" }, 7]);
    let discounted = InvoiceLine { discount: MinorUnits(500), ..whole.clone() };
    assert_eq!(is(&json!({ "discount_amounts": discounts })), discounted);
    for period in
        [json!(null), json!({ "start": START }), json!({ "start": END, "end": START }), json!([1, 2])]
    {
        assert_eq!(
            is(&json!({ "period": period })),
            InvoiceLine { period: None, ..whole.clone() },
            "{period}"
        );
    }
    let free = json!({ "price": null, "plan": null });
    assert_eq!(is(&free), InvoiceLine { price: None, ..whole.clone() }, "it names a subscription item");
    let plan = json!({ "price": null, "plan": {
        "id": "price_pro", "object": "plan", "product": "prod_pro", "interval": "month", "interval_count": 1,
        "usage_type": "licensed",
    } });
    assert_eq!(is(&plan), whole, "before there were prices");
    let proration = |place: &str| {
        json!({ "amount": 5, "parent": { "type": place, place: { "proration": true, "proration_details": credited,
                "subscription": "sub_2" } } })
    };
    for place in ["subscription_item_details", "invoice_item_details"] {
        let line = read_line(&proration(place));
        assert_eq!(line.subscription_id.as_deref(), Some("sub_2"), "{place}");
        assert!(line.is_proration && line.names_credited && line.is_recurring, "{place}");
    }
}

#[test]
fn a_line_that_names_no_subscription_is_of_its_invoices() {
    let other = older(&json!({ "subscription": "sub_2" }));
    let none = older(&json!({ "subscription": null }));
    let subscriptions = |own: Value| -> Vec<Option<String>> {
        let mut fields = with_lines(&[other.clone(), none.clone()]);
        merge(&mut fields, &own);
        let lines = invoice(&fields).lines.expect("all lines");
        lines.into_iter().map(|line| line.subscription_id).collect()
    };
    let all = [Some("sub_2".to_owned()), Some("sub_1".to_owned())];
    assert_eq!(subscriptions(json!({ "subscription": "sub_1" })), all);
    let parent = |kind: &str| json!({ "parent": { "type": kind, "subscription_details": { "subscription": "sub_1", "metadata": {} } } });
    assert_eq!(subscriptions(parent("subscription_details")), all);
    assert_eq!(subscriptions(parent("quote_details")), [all[0].clone(), None]);
    assert_eq!(subscriptions(json!({})), [all[0].clone(), None]);
    let shared = invoice(&with_lines(&[other, none]));
    assert_eq!(shared.subscription_ids().collect::<Vec<_>>(), ["sub_2"]);
}

#[test]
fn a_quantity_is_whole_missing_or_neither() {
    for (fields, quantity) in [
        (json!({ "quantity": 2 }), LineQuantity::Whole(2)),
        (json!({ "quantity": 0 }), LineQuantity::Whole(0)),
        (json!({ "quantity": 5_000_000 }), LineQuantity::Whole(5_000_000)),
        (json!({ "quantity": "2" }), LineQuantity::Whole(2)),
        (json!({ "quantity": 2.0 }), LineQuantity::Whole(2)),
        (json!({ "quantity": 1e3 }), LineQuantity::Whole(1000)),
        (json!({ "quantity": null }), LineQuantity::Missing),
        (json!({ "quantity": null, "quantity_decimal": null }), LineQuantity::Missing),
        (json!({ "quantity": null, "quantity_decimal": "3" }), LineQuantity::Whole(3)),
        (json!({ "quantity": 3, "quantity_decimal": "3.000000000000" }), LineQuantity::Whole(3)),
        // Stripe cuts the decimals of `quantity`.
        (json!({ "quantity": 2, "quantity_decimal": "2.5" }), LineQuantity::NotWhole),
        (json!({ "quantity": 0, "quantity_decimal": "0.25" }), LineQuantity::NotWhole),
        (json!({ "quantity": 2.5 }), LineQuantity::NotWhole),
        (json!({ "quantity": "two" }), LineQuantity::NotWhole),
        (json!({ "quantity": [2] }), LineQuantity::NotWhole),
        (json!({ "quantity": u64::MAX }), LineQuantity::NotWhole),
        (json!({ "quantity": null, "quantity_decimal": "99999999999999999999" }), LineQuantity::NotWhole),
    ] {
        assert_eq!(read_line(&older(&fields)).quantity, quantity, "{fields}");
    }
}

#[test]
fn whether_a_line_recurs_is_told_in_many_places() {
    let bare = json!({ "amount": 500, "quantity": 1, "price": "price_1" });
    let recurs = |fields: Value| {
        let mut line = bare.clone();
        merge(&mut line, &fields);
        read_line(&line).is_recurring
    };
    let item = json!({ "subscription_item": "si_1" });
    for fields in [
        json!({ "type": "subscription" }),
        json!({ "price": { "id": "price_1", "type": "recurring" } }),
        json!({ "price": { "id": "price_1", "recurring": { "interval": "month" } } }),
        json!({ "plan": "price_1" }),
        json!({ "proration": true }),
        item.clone(),
        json!({ "parent": { "type": "subscription_item_details", "subscription_item_details": item } }),
        json!({ "parent": { "type": "subscription_item_details", "subscription_item_details": {} } }),
        json!({ "parent": { "invoice_item_details": { "proration": true } } }),
    ] {
        assert!(recurs(fields.clone()), "{fields}");
    }
    let pending = json!({ "invoice_item": "ii_1", "proration": false, "subscription": "sub_1" });
    for fields in [
        json!({}),
        json!({ "type": "invoiceitem", "plan": null, "subscription": "sub_1", "invoice_item": "ii_1" }),
        json!({ "price": { "id": "price_1", "type": "one_time", "recurring": null } }),
        json!({ "parent": { "type": "invoice_item_details", "invoice_item_details": pending } }),
    ] {
        assert!(!recurs(fields.clone()), "{fields}");
    }
}

#[test]
fn a_metered_line_is_kept_with_its_usage() {
    let price = json!({ "id": "price_calls", "product": "prod_calls", "type": "recurring",
                        "recurring": { "interval": "month", "interval_count": 1, "usage_type": "metered" } });
    let line = read_line(&older(&json!({ "price": price, "quantity": 5_000_000 })));
    assert_eq!(line.price.map(|price| (price.id, price.is_metered)), Some(("price_calls".into(), true)));
    assert_eq!(line.quantity, LineQuantity::Whole(5_000_000));
}

#[test]
fn what_is_odd_in_one_line_costs_no_other_line_anything() {
    let good = older(&json!({}));
    for odd in [
        older(
            &json!({ "amount": "10000", "period": [1, 2], "price": 7, "quantity": {}, "proration": "yes" }),
        ),
        json!({}),
        json!(null),
        json!([]),
        json!("il_1"),
        json!(7),
        json!({ "parent": [], "pricing": "x", "discount_amounts": 7, "metadata": [] }),
        older(&json!({ "price": { "id": "" }, "subscription": "s".repeat(300), "subscription_item": " " })),
    ] {
        let read = invoice(&with_lines(&[good.clone(), odd.clone(), good.clone()]));
        let lines = read.lines.expect("all lines");
        assert_eq!((lines.len(), &lines[0], &lines[2]), (3, &plan_line(), &plan_line()), "{odd}");
    }
    let odd =
        read_line(&json!({ "amount": "10000", "quantity": [], "price": 7, "period": 7, "proration": 1 }));
    let nothing = InvoiceLine {
        subscription_id: None,
        item_id: None,
        price: None,
        is_recurring: false,
        quantity: LineQuantity::NotWhole,
        amount: None,
        discount: MinorUnits(0),
        period: None,
        is_proration: false,
        names_credited: false,
    };
    assert_eq!(odd, nothing);
}

#[test]
fn lines_are_known_only_if_the_object_carries_all_of_them() {
    let line = older(&json!({}));
    let known = |list: Value| invoice(&json!({ "lines": list })).lines.map(|lines| lines.len());
    assert_eq!(known(json!({ "has_more": false, "data": [line, line] })), Some(2));
    assert_eq!(known(json!({ "data": [line] })), Some(1));
    assert_eq!(known(json!({ "has_more": false, "data": [] })), Some(0));
    for list in [
        json!({ "has_more": true, "data": [line] }),
        json!({ "has_more": "no", "data": [line] }),
        json!({ "has_more": false, "data": line }),
        json!({ "has_more": false }),
        json!([line]),
        json!(null),
    ] {
        assert_eq!(known(list.clone()), None, "{list}");
    }
}

#[test]
fn what_paid_an_invoice_is_named_in_both_shapes() {
    let older = json!({ "payment_intent": "pi_1", "charge": { "id": "ch_1", "object": "charge" } });
    let payments = json!([
        { "payment": { "type": "payment_intent", "payment_intent": { "id": "pi_1" } } },
        { "payment": { "type": "charge", "charge": "ch_1" } },
        { "payment": { "type": "payment_intent", "payment_intent": "pi_1" } },
        { "payment": { "type": "payment_record", "payment_record": "prec_1" } },
        { "payment": 7 },
        [],
    ]);
    let newer = json!({ "payments": { "object": "list", "has_more": false, "data": payments } });
    for fields in [older, newer] {
        let invoice = invoice(&fields);
        assert_eq!(invoice.payment_intent_ids, ["pi_1"], "{fields}");
        assert_eq!(invoice.charge_ids, ["ch_1"], "{fields}");
    }
    let by_hand = invoice(&json!({ "payment_intent": null, "charge": null, "payments": null }));
    assert!(by_hand.payment_intent_ids.is_empty() && by_hand.charge_ids.is_empty());
}

#[test]
fn an_invoices_own_fields_are_read_in_each_shape() {
    let plain = invoice(&json!({}));
    assert_eq!((plain.paid, plain.paid_at, plain.created), (true, None, calendar::from_unix(START)));
    assert_eq!((plain.total, plain.currency.as_deref()), (Some(MinorUnits(10_000)), Some("usd")));
    assert_eq!((plain.is_discounted, plain.test_clock), (false, None));
    let paid = json!({ "status_transitions": { "paid_at": END }, "created": null });
    assert_eq!((invoice(&paid).paid_at, invoice(&paid).created), (calendar::from_unix(END), None));
    for (status, paid, is_paid) in [
        (json!("paid"), json!(null), true),
        (json!("open"), json!(true), false),
        (json!("void"), json!(false), false),
        (json!(null), json!(true), true),
        (json!(null), json!(null), false),
    ] {
        assert_eq!(invoice(&json!({ "status": status, "paid": paid })).paid, is_paid, "{status} {paid}");
    }
    for discounted in [
        json!({ "discount": { "id": "di_1", "object": "discount" } }),
        json!({ "discounts": ["di_1"] }),
        json!({ "discounts": [], "total_discount_amounts": [{ "amount": 1, "discount": "di_1" }] }),
    ] {
        assert!(invoice(&discounted).is_discounted, "{discounted}");
    }
    let not = json!({ "discount": null, "discounts": [], "total_discount_amounts": null });
    assert!(!invoice(&not).is_discounted);
    for clock in [json!("clock_1"), json!({ "id": "clock_1", "object": "test_helpers.test_clock" })] {
        assert_eq!(invoice(&json!({ "test_clock": clock })).test_clock.as_deref(), Some("clock_1"));
    }
}

#[test]
fn only_an_invoices_own_key_fields_can_make_it_malformed() {
    for malformed in [
        json!({ "id": 7 }),
        json!({ "id": " " }),
        json!({ "status": 7 }),
        json!({ "subscription": "s".repeat(300) }),
    ] {
        assert!(try_read(&malformed).is_err(), "{malformed}");
    }
    let odd = json!({ "created": "today", "total": "10000", "currency": 7, "discounts": "di_1", "test_clock": [],
                      "status_transitions": [{ "paid_at": END }], "charge": 7, "payments": "none" });
    let paid = invoice(&odd);
    assert_eq!((paid.paid, paid.lines), (true, Some(Vec::new())));
    assert_eq!((paid.created, paid.total, paid.currency, paid.paid_at), (None, None, None, None));
    assert_eq!(invoice(&json!({ "status_transitions": { "paid_at": -1 } })).paid_at, None);
    let user = "11111111-1111-4111-8111-111111111111";
    let details = json!({ "subscription_details": { "metadata": { "user_id": user, "other": [1] } } });
    for metadata in [json!(null), json!([]), json!("x"), json!(7), json!({ "user_id": 7 }), json!({})] {
        let mut fields = details.clone();
        fields["metadata"] = metadata.clone();
        assert_eq!(invoice(&fields).metadata_user, UserNames::from_iter([user]), "{metadata}");
    }
}

/// The JSON texts that a field may hold instead of Stripe's.
fn odd_json() -> impl Strategy<Value = String> {
    let fixed = [
        "null",
        "true",
        "-1",
        "0",
        "2.5",
        "1e400",
        "99999999999999999999999999",
        "\"\"",
        "\"x\"",
        "[]",
        "[[]]",
        "{}",
        "{\"id\":7}",
        "{\"id\":\"x\"}",
        "[{\"amount\":1e400}]",
        "{\"start\":1,\"end\":1e400}",
        "-9223372036854775808",
        "{\"type\":\"a\",\"a\":{\"proration\":7}}",
        "\"\\u0000\"",
    ];
    prop_oneof![
        prop::sample::select(fixed.to_vec()).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        ".*".prop_map(|text| json!(text).to_string()),
    ]
}

proptest! {
    #[test]
    fn nothing_in_the_place_of_a_lines_field_changes_another_line(
        (is_newer, field, value) in (any::<bool>(), any::<prop::sample::Index>(), odd_json()),
    ) {
        let mut odd = if is_newer { newer(&json!({})) } else { older(&json!({})) };
        let fields = odd.as_object_mut().expect("an object");
        let name = fields.keys().nth(field.index(fields.len())).expect("a field").clone();
        fields.insert(name.clone(), json!("HERE"));
        let text = with_lines(&[older(&json!({})), odd, newer(&json!({}))])["lines"].to_string();
        let list = serde_json::from_str(&text).expect("JSON");
        let stripes = complete(list).expect("all lines");
        let text = text.replace("\"HERE\"", &value);
        let lines = complete(serde_json::from_str(&text).expect("JSON")).expect("all lines");
        prop_assert_eq!(lines.len(), 3, "{}", name);
        prop_assert_eq!((&lines[0], &lines[2]), (&stripes[0], &stripes[2]), "{}", name);
    }
}

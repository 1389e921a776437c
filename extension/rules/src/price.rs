//! The price of an invoice's line or of a subscription's item, in each shape of Stripe's API.

use crate::calendar::Span;
use crate::stripe::fields::Fields;

/// The price of a line or of an item, as far as the object tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePrice {
    /// `price_…`, or an id that the merchant chose.
    pub id: String,
    /// `prod_…`, or an id that the merchant chose.
    pub product_id: Option<String>,
    /// How often it bills. Since 2025-03-31 a line does not tell it.
    pub interval: Option<Span>,
    /// Whether it bills usage. Since 2025-03-31 a line does not tell it.
    pub is_metered: bool,
}

/// Where a line or an item tells its price: in the order in which the fields count.
struct Places<'a> {
    /// `pricing.price_details`: since 2025-03-31, of lines only.
    details: Fields<'a>,
    /// The price in `details`, `price`, and `plan`, which was before there were prices; where they are expanded.
    expanded: [Fields<'a>; 3],
}

impl<'a> Places<'a> {
    fn of(fields: &Fields<'a>) -> Places<'a> {
        let details = fields.object("pricing").object("price_details");
        let expanded = [details.object("price"), fields.object("price"), fields.object("plan")];
        Places { details, expanded }
    }

    /// How it recurs: a plan says so itself, a price in an object of its own.
    fn recurring(&self) -> impl Iterator<Item = Fields<'a>> {
        let [priced, price, plan] = &self.expanded;
        [priced.object("recurring"), price.object("recurring"), plan.clone()].into_iter()
    }
}

/// Reads the price of a line or of an item; `None` if it has none.
pub(crate) fn read(fields: &Fields) -> Option<LinePrice> {
    let places = Places::of(fields);
    let id = places.details.id("price").or_else(|| fields.id("price")).or_else(|| fields.id("plan"))?;
    let products = places.expanded.iter().map(|price| price.id("product"));
    let product_id = [places.details.id("product")].into_iter().chain(products).find_map(|product| product);
    let interval = places.recurring().find_map(|recurring| interval(&recurring));
    let is_metered =
        places.recurring().any(|recurring| recurring.text("usage_type").as_deref() == Some("metered"));
    Some(LinePrice { id, product_id, interval, is_metered })
}

/// Whether the object says of its price that it recurs.
pub(crate) fn is_recurring(fields: &Fields) -> bool {
    let recurs = |price: &Fields| {
        price.text("type").as_deref() == Some("recurring") || price.get("recurring").is_some()
    };
    fields.id("plan").is_some() || Places::of(fields).expanded.iter().any(recurs)
}

/// Stripe's interval of a price: `interval_count` times `interval`.
fn interval(recurring: &Fields) -> Option<Span> {
    let count = match recurring.get("interval_count") {
        None => 1,
        Some(_) => recurring.integer("interval_count")?,
    };
    format!("{count} {}", recurring.text("interval")?).parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(object: &Value) -> (Option<LinePrice>, bool) {
        let object = serde_json::value::to_raw_value(object).expect("JSON");
        let fields = Fields::of(&object);
        (read(&fields), is_recurring(&fields))
    }

    fn known(interval: Option<Span>, is_metered: bool) -> LinePrice {
        LinePrice { id: "price_1".into(), product_id: Some("prod_1".into()), interval, is_metered }
    }

    #[test]
    fn a_price_reads_the_same_from_each_place() {
        let recurring = json!({ "interval": "month", "interval_count": 3, "usage_type": "licensed" });
        let price =
            json!({ "id": "price_1", "product": "prod_1", "type": "recurring", "recurring": recurring });
        let plan = json!({ "id": "price_1", "product": { "id": "prod_1" }, "interval": "month",
                           "interval_count": 3, "usage_type": "licensed" });
        for object in [
            json!({ "price": price }),
            json!({ "plan": plan }),
            json!({ "price": "price_1", "plan": plan }),
            json!({ "pricing": { "price_details": { "price": price, "product": "prod_1" } } }),
            json!({ "pricing": { "price_details": { "price": price } }, "price": null, "plan": null }),
        ] {
            assert_eq!(of(&object), (Some(known(Some(Span::Months(3)), false)), true), "{object}");
        }
        let newer = json!({ "pricing": { "price_details": { "price": "price_1", "product": "prod_1" } } });
        assert_eq!(of(&newer), (Some(known(None, false)), false), "since 2025-03-31 a line does not tell it");
        let ids = json!({ "price": "price_1" });
        assert_eq!(of(&ids).0.map(|price| (price.id, price.product_id)), Some(("price_1".into(), None)));
        assert_eq!(of(&json!({ "plan": "plan_1" })).0.map(|price| price.id), Some("plan_1".into()));
    }

    #[test]
    fn each_interval_is_months_or_days() {
        let of = |recurring: Value| {
            of(&json!({ "price": { "id": "price_1", "product": "prod_1", "recurring": recurring } })).0
        };
        for (recurring, interval) in [
            (json!({ "interval": "year", "interval_count": 1 }), Some(Span::Months(12))),
            (json!({ "interval": "month" }), Some(Span::Months(1))),
            (json!({ "interval": "week", "interval_count": 2 }), Some(Span::Days(14))),
            (json!({ "interval": "day", "interval_count": 30 }), Some(Span::Days(30))),
            (json!({ "interval": "fortnight", "interval_count": 1 }), None),
            (json!({ "interval": "month", "interval_count": 0 }), None),
            (json!({ "interval": "month", "interval_count": 797_691_627 }), None),
            (json!({ "interval": "month", "interval_count": [1] }), None),
            (json!({ "interval": 1, "interval_count": 1 }), None),
            (json!([]), None),
        ] {
            assert_eq!(of(recurring.clone()), Some(known(interval, false)), "{recurring}");
        }
        let metered = json!({ "interval": "month", "interval_count": 1, "usage_type": "metered" });
        assert_eq!(of(metered), Some(known(Some(Span::Months(1)), true)));
    }

    #[test]
    fn a_price_that_is_sold_once_does_not_recur() {
        let once = json!({ "id": "price_1", "product": "prod_1", "type": "one_time", "recurring": null });
        assert_eq!(of(&json!({ "price": once, "plan": null })), (Some(known(None, false)), false));
        for nothing in [json!({}), json!({ "price": null }), json!({ "price": "" }), json!({ "price": [7] })]
        {
            assert_eq!(of(&nothing), (None, false), "{nothing}");
        }
    }
}

//! What a subscription's invoice grants once it is paid (rules 3, 4 and 7).

use std::collections::BTreeMap;

use super::{MAX_PAYMENT_CREDITS, NoGrant, OUT_OF_RANGE, fetch_or_park};
use crate::amount::{Credits, MinorUnits, Quantity};
use crate::calendar::Time;
use crate::catalog::{Cancellation, Item, NoPaymentRequired, Price, PriceKind};
use crate::fetched::Fetched;
use crate::invoice::{Invoice, InvoiceLine, LineQuantity, lines_path};
use crate::lot::{Cycle, NewGrant, Pool};
use crate::reason::Reason;
use crate::subscription;

/// The most parts in which one invoice line may be granted: daily ones over ten years.
pub const MAX_DRIPS: u32 = 3_660;

/// A line that bills something: not a credit for unused time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BilledLine {
    /// The key of its price.
    pub item: Item,
    /// At least one.
    pub quantity: Quantity,
    /// Whether it costs something.
    pub charge: Charge,
    /// The billed period: start, end.
    pub period: (Time, Time),
}

/// Whether a line costs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It does.
    Money,
    /// It does not, after a discount of 100 %.
    Discounted,
    /// It does not, before any discount: a trial, or a price of 0.
    Nothing,
}

/// The subscription of a paid invoice, and its lines that bill something.
///
/// # Errors
/// A [`NoGrant`] if it is not paid, bills no subscription, or its lines are not known.
pub fn lines<'a>(
    invoice: &'a Invoice,
    fetched: Option<&Fetched>,
) -> Result<(&'a str, Vec<BilledLine>), NoGrant> {
    let Some(subscription_id) = invoice.subscription_id.as_deref() else {
        return Err(NoGrant::Ignored(Reason::NoSubscription));
    };
    if !invoice.paid {
        return Err(NoGrant::Ignored(Reason::Unpaid));
    }
    let lines = fetched.and_then(|fetched| fetched.invoice_lines_of(invoice)).or(invoice.lines.clone());
    match lines.and_then(|lines| lines.iter().filter(|line| bills(line)).map(billed).collect()) {
        Some(lines) => Ok((subscription_id, lines)),
        None => Err(fetch_or_park(fetched, lines_path(&invoice.id))),
    }
}

fn bills(line: &InvoiceLine) -> bool {
    line.amount.is_none_or(|amount| amount.0 >= 0) && line.quantity != LineQuantity::Whole(0)
}

fn billed(line: &InvoiceLine) -> Option<BilledLine> {
    let quantity = match line.quantity {
        LineQuantity::Missing => 1,
        LineQuantity::Whole(quantity) => quantity,
        LineQuantity::NotWhole => return None,
    };
    let price = line.price.clone()?;
    Some(BilledLine {
        item: Item::line(price.id, price.product_id),
        quantity: Quantity::new(quantity)?,
        charge: match line.amount? {
            MinorUnits(0) => Charge::Nothing,
            amount if line.discount >= amount => Charge::Discounted,
            _ => Charge::Money,
        },
        period: line.period?,
    })
}

/// What an invoice grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worth {
    /// For its lines.
    pub grants: Vec<NewGrant>,
    /// Granted on top if it is the user's first purchase.
    pub bonus: Credits,
}

/// A subscription's trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// When it ends or ended; `None` if there was none.
    pub end: Option<Time>,
}

/// A line and its price; `None` if the catalog does not know it.
pub type Priced = (BilledLine, Option<Price>);

/// What the lines of a paid invoice grant, by the prices in force when each line's period starts. Without a known
/// `trial`, a line that costs nothing needs the subscription from Stripe.
///
/// # Errors
/// A [`NoGrant`] if a price is unknown, if nothing is granted, or if it is more than an account can hold.
pub fn worth(
    invoice: &Invoice,
    subscription_id: &str,
    lines: &[Priced],
    policy: NoPaymentRequired,
    trial: Option<Trial>,
    fetched: Option<&Fetched>,
) -> Result<Worth, NoGrant> {
    let unknown: Vec<Item> =
        lines.iter().filter(|(_, price)| price.is_none()).map(|(line, _)| line.item.clone()).collect();
    if !unknown.is_empty() {
        return Err(NoGrant::Parked(Reason::UnknownPrice, unknown));
    }
    let mut nothing = Reason::NothingBilled;
    let mut packs: BTreeMap<&str, Bought> = BTreeMap::new();
    let mut plans: BTreeMap<(&str, bool), BTreeMap<Time, Bought>> = BTreeMap::new();
    for (line, price) in lines.iter().filter_map(|(line, price)| Some((line, price.as_ref()?))) {
        let (start, end) = line.period;
        let in_trial = match (line.charge, trial) {
            _ if price.kind == PriceKind::NotCredits => false,
            (Charge::Nothing, None) => {
                return Err(fetch_or_park(fetched, subscription::path(subscription_id)));
            }
            (Charge::Nothing, Some(trial)) => trial.end.is_some_and(|trial_end| end <= trial_end),
            _ => false,
        };
        if let Some(reason) = no_grant_reason(line, price, policy, in_trial) {
            if matches!(nothing, Reason::NothingBilled | Reason::NotCredits) {
                nothing = reason;
            }
            continue;
        }
        let bought = Bought { price, quantity: line.quantity, start };
        if price.kind == PriceKind::Pack {
            let sum = match packs.get(price.price_id.as_str()) {
                Some(known) => Bought {
                    quantity: known.quantity.checked_add(bought.quantity).ok_or(OUT_OF_RANGE)?,
                    start: known.start.min(start),
                    price,
                },
                None => bought,
            };
            packs.insert(&price.price_id, sum);
        } else {
            let period = plans.entry((&price.price_id, in_trial)).or_default().entry(end).or_insert(bought);
            (period.quantity, period.start) = (period.quantity.max(bought.quantity), period.start.max(start));
        }
    }
    let mut grants = Vec::new();
    for ((_, in_trial), periods) in &plans {
        let last = periods.keys().next_back();
        for (end, bought) in periods {
            // The items of a price's newest period have no suffix.
            let suffix = if Some(end) == last { String::new() } else { format!("@{}", end.timestamp()) };
            let cycle = bought.cycle(invoice, subscription_id, *end);
            if *in_trial {
                let item = format!("{}{suffix}{TRIAL}", cycle.price_id);
                let grant = bought.grant(item, bought.price.trial_credits, Pool::Subscription);
                grants.push(NewGrant { cycle: Some(cycle), ..grant });
            } else {
                grants.extend(bought.grants_of_period(&suffix, &cycle)?);
            }
        }
    }
    for (price_id, bought) in packs {
        let expires_after = bought.price.expires_after;
        let expires_at =
            expires_after.map(|span| span.after(bought.start).ok_or(OUT_OF_RANGE)).transpose()?;
        let grant = bought.grant(price_id.to_owned(), bought.credits()?, Pool::Purchased);
        grants.push(NewGrant { expires_at, ..grant });
    }
    grants.retain(|grant| grant.credits > Credits::ZERO);
    let total = grants.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits));
    if total.is_none_or(|total| total > MAX_PAYMENT_CREDITS) {
        return Err(OUT_OF_RANGE);
    }
    if grants.is_empty() {
        return Err(NoGrant::Ignored(nothing));
    }
    let purchases =
        plans.iter().filter(|((_, in_trial), _)| !in_trial).flat_map(|(_, periods)| periods.values());
    let first = purchases.min_by_key(|bought| bought.start);
    Ok(Worth { grants, bonus: first.map_or(Credits::ZERO, |bought| bought.price.first_purchase_bonus) })
}

/// Why a line grants nothing by the catalog's policies, if it does not.
fn no_grant_reason(
    line: &BilledLine,
    price: &Price,
    policy: NoPaymentRequired,
    in_trial: bool,
) -> Option<Reason> {
    let is_plan = price.kind == PriceKind::Plan;
    if price.kind == PriceKind::NotCredits {
        Some(Reason::NotCredits)
    } else if in_trial {
        (!is_plan || price.trial_credits == Credits::ZERO).then_some(Reason::Trial)
    } else if line.charge != Charge::Money && policy == NoPaymentRequired::Ignore {
        Some(Reason::NoPaymentRequired)
    } else {
        None
    }
}

/// What was bought of one price for one period.
#[derive(Clone, Copy)]
struct Bought<'a> {
    price: &'a Price,
    quantity: Quantity,
    start: Time,
}

impl Bought<'_> {
    fn credits(&self) -> Result<Credits, NoGrant> {
        self.price.credits.times(self.quantity).ok_or(OUT_OF_RANGE)
    }

    fn grant(&self, item: String, credits: Credits, pool: Pool) -> NewGrant {
        NewGrant::new(item, self.price.name.clone(), credits, pool)
    }

    fn cycle(&self, invoice: &Invoice, subscription_id: &str, end: Time) -> Cycle {
        Cycle {
            subscription_id: subscription_id.to_owned(),
            price_id: self.price.price_id.clone(),
            start: self.start,
            end,
            max_rollover: self.price.max_rollover,
            expires: self.price.cancellation == Cancellation::Expire,
            paid_at: invoice.paid_at.or(invoice.created).unwrap_or(self.start),
        }
    }

    /// One grant; if the price drips, one for each span, counted from the period's start.
    fn grants_of_period(&self, suffix: &str, cycle: &Cycle) -> Result<Vec<NewGrant>, NoGrant> {
        let grant = |item: String| -> Result<NewGrant, NoGrant> {
            Ok(NewGrant {
                cycle: Some(cycle.clone()),
                ..self.grant(item, self.credits()?, Pool::Subscription)
            })
        };
        let Some(drip) = self.price.drip else {
            return Ok(vec![grant(format!("{}{suffix}", cycle.price_id))?]);
        };
        let mut grants = Vec::new();
        let mut from = cycle.start;
        for count in 1..=MAX_DRIPS {
            if from >= cycle.end {
                return Ok(grants);
            }
            let next = drip.times(count).and_then(|span| span.after(cycle.start)).ok_or(OUT_OF_RANGE)?;
            grants.push(NewGrant {
                available_from: Some(from),
                expires_at: Some(next.min(cycle.end)),
                ..grant(format!("{}{suffix}#{count}", cycle.price_id))?
            });
            from = next;
        }
        Err(OUT_OF_RANGE)
    }
}

/// The suffix of the items of trial grants.
pub const TRIAL: &str = "#trial";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::calendar::{self, Span};
    use crate::{catalog, invoice};

    const JANUARY: i64 = 1_767_225_600;
    const YEAR_AFTER: i64 = 1_798_761_600;

    fn invoice(fields: &Value) -> Invoice {
        let mut object = json!({
            "id": "in_1", "object": "invoice", "status": "paid", "created": JANUARY, "customer": "cus_1",
            "subscription": "sub_1", "total": 10000, "currency": "usd", "billing_reason": "subscription_cycle",
            "lines": { "has_more": false, "data": [] },
        });
        for (key, value) in fields.as_object().expect("an object") {
            object[key] = value.clone();
        }
        let object = serde_json::value::to_raw_value(&object).expect("JSON");
        invoice::read(&object).expect("an invoice")
    }

    fn line(price: &str, amount: i64, quantity: i64, period: (i64, i64)) -> Value {
        json!({
            "amount": amount, "quantity": quantity, "price": { "id": price },
            "period": { "start": period.0, "end": period.1 },
        })
    }

    fn billing(lines: &[Value]) -> Invoice {
        invoice(&json!({ "lines": { "has_more": false, "data": lines } }))
    }

    fn judged(invoice: &Invoice, trial: Option<Trial>) -> Result<Worth, NoGrant> {
        let document = r#"{ "livemode": false, "not_credits": ["price_tshirt"],
            "plans": [
                { "key": "pro", "credits": 10000, "first_purchase_bonus": 70, "trial_credits": 50,
                  "prices": ["price_pro", { "id": "price_year", "drip": "1 month" }] },
                { "key": "slow", "credits": 500, "prices": ["price_slow"] } ],
            "packs": [{ "key": "small", "credits": 500, "prices": ["price_pack"] }] }"#;
        let catalog = catalog::read(document).expect("a catalog").prices;
        let (subscription_id, lines) = lines(invoice, None)?;
        let price = |line: &BilledLine| match &line.item {
            Item::Price(id) | Item::Line { price: id, .. } => catalog.get(id).cloned(),
            Item::Pack(_) | Item::Unpriced => None,
        };
        let priced: Vec<Priced> = lines.iter().map(|line| (line.clone(), price(line))).collect();
        worth(invoice, subscription_id, &priced, NoPaymentRequired::Grant, trial, None)
    }

    fn grants(invoice: &Invoice) -> Result<Vec<(String, i64)>, NoGrant> {
        let worth = judged(invoice, Some(Trial { end: calendar::from_unix(JANUARY + 500) }))?;
        Ok(worth.grants.into_iter().map(|grant| (grant.item, grant.credits.0)).collect())
    }

    const MONTH: (i64, i64) = (JANUARY, JANUARY + 2_678_400);

    #[test]
    fn only_paid_invoices_of_subscriptions_grant() {
        let of = |fields: Value| grants(&invoice(&fields));
        let unpaid = json!({ "status": "open", "paid": true });
        assert_eq!(of(unpaid), Err(NoGrant::Ignored(Reason::Unpaid)));
        let own = json!({ "subscription": null });
        assert_eq!(of(own), Err(NoGrant::Ignored(Reason::NoSubscription)));
        let oldest = json!({ "status": null, "paid": true });
        assert_eq!(of(oldest), Err(NoGrant::Ignored(Reason::NothingBilled)), "it is paid");
        let newer = json!({ "subscription": null, "parent": {
            "type": "subscription_details", "subscription_details": { "subscription": "sub_2" } } });
        assert_eq!(invoice(&newer).subscription_id.as_deref(), Some("sub_2"));
        let quote = json!({ "subscription": null, "parent": {
            "type": "quote_details", "subscription_details": { "subscription": "sub_2" } } });
        assert_eq!(invoice(&quote).subscription_id, None);
    }

    #[test]
    fn lines_of_both_shapes_are_read_and_credits_for_unused_time_passed_over() {
        let newer = json!({
            "amount": 10000, "quantity": 2, "pricing": { "price_details": { "price": "price_pro" } },
            "period": { "start": MONTH.0, "end": MONTH.1 },
        });
        let unused = line("price_slow", -500, 1, MONTH);
        assert_eq!(grants(&billing(&[newer, unused.clone()])), Ok(vec![("price_pro".into(), 20_000)]));
        assert_eq!(grants(&billing(&[unused])), Err(NoGrant::Ignored(Reason::NothingBilled)));
    }

    #[test]
    fn missing_and_incomplete_lines_are_fetched() {
        let path = "/v1/invoices/in_1/lines?limit=100".to_owned();
        let more = invoice(&json!({ "lines": { "has_more": true, "data": [] } }));
        assert_eq!(grants(&more), Err(NoGrant::NeedsFetch(vec![path.clone()])));
        let mut nameless = line("price_pro", 10_000, 1, MONTH);
        nameless["price"] = Value::Null;
        assert_eq!(grants(&billing(&[nameless])), Err(NoGrant::NeedsFetch(vec![path])));
        let free = billing(&[line("price_pro", 0, 1, MONTH)]);
        let path = "/v1/subscriptions/sub_1".to_owned();
        assert_eq!(judged(&free, None), Err(NoGrant::NeedsFetch(vec![path])), "is it a trial?");
    }

    #[test]
    fn the_highest_quantity_of_a_period_counts_and_packs_with_it_are_purchased() {
        let lines = [
            line("price_pro", 100, 3, (JANUARY + 5, MONTH.1)),
            line("price_pro", 10_000, 1, MONTH),
            line("price_pack", 1000, 2, MONTH),
            line("price_tshirt", 2000, 1, MONTH),
        ];
        assert_eq!(
            grants(&billing(&lines)),
            Ok(vec![("price_pro".into(), 30_000), ("price_pack".into(), 1000)])
        );
        let unknown = NoGrant::Parked(Reason::UnknownPrice, vec![Item::Price("price_new".into())]);
        assert_eq!(
            grants(&billing(&[line("price_pro", 1, 1, MONTH), line("price_new", 1, 1, MONTH)])),
            Err(unknown)
        );
        let shirt = billing(&[line("price_tshirt", 2000, 1, MONTH)]);
        assert_eq!(grants(&shirt), Err(NoGrant::Ignored(Reason::NotCredits)));
    }

    #[test]
    fn a_trial_a_free_price_and_a_whole_discount_are_distinguished() {
        let trial = billing(&[line("price_pro", 0, 1, (JANUARY, JANUARY + 500))]);
        assert_eq!(grants(&trial), Ok(vec![("price_pro#trial".into(), 50)]));
        assert_eq!(judged(&trial, Some(Trial { end: None })).map(|worth| worth.bonus), Ok(Credits(70)));
        let slow = billing(&[line("price_slow", 0, 1, (JANUARY, JANUARY + 500))]);
        assert_eq!(grants(&slow), Err(NoGrant::Ignored(Reason::Trial)));
        let after = billing(&[line("price_pro", 0, 1, (JANUARY, JANUARY + 501))]);
        assert_eq!(grants(&after), Ok(vec![("price_pro".into(), 10_000)]), "nothing to pay, and no trial");
        let mut discounted = line("price_pro", 10_000, 1, MONTH);
        discounted["discount_amounts"] = json!([{ "amount": 10_000 }]);
        assert_eq!(grants(&billing(&[discounted])), Ok(vec![("price_pro".into(), 10_000)]));
    }

    #[test]
    fn a_year_drips_in_twelve_months_that_follow_one_another() {
        let year = billing(&[line("price_year", 100_000, 1, (JANUARY, YEAR_AFTER))]);
        let worth = judged(&year, Some(Trial { end: None })).expect("worth");
        assert_eq!(worth.grants.len(), 12);
        let start = calendar::from_unix(JANUARY).expect("a time");
        for (month, grant) in (0..).zip(&worth.grants) {
            assert_eq!(grant.credits, Credits(10_000));
            assert_eq!(grant.available_from, Span::Months(month).after(start));
            assert_eq!(grant.expires_at, Span::Months(month + 1).after(start));
        }
        // Months are counted from the 31st, and clamp.
        let from = JANUARY + 30 * 86_400;
        let clamped = billing(&[line("price_year", 100_000, 1, (from, from + 365 * 86_400))]);
        let worth = judged(&clamped, Some(Trial { end: None })).expect("worth");
        let days: Vec<String> = worth
            .grants
            .iter()
            .filter_map(|grant| Some(grant.available_from?.format("%m-%d").to_string()))
            .collect();
        assert_eq!(days[..4], ["01-31", "02-28", "03-31", "04-30"]);
        assert_eq!(days.len(), 12);
    }

    #[test]
    fn two_periods_of_one_price_are_two_grants() {
        let next = (MONTH.1, MONTH.1 + 2_419_200);
        let both = billing(&[line("price_pro", 400, 1, MONTH), line("price_pro", 10_000, 1, next)]);
        let earlier = format!("price_pro@{}", MONTH.1);
        assert_eq!(grants(&both), Ok(vec![(earlier, 10_000), ("price_pro".into(), 10_000)]));
    }
}

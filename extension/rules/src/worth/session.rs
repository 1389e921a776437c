//! What a checkout session in mode `payment` grants, by what is known of it (rules 3 and 4).

use std::collections::BTreeMap;

use super::{MAX_PAYMENT_CREDITS, NoGrant, OUT_OF_RANGE, fetch_or_park};
use crate::amount::{Credits, Quantity};
use crate::calendar::Time;
use crate::catalog::{Item, NoPaymentRequired, Price, PriceKind};
use crate::fetched::Fetched;
use crate::lot::{NewGrant, Pool};
use crate::reason::Reason;
use crate::session::{self, LineItem, Mode, PaymentStatus, Session};

/// The line items of a paid session, from the best source that is known: what was fetched from Stripe, the session's
/// own, or the one that its metadata names.
///
/// # Errors
/// A [`NoGrant`] if the session is not paid, is of another mode, or has no known line items.
pub fn lines(
    session: &Session,
    policy: NoPaymentRequired,
    fetched: Option<&Fetched>,
) -> Result<Vec<LineItem>, NoGrant> {
    if session.mode != Mode::Payment {
        return Err(NoGrant::Ignored(Reason::Mode));
    }
    let current = fetched.and_then(|fetched| fetched.session(&session.id));
    match current.and_then(|session| session.payment).or(session.payment) {
        None => return Err(fetch_or_park(fetched, session::path(&session.id))),
        Some(PaymentStatus::Paid) => {}
        Some(PaymentStatus::NoPaymentRequired) if policy == NoPaymentRequired::Grant => {}
        Some(PaymentStatus::NoPaymentRequired) => {
            return Err(NoGrant::Ignored(Reason::NoPaymentRequired));
        }
        Some(PaymentStatus::Unpaid) => return Err(NoGrant::Ignored(Reason::Unpaid)),
        Some(PaymentStatus::Failed) => return Err(NoGrant::Ignored(Reason::PaymentFailed)),
        Some(PaymentStatus::Expired) => return Err(NoGrant::Ignored(Reason::Expired)),
    }
    let from_stripe = fetched.and_then(|fetched| fetched.lines_of(&session.id)).or(session.lines.as_deref());
    match (from_stripe, &session.named) {
        (Some(lines), _) => Ok(lines.to_vec()),
        (None, Some(named)) => Ok(vec![named.clone()]),
        (None, None) => Err(fetch_or_park(fetched, session::line_items_path(&session.id))),
    }
}

/// What the line items grant by the catalog: one grant per price, of its credits times the quantity of all its lines.
/// `prices` are those in force when the session was `created`. A pack's expiry counts from then too.
///
/// # Errors
/// A [`NoGrant`] if a price is unknown, if no line is credits, or if it is more than an account can hold.
pub fn worth(
    lines: &[LineItem],
    prices: &BTreeMap<Item, Price>,
    created: Time,
) -> Result<Vec<NewGrant>, NoGrant> {
    let mut unknown = Vec::new();
    let mut bought: BTreeMap<&str, (&Price, Quantity)> = BTreeMap::new();
    for line in lines {
        match prices.get(&line.item) {
            Some(Price { kind: PriceKind::NotCredits, .. }) => {}
            Some(price) if price.kind == PriceKind::Pack => {
                let sum = match bought.get(price.price_id.as_str()) {
                    Some((_, quantity)) => quantity.checked_add(line.quantity).ok_or(OUT_OF_RANGE)?,
                    None => line.quantity,
                };
                bought.insert(&price.price_id, (price, sum));
            }
            _ => unknown.push(line.item.clone()),
        }
    }
    if !unknown.is_empty() {
        return Err(NoGrant::Parked(Reason::UnknownPrice, unknown));
    }
    if bought.is_empty() {
        return Err(NoGrant::Ignored(Reason::NotCredits));
    }
    let mut total = Credits::ZERO;
    let mut grants = Vec::new();
    for (price, quantity) in bought.into_values() {
        let credits = price.credits.times(quantity).ok_or(OUT_OF_RANGE)?;
        total = total.checked_add(credits).filter(|sum| *sum <= MAX_PAYMENT_CREDITS).ok_or(OUT_OF_RANGE)?;
        let expires_at = match price.expires_after {
            Some(span) => Some(span.after(created).ok_or(OUT_OF_RANGE)?),
            None => None,
        };
        let grant = NewGrant::new(price.price_id.clone(), price.name.clone(), credits, Pool::Purchased);
        grants.push(NewGrant { expires_at, ..grant });
    }
    Ok(grants)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amount::{MAX_CREDITS, MAX_QUANTITY};
    use crate::calendar::{self, Span};
    use crate::catalog;

    fn prices() -> BTreeMap<Item, Price> {
        let document = r#"{
            "livemode": false, "not_credits": ["price_tshirt"],
            "plans": [{ "key": "pro", "credits": 10000, "prices": ["price_pro"] }],
            "packs": [
                { "key": "small", "credits": 500, "prices": ["price_pack"] },
                { "key": "month", "credits": 100, "prices": ["price_month"], "expires_after": "1 month" },
                { "key": "huge", "credits": 1000000000000, "prices": ["price_huge"] }
            ] }"#;
        let catalog = catalog::read(document).expect("a catalog");
        catalog.prices.into_iter().map(|(id, price)| (Item::Price(id), price)).collect()
    }

    fn line(price_id: &str, quantity: i64) -> LineItem {
        LineItem {
            item: Item::Price(price_id.into()),
            quantity: Quantity::new(quantity).expect("a quantity"),
        }
    }

    fn credits(lines: &[LineItem]) -> Result<Vec<(String, i64)>, NoGrant> {
        let created = calendar::from_unix(1_700_000_000).expect("a time");
        worth(lines, &prices(), created)
            .map(|grants| grants.into_iter().map(|grant| (grant.item, grant.credits.0)).collect())
    }

    fn session(payment: Option<PaymentStatus>) -> Session {
        Session {
            id: "cs_1".into(),
            mode: Mode::Payment,
            payment,
            created: calendar::from_unix(1_700_000_000).expect("a time"),
            customer_id: None,
            payment_intent_id: None,
            metadata_user: crate::user::UserNames::default(),
            client_reference: crate::user::UserNames::default(),
            amount_total: None,
            currency: None,
            named: Some(line("price_pack", 1)),
            lines: None,
            stated_credits: None,
            subscription: None,
            invoice: None,
        }
    }

    #[test]
    fn lines_of_one_price_are_summed() {
        assert_eq!(
            credits(&[line("price_pack", 2), line("price_pack", 1)]),
            Ok(vec![("price_pack".into(), 1500)])
        );
    }

    #[test]
    fn a_shirt_with_a_pack_changes_nothing_and_alone_is_ignored() {
        assert_eq!(
            credits(&[line("price_pack", 1), line("price_tshirt", 1)]),
            Ok(vec![("price_pack".into(), 500)])
        );
        assert_eq!(credits(&[line("price_tshirt", 1)]), Err(NoGrant::Ignored(Reason::NotCredits)));
    }

    #[test]
    fn one_unknown_price_parks_the_whole_and_is_named() {
        let unknown = NoGrant::Parked(Reason::UnknownPrice, vec![Item::Price("price_new".into())]);
        assert_eq!(credits(&[line("price_pack", 1), line("price_new", 1)]), Err(unknown));
        let plan = NoGrant::Parked(Reason::UnknownPrice, vec![Item::Price("price_pro".into())]);
        assert_eq!(credits(&[line("price_pro", 1)]), Err(plan), "a plan is not sold by one payment");
    }

    #[test]
    fn more_than_can_be_held_is_refused_and_never_wraps() {
        assert_eq!(credits(&[line("price_huge", MAX_QUANTITY)]), Err(NoGrant::Rejected(Reason::OutOfRange)));
        assert!(MAX_CREDITS.checked_mul(MAX_QUANTITY).is_some());
        let many = vec![line("price_pack", MAX_QUANTITY); 2];
        assert_eq!(credits(&many), Err(NoGrant::Rejected(Reason::OutOfRange)));
    }

    #[test]
    fn a_packs_expiry_counts_from_the_session_not_from_its_delivery() {
        let created = calendar::from_unix(1_700_000_000).expect("a time");
        let grants = worth(&[line("price_month", 1)], &prices(), created).expect("worth");
        assert_eq!(grants[0].expires_at, Span::Months(1).after(created));
    }

    #[test]
    fn only_paid_is_paid() {
        let judged = |payment, policy| lines(&session(payment), policy, None).map(|lines| lines.len());
        let (grant, ignore) = (NoPaymentRequired::Grant, NoPaymentRequired::Ignore);
        assert_eq!(judged(Some(PaymentStatus::Paid), ignore), Ok(1));
        assert_eq!(judged(Some(PaymentStatus::NoPaymentRequired), grant), Ok(1));
        for (status, reason) in [
            (PaymentStatus::NoPaymentRequired, Reason::NoPaymentRequired),
            (PaymentStatus::Unpaid, Reason::Unpaid),
            (PaymentStatus::Failed, Reason::PaymentFailed),
            (PaymentStatus::Expired, Reason::Expired),
        ] {
            assert_eq!(judged(Some(status), ignore), Err(NoGrant::Ignored(reason)));
        }
        for mode in [Mode::Subscription, Mode::Other] {
            let other = Session { mode, ..session(Some(PaymentStatus::Paid)) };
            assert_eq!(lines(&other, grant, None), Err(NoGrant::Ignored(Reason::Mode)));
        }
    }

    #[test]
    fn what_is_missing_is_fetched_once_and_then_waited_for() {
        let nameless = Session { named: None, ..session(Some(PaymentStatus::Paid)) };
        let judged = |session: &Session, fetched: Option<&str>| {
            let fetched = fetched.map(|text| Fetched::read(text).expect("an answer"));
            lines(session, NoPaymentRequired::Grant, fetched.as_ref())
        };
        let path = "/v1/checkout/sessions/cs_1/line_items?limit=100".to_owned();
        assert_eq!(judged(&nameless, None), Err(NoGrant::NeedsFetch(vec![path])));
        assert_eq!(judged(&nameless, Some("{}")), Err(NoGrant::Parked(Reason::Unfetched, vec![])));
        let other = r#"{"objects": [{"object": "list", "url": "/v1/checkout/sessions/cs_2/line_items", "data": []}]}"#;
        assert_eq!(judged(&nameless, Some(other)), Err(NoGrant::Parked(Reason::Shape, vec![])));
        let statusless = session(None);
        let path = "/v1/checkout/sessions/cs_1".to_owned();
        assert_eq!(judged(&statusless, None), Err(NoGrant::NeedsFetch(vec![path])));
    }

    #[test]
    fn stripes_line_items_come_before_the_metadata() {
        let both = Session { lines: Some(vec![line("price_pack", 3)]), ..session(Some(PaymentStatus::Paid)) };
        assert_eq!(lines(&both, NoPaymentRequired::Grant, None), Ok(vec![line("price_pack", 3)]));
    }

    proptest! {
        #[test]
        fn worth_does_not_depend_on_the_order_of_lines(
            mut bought in proptest::collection::vec(
                (prop::sample::select(vec!["price_pack", "price_month", "price_tshirt", "price_new"]), 1..50i64), 1..6),
            seed in any::<prop::sample::Index>(),
        ) {
            let lines = |bought: &[(&str, i64)]| bought.iter().map(|(p, n)| line(p, *n)).collect::<Vec<_>>();
            let forward = credits(&lines(&bought)).ok();
            let turn = seed.index(bought.len());
            bought.rotate_left(turn);
            prop_assert_eq!(&forward, &credits(&lines(&bought)).ok());
            bought.reverse();
            prop_assert_eq!(&forward, &credits(&lines(&bought)).ok());
        }
    }
}

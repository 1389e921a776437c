//! What a change of plan is, and the forms by which Stripe previews it and makes it.

use stripe_credits_rules::plan_change::{self, Direction, Level, Timing};

use crate::app::App;
use crate::database::catalog::{Offer, OfferKind};
use crate::error::Error;
use crate::routes::choice::{Choice, PriceAtStripe};
use crate::routes::request::LogFields;
use crate::routes::subscription::current::Current;
use crate::routes::user::AuthenticatedRequest;
use crate::stripe::client::StripeError;
use crate::stripe::form::Form;
use crate::stripe::objects::{Price, Recurring, SubscriptionItem};

/// How old a preview may be when its change is made, in seconds: the older, the more of the old period it credits.
const MAX_PREVIEW_SECONDS: u64 = 15 * 60;
/// A change without a preview is prorated from the beginning of its minute, so that two clicks are one request.
const PRORATION_STEP_SECONDS: u64 = 60;

/// A change of one item of the user's subscription.
pub(crate) struct Change {
    pub(crate) current: Current,
    /// The item that changes: its place in the subscription's list.
    index: usize,
    pub(crate) choice: Choice,
    pub(crate) offer: Offer,
    /// The chosen price, if Stripe has it.
    pub(crate) price: Option<PriceAtStripe>,
    pub(crate) direction: Direction,
    pub(crate) timing: Timing,
    /// From when Stripe credits and charges, in seconds since 1970.
    pub(crate) proration_date: u64,
    /// When the item's period ends, in seconds since 1970.
    pub(crate) period_end: u64,
}

impl Change {
    /// Reads the choice, and the current state of the subscription at Stripe.
    pub(crate) async fn read(
        app: &App,
        request: &AuthenticatedRequest,
        fields: &mut LogFields,
    ) -> Result<Self, Error> {
        let choice = Choice::read(request, fields)?;
        let own = choice.own_offer(app).await?;
        if own.as_ref().is_some_and(|own| own.kind != OfferKind::Plan) {
            return Err(Error::InvalidPrice);
        }
        let current = Current::read(app, request.user.id()).await?;
        let price = choice.at_stripe(app).await?;
        let found = price.as_ref().map(|found| &found.price);
        let offer = match own {
            Some(own) => own,
            None => choice.products_offer(app, found).await?,
        };
        if offer.kind != OfferKind::Plan {
            return Err(Error::InvalidPrice);
        }
        let (index, before) = plan_item(app, &current, &choice).await?.ok_or(Error::NoSubscription)?;
        let item = &current.subscription.items.data[index];
        let to = level(&offer, found, choice.quantity);
        let from = before.map(|before| level(&before, Some(&item.price), item.quantity));
        // More than what the catalog does not know.
        let (direction, timing) = from.map_or((Direction::Up, Timing::Invoiced), |from| {
            (plan_change::direction(from, to), plan_change::timing(from, to))
        });
        // In a trial nothing was paid, and nothing is billed before it ends.
        let is_trial = current.subscription.status == "trialing";
        let timing = if is_trial { Timing::Uninvoiced } else { timing };
        let (start, period_end) = current.subscription.period(item).ok_or_else(no_period)?;
        let proration_date = proration_date(choice.proration_date, current.now, start)?;
        Ok(Self { current, index, choice, offer, price, direction, timing, proration_date, period_end })
    }

    /// The item that changes.
    pub(crate) fn item(&self) -> &SubscriptionItem {
        &self.current.subscription.items.data[self.index]
    }

    /// Whether the subscription is already to this.
    pub(crate) fn is_made(&self) -> bool {
        self.is_to(self.item())
    }

    /// Whether it is made as soon as an invoice is paid that is open already.
    pub(crate) fn is_pending(&self) -> bool {
        let pending = self.current.subscription.pending_update.as_ref();
        let items = pending.and_then(|pending| pending.subscription_items.as_ref()).into_iter().flatten();
        items.into_iter().any(|item| item.id == self.item().id && self.is_to(item))
    }

    fn is_to(&self, item: &SubscriptionItem) -> bool {
        item.price.id == self.choice.price_id && item.quantity == self.choice.quantity
    }

    /// The form that makes the change now.
    pub(crate) fn form(&self) -> Form {
        let form = self.details(Form::default(), "").with("expand[]", "latest_invoice");
        match self.timing {
            // Stripe takes no metadata with it.
            Timing::Invoiced => form.with("payment_behavior", "pending_if_incomplete"),
            _ => form.with("metadata[plan_key]", &self.offer.key),
        }
    }

    /// The form that previews the invoice of the change: by the same fields.
    pub(crate) fn preview_form(&self) -> Form {
        let form = Form::default().with("subscription", &self.current.subscription.id);
        self.details(form, "subscription_details")
    }

    /// The form that tells people the plan in the subscription's metadata; none if they tell it.
    pub(crate) fn metadata_form(&self) -> Option<Form> {
        let key = "plan_key";
        let is_told = self.current.subscription.metadata.get(key) == Some(&self.offer.key);
        (!is_told).then(|| Form::default().with(format!("metadata[{key}]"), &self.offer.key))
    }

    /// Adds what changes. Where a preview needs the fields, they are within `parent`.
    fn details(&self, form: Form, parent: &str) -> Form {
        let name = |field: &str| match (parent, field.split_once('[')) {
            ("", _) => field.to_owned(),
            (parent, Some((outer, inner))) => format!("{parent}[{outer}][{inner}"),
            (parent, None) => format!("{parent}[{field}]"),
        };
        let form = form
            .with(name("items[0][id]"), &self.item().id)
            .with(name("items[0][price]"), &self.choice.price_id)
            .with(name("items[0][quantity]"), self.choice.quantity);
        match self.timing {
            Timing::Invoiced => form
                .with(name("proration_behavior"), "always_invoice")
                .with(name("proration_date"), self.proration_date)
                .with(name("billing_cycle_anchor"), "now"),
            Timing::Uninvoiced | Timing::AtPeriodEnd => form.with(name("proration_behavior"), "none"),
        }
    }
}

/// The item that a choice changes, and what the catalog says of it: the one of the chosen price; else of those of plans
/// the one that names the tier; or the only one.
async fn plan_item(
    app: &App,
    current: &Current,
    choice: &Choice,
) -> Result<Option<(usize, Option<Offer>)>, Error> {
    let items = &current.subscription.items.data;
    let mut plans = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let offer = app.database.offer(&item.price.id, item.price.product.as_deref()).await?;
        let is_plan = offer.as_ref().is_some_and(|offer| offer.kind == OfferKind::Plan);
        if is_plan || items.len() == 1 {
            plans.push((index, offer));
        }
    }
    let rank = |(index, offer): &(usize, Option<Offer>)| {
        let is_chosen = items[*index].price.id == choice.price_id;
        (is_chosen, offer.as_ref().map(|offer| offer.rank), std::cmp::Reverse(*index))
    };
    Ok(plans.into_iter().max_by_key(rank))
}

/// What an item gives. The interval is Stripe's, else the catalog's.
fn level(offer: &Offer, price: Option<&Price>, quantity: u32) -> Level {
    let recurring = price.and_then(|price| price.recurring.as_ref());
    let interval = recurring.and_then(Recurring::span).unwrap_or(offer.every);
    Level { credits: offer.credits, quantity, interval, drip: offer.drip }
}

/// When a change prorates: when its preview did, if that is recent, else now.
fn proration_date(of_preview: Option<u64>, now: u64, period_start: u64) -> Result<u64, Error> {
    match of_preview {
        None => Ok((now - now % PRORATION_STEP_SECONDS).max(period_start)),
        Some(date) if (period_start.max(now.saturating_sub(MAX_PREVIEW_SECONDS))..=now).contains(&date) => {
            Ok(date)
        }
        Some(_) => Err(Error::PreviewExpired),
    }
}

fn no_period() -> Error {
    Error::BadGateway(StripeError::Malformed("the subscription's item has no period".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_prorated_as_its_preview_was_or_from_the_beginning_of_the_minute() {
        let date = |of_preview, now| proration_date(of_preview, now, 1_000).ok();
        assert_eq!(date(None, 60_030), Some(60_000));
        assert_eq!(date(None, 1_010), Some(1_000), "not before the period");
        assert_eq!(date(Some(60_010), 60_030), Some(60_010));
        assert_eq!(date(Some(60_030 - MAX_PREVIEW_SECONDS), 60_030), Some(60_030 - MAX_PREVIEW_SECONDS));
        for wrong in [60_031, 60_029 - MAX_PREVIEW_SECONDS, 0] {
            assert_eq!(date(Some(wrong), 60_030), None, "{wrong}");
        }
        assert_eq!(date(Some(999), 1_010), None, "the period before");
    }
}

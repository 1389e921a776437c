//! Subscription schedules: they make a change when the period that was paid for ends.

use crate::app::App;
use crate::error::Error;
use crate::routes::subscription::change::Change;
use crate::routes::subscription::current::Current;
use crate::stripe::form::Form;
use crate::stripe::idempotency;
use crate::stripe::objects::{self, Expanded, Phase, PhaseItem, Schedule};

/// Where Stripe has them.
const LIST: &str = "subscription_schedules";

/// Lets the change happen when the period ends: by the schedule that does so already, by one that was left half made, or
/// by a new one. It has two phases: the rest of the current period as it is, then a period of the new price, after which
/// the subscription goes on without the schedule.
pub(crate) async fn make(app: &App, change: &Change) -> Result<(), Error> {
    let half_made = match &change.current.subscription.schedule {
        Some(Expanded::Object(schedule)) if makes(schedule, change) => return Ok(()),
        Some(Expanded::Object(schedule)) if schedule.phases.len() == 1 => Some(schedule),
        _ => None,
    };
    // Another request of the same user may be making it: releasing it would undo that.
    if let Some(schedule) = half_made {
        return set_phases(app, change, schedule).await;
    }
    release(app, &change.current).await?;
    let form = Form::default().with("from_subscription", &change.current.subscription.id);
    let key = idempotency::for_change(&change.current.object, &form);
    let made = app.stripe()?.post(&format!("/v1/{LIST}"), &form, &key).await.map_err(Error::BadGateway)?;
    set_phases(app, change, &made.read().map_err(Error::BadGateway)?).await
}

/// Whether a schedule makes this change when the period ends.
fn makes(schedule: &Schedule, change: &Change) -> bool {
    let Some(next) = schedule.phases.iter().find(|phase| phase.start_date == change.period_end) else {
        return false;
    };
    let chosen = (&change.choice.price_id, Some(change.choice.quantity));
    let is_replaced = chosen.0 == &change.item().price.id
        || next.items.iter().all(|item| item.price != change.item().price.id);
    is_replaced && next.items.iter().any(|item| (&item.price, item.quantity) == chosen)
}

async fn set_phases(app: &App, change: &Change, schedule: &Schedule) -> Result<(), Error> {
    let form = phases(change, schedule);
    let key = idempotency::for_change(&change.current.object, &form);
    let path = objects::path(LIST, &schedule.id);
    app.stripe()?.post(&path, &form, &key).await.map(drop).map_err(Error::BadGateway)
}

/// Takes the subscription from the schedule that manages it, if one does: Stripe refuses other changes until then.
pub(crate) async fn release(app: &App, current: &Current) -> Result<(), Error> {
    let Some(id) = current.subscription.schedule_id() else { return Ok(()) };
    let path = format!("{}/release", objects::path(LIST, id));
    let key = idempotency::for_change(&current.object, &Form::default().with("release", id));
    app.stripe()?.post(&path, &Form::default(), &key).await.map(drop).map_err(Error::BadGateway)
}

/// The form of both phases. Stripe drops from a phase what is not posted again.
fn phases(change: &Change, schedule: &Schedule) -> Form {
    let mut form = Form::default().with("end_behavior", "release");
    let Some(now) = schedule.phases.first() else { return form };
    form = form
        .with("phases[0][start_date]", now.start_date)
        .with("phases[0][end_date]", change.period_end)
        .with("phases[1][iterations]", 1)
        .with("phases[1][billing_cycle_anchor]", "phase_start")
        .with("phases[1][proration_behavior]", "none")
        .with("phases[1][metadata][plan_key]", &change.offer.key);
    let changed = now.items.iter().position(|item| item.price == change.item().price.id);
    for (index, item) in now.items.iter().enumerate() {
        let (price, quantity) = (&item.price, item.quantity);
        form = with_item(form, (0, index), (price, quantity), item);
        let (price, quantity) = if changed == Some(index) {
            (&change.choice.price_id, Some(change.choice.quantity))
        } else {
            (price, quantity)
        };
        form = with_item(form, (1, index), (price, quantity), item);
    }
    with_terms(with_terms(form, 0, now), 1, now)
}

fn with_item(
    form: Form,
    (phase, index): (usize, usize),
    (price, quantity): (&str, Option<u32>),
    now: &PhaseItem,
) -> Form {
    let item = format!("phases[{phase}][items][{index}]");
    let form = form.with(format!("{item}[price]"), price).with_some(&format!("{item}[quantity]"), quantity);
    let rates = now.tax_rates.iter().flatten().enumerate();
    rates.fold(form, |form, (n, rate)| form.with(format!("{item}[tax_rates][{n}]"), &rate.id))
}

/// Discounts and taxes hold in both phases.
fn with_terms(mut form: Form, phase: usize, now: &Phase) -> Form {
    for (n, discount) in now.discounts.iter().flatten().enumerate() {
        let name = |kind: &str| format!("phases[{phase}][discounts][{n}][{kind}]");
        form = match (&discount.discount, &discount.coupon, &discount.promotion_code) {
            (Some(id), ..) => form.with(name("discount"), id),
            (None, Some(id), _) => form.with(name("coupon"), id),
            (None, None, id) => form.with_some(&name("promotion_code"), id.as_ref()),
        };
    }
    let rates = now.default_tax_rates.iter().flatten().enumerate();
    rates
        .fold(form, |form, (n, rate)| form.with(format!("phases[{phase}][default_tax_rates][{n}]"), &rate.id))
}

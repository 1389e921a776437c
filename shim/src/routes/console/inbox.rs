//! What came of Stripe: whose something is, what became of an id, and the events that wait, with the buttons for them.

use maud::{Markup, html};
use stripe_credits_rules::reason::Reason;

use crate::routes::console::books::{ledger, lines, reversals};
use crate::routes::console::frame::{form_fields, link, search_path, table};
use crate::routes::console::known::{Event, Found, KnownId};
use crate::routes::console::visit::Desk;
use crate::routes::console::words::{age, meaning, money, time, words};

/// Whose it is, if that is known.
pub(crate) fn found_table(found: &[Found]) -> Markup {
    html! {
        @if !found.is_empty() {
            (table("Whose it is", &["Found as", "User", "Customer", "Event"], &html! {
                @for row in found {
                    tr {
                        th scope="row" { (row.found_as) }
                        td { @if let Some(user) = row.user_id { (link(&user.to_string())) } @else { "nobody’s yet" } }
                        td { @if let Some(id) = &row.customer_id { (link(id)) } }
                        td { @if let Some(id) = &row.event_id { (link(id)) } }
                    }
                }
            }))
        }
    }
}

/// What is known of an id of Stripe's.
pub(crate) fn object(desk: &Desk, known: &KnownId, now: Option<&str>) -> Markup {
    html! {
        @if known.is_an_object() {
            section class="asked" aria-labelledby="asked" {
                h2 id="asked" { "What became of " span class="id" { (known.id) } }
                @if let Some(now) = now { p { strong { "If it came now: " } (now) } }
                @if let Some(payment) = &known.payment {
                    p {
                        @match &payment.paid_at {
                            Some(at) => {
                                "Paid on " (time(at))
                                @if let Some(money) = money(payment.amount_total, payment.currency.as_deref()) { ": " (money) }
                            },
                            None => "Not paid as far as is known",
                        }
                        @if payment.amount_reversed > 0 {
                            ", of which came back "
                            (money(Some(payment.amount_reversed), payment.currency.as_deref()).unwrap_or_default())
                        }
                        ". It is also called " @for name in &payment.names { (link(name)) " " }
                    }
                    (lines("What it bills", &known.lines))
                }
                (reversals(&known.reversals))
                (events(desk, &known.events))
                @if !known.transactions.is_empty() {
                    (ledger(desk, "What it posted", &known.transactions, &[]))
                }
            }
        }
    }
}

fn events(desk: &Desk, events: &[Event]) -> Markup {
    html! {
        @if !events.is_empty() {
            (table("Its events", &["Came", "Event", "What became of it", "What to do"], &html! {
                @for event in events {
                    tr {
                        td { (time(&event.first_received_at)) }
                        th scope="row" { (event_name(event)) }
                        td { (outcome(event)) }
                        td class="prose" { (what_to_do(desk, event)) }
                    }
                }
            }))
        }
    }
}

/// Events that wait: since when, why, and what to do.
pub(crate) fn waiting_table(desk: &Desk, caption: &str, waiting: &[Event]) -> Markup {
    html! {
        @if waiting.is_empty() { p { "Nothing waits." } }
        @else {
            (table(caption, &["How long", "Event", "Why", "What to do"], &html! {
                @for event in waiting {
                    tr {
                        td class="unbroken" {
                            strong { (age(event.waits_seconds.unwrap_or_default())) }
                            br; "since " (time(&event.first_received_at))
                        }
                        th scope="row" { (event_name(event)) }
                        td { (outcome(event)) }
                        td class="prose" { (what_to_do(desk, event)) }
                    }
                }
            }))
        }
    }
}

fn event_name(event: &Event) -> Markup {
    html! {
        (link(&event.event_id))
        br; (event.event_type.as_deref().unwrap_or("of no type"))
        @if let Some(id) = &event.object_id { br; (link(id)) }
        @if let Some(id) = &event.customer_id { br; (link(id)) }
    }
}

fn outcome(event: &Event) -> Markup {
    html! {
        strong { (words(&event.outcome)) }
        @if let Some(reason) = &event.reason { ": " (words(reason)) }
        @if !event.missing_prices().is_empty() {
            br; @for price in event.missing_prices() { span class="id" { (price) } " " }
        }
    }
}

/// What a reason means, and the buttons for it.
fn what_to_do(desk: &Desk, event: &Event) -> Markup {
    let reason = event.reason.as_deref().and_then(Reason::parse);
    html! {
        @if let Some(meaning) = reason.and_then(meaning) { p { (meaning) } }
        @if event.waits() {
            div class="row" {
                @if let Some(id) = event.attributable() {
                    a class="button" href={ (search_path(desk.query)) "&attribute=" (id) } { "Attribute " (id) "…" }
                }
                form method="post" action="/console/retry" {
                    (form_fields(desk))
                    input type="hidden" name="event_id" value=(event.event_id);
                    button type="submit" { "Try again" span class="hidden" { " " (event.event_id) } }
                }
            }
        }
    }
}

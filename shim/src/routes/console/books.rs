//! What the books hold of a user: balances, payments with their lines, grants and what they were drawn for, the ledger, plans.

use maud::{Markup, html};

use crate::routes::console::frame::{link, search_path, table};
use crate::routes::console::known::{Account, Grant, KnownUser, Line, Payment, Reversal, Transaction};
use crate::routes::console::visit::Desk;
use crate::routes::console::words::{change, credits, money, time, words};

/// The balances and the plan.
pub(crate) fn glance(user: &KnownUser) -> Markup {
    html! {
        @if !user.is_known() { p { "Nothing is known of this user: check the id before you give anything." } }
        @if let Some(at) = &user.forgotten_at { p { "Forgotten on " (time(at)) ": the inbox keeps only what the rules read." } }
        @if let Some(account) = &user.account { (account_list(account)) }
        p class="help" { "All times are in UTC." }
    }
}

fn account_list(account: &Account) -> Markup {
    html! {
        dl class="glance" {
            div class="large" { dt { "Balance" } dd { (credits(account.credits_balance)) } }
            @if account.debt > 0 { div class="large owed" { dt { "Owed" } dd { (credits(account.debt)) } } }
            div { dt { "Subscription" } dd { (credits(account.subscription_credits_balance)) } }
            div { dt { "Purchased" } dd { (credits(account.purchased_credits_balance)) } }
            div { dt { "Promotional" } dd { (credits(account.promotional_credits_balance)) } }
            div { dt { "Plan" } dd { (account.subscription_tier) } }
            div { dt { "Status" } dd { (words(&account.subscription_status)) } }
            @if account.auto_top_up != "off" { div { dt { "Auto top-up" } dd { (account.auto_top_up) } } }
            @if let Some(at) = &account.cycle_end_at { div { dt { "Period ends" } dd { (time(at)) } } }
        }
    }
}

/// Money that came back.
pub(crate) fn reversals(reversals: &[Reversal]) -> Markup {
    html! {
        @if !reversals.is_empty() {
            (table("Money that came back", &["What", "Kind", "Amount", "State"], &html! {
                @for reversal in reversals {
                    tr {
                        th scope="row" { (link(&reversal.reversal_id)) }
                        td { (words(&reversal.kind)) }
                        td class="number" {
                            (money(Some(reversal.amount), reversal.currency.as_deref()).unwrap_or_default())
                        }
                        td { (reversal.state) }
                    }
                }
            }))
        }
    }
}

/// A payment with its lines.
pub(crate) fn payment_article(payment: &Payment) -> Markup {
    let paid = money(payment.amount, payment.currency.as_deref());
    let back = money(Some(payment.refunded), payment.currency.as_deref()).filter(|_| payment.refunded > 0);
    html! {
        article {
            h3 {
                (payment.description.as_deref().unwrap_or("Nothing of the catalog"))
                @if let Some(paid) = paid { ", " (paid) }
            }
            p {
                (link(&payment.source_id)) ", paid on " (time(&payment.paid_at))
                ". Granted " strong { (credits(payment.credits)) } " credits."
                @if let Some(back) = back { " Of the money " strong { (back) } " came back." }
            }
            (lines(&format!("Lines of {}", payment.source_id), &payment.lines))
        }
    }
}

/// What a payment bills, what each line is worth, and why.
pub(crate) fn lines(caption: &str, lines: &[Line]) -> Markup {
    html! {
        @if lines.is_empty() { p { "Its lines grant nothing, or are not known." } }
        @else {
            (table(caption, &["What", "Quantity", "Amount", "Worth", "Why"], &html! {
                @for line in lines {
                    tr {
                        th scope="row" {
                            (line.name.as_deref().or(line.price_id.as_deref()).unwrap_or("no price"))
                            @if let Some(id) = line.price_id.as_ref().filter(|id| line.name.as_ref().is_some_and(|name| name != *id)) {
                                br; span class="id" { (id) }
                            }
                        }
                        td class="number" { @if let Some(quantity) = line.quantity { (quantity) } }
                        td class="number" {
                            @if let Some(amount) = money(line.amount, line.currency.as_deref()) { (amount) }
                            @if let Some(discount) = money(line.discount, line.currency.as_deref()) {
                                br; "less " (discount)
                            }
                        }
                        td class="number" { @if let Some(worth) = line.worth { (credits(worth)) } }
                        td class="prose" { @if let Some(why) = &line.why { (why) } }
                    }
                }
            }))
        }
    }
}

/// The grants, each with what is left of it and what it was drawn for.
pub(crate) fn grants(grants: &[Grant]) -> Markup {
    html! {
        @if grants.is_empty() { p { "Nothing was granted." } }
        @else {
            (table(
                "Those with credits left first",
                &["Grant", "Pool", "Credits", "Left", "Expires", "What it was drawn for"],
                &html! { @for grant in grants { (grant_row(grant)) } },
            ))
        }
    }
}

fn grant_row(grant: &Grant) -> Markup {
    let parts = [
        ("to come", grant.pending),
        ("set aside", grant.set_aside),
        ("expired", grant.expired),
        ("drawn", grant.drawn),
    ];
    html! {
        tr {
            th scope="row" {
                (grant.id) " " span class="id" { (grant.source_id) }
                @match (&grant.period_start, &grant.period_end) {
                    (Some(start), Some(end)) => { br; (time(start)) " to" br; (time(end)) },
                    _ if grant.item != grant.source_id => { br; span class="id" { (grant.item) } },
                    _ => {},
                }
            }
            td { (grant.pool) }
            td class="number" { (credits(grant.amount)) }
            td class="number" {
                strong { (credits(grant.remaining)) }
                @for (name, part) in parts { @if part != 0 { br; (credits(part)) " " (name) } }
            }
            td {
                @match &grant.expires_at { Some(at) => (time(at)), None => "never" }
                @if let Some(at) = grant.available_from.as_ref().filter(|_| grant.pending > 0) {
                    br; "more from " (time(at))
                }
            }
            td class="prose" {
                @if grant.drawn_for.is_empty() { "nothing" }
                @else {
                    details {
                        summary {
                            (grant.drawn_for.len()) @if grant.drawn_for.len() == 1 { " draw" } @else { " draws" }
                            span class="hidden" { " of grant " (grant.id) }
                        }
                        ul {
                            @for draw in &grant.drawn_for {
                                li {
                                    (time(&draw.created_at)) " " (words(&draw.transaction_type)) " "
                                    strong { (change(draw.amount)) } " "
                                    @if let Some(id) = &draw.request_id { span class="id" { (id) } " " }
                                    @if let Some(text) = &draw.description { (text) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Ledger rows; at those with these ids what was spent can be given back.
pub(crate) fn ledger(desk: &Desk, caption: &str, rows: &[Transaction], refundable: &[i64]) -> Markup {
    html! {
        @if rows.is_empty() { p { "Nothing was posted." } }
        @else {
            (table(caption, &["Row", "When", "What", "Credits", "Balance", "For"], &html! {
                @for row in rows {
                    tr {
                        th scope="row" { (row.id) }
                        td { (time(&row.created_at)) }
                        td {
                            (words(&row.transaction_type))
                            @if let Some(grant) = row.grant_id { br; "grant " (grant) }
                        }
                        td class="number" { strong { (change(row.amount)) } }
                        td class="number" { (credits(row.balance_after)) }
                        td class="prose" {
                            @if let Some(text) = &row.description { (text) " " }
                            @if let Some(by) = row.by() { "by " (by) " " }
                            @if let Some(id) = row.payment() { (link(id)) " " }
                            @if let Some(id) = &row.request_id { br; span class="id" { (id) } }
                            @if let Some(id) = row.request_id.as_ref().filter(|_| refundable.contains(&row.id)) {
                                br; (refund_link(desk, id))
                            }
                        }
                    }
                }
            }))
        }
    }
}

fn refund_link(desk: &Desk, request_id: &str) -> Markup {
    let refund = form_urlencoded::Serializer::new(String::new()).append_pair("refund", request_id).finish();
    html! {
        a class="button" href={ (search_path(desk.query)) "&" (refund) } {
            "Give back…" span class="hidden" { " " (request_id) }
        }
    }
}

/// Subscriptions, customers at Stripe, auto top-ups, and reservations that are held.
pub(crate) fn plans(user: &KnownUser) -> Markup {
    html! {
        @if user.subscriptions.is_empty() { p { "No subscription." } }
        @else {
            (table("Subscriptions", &["Subscription", "Plan", "Status", "Price", "Period ends", "As of"], &html! {
                @for subscription in &user.subscriptions {
                    tr {
                        th scope="row" { (link(&subscription.subscription_id)) }
                        td { (subscription.tier) @if subscription.quantity > 1 { " × " (subscription.quantity) } }
                        td { (words(&subscription.status)) @if subscription.cancel_at_period_end { ", ends with its period" } }
                        td { @if let Some(id) = &subscription.price_id { span class="id" { (id) } } }
                        td { (time(&subscription.current_period_end)) }
                        td { (time(&subscription.as_of)) }
                    }
                }
            }))
        }
        @if user.customers.is_empty() { p { "No customer at Stripe." } }
        @else {
            (table("Customers at Stripe", &["Customer", "Linked by", "As of"], &html! {
                @for customer in &user.customers {
                    tr {
                        th scope="row" { (link(&customer.customer_id)) }
                        td { (words(&customer.source)) }
                        td { (time(&customer.as_of)) }
                    }
                }
            }))
        }
        @if !user.top_ups.is_empty() {
            (table("Auto top-ups", &["Requested", "Pack", "Credits", "State", "Payment"], &html! {
                @for top_up in &user.top_ups {
                    tr {
                        th scope="row" { (time(&top_up.requested_at)) }
                        td { (top_up.pack) }
                        td class="number" { (credits(top_up.credits)) }
                        td {
                            (words(&top_up.state))
                            @if let Some(reason) = &top_up.reason { ": " (words(reason)) }
                        }
                        td { @if let Some(id) = &top_up.payment_intent_id { (link(id)) } }
                    }
                }
            }))
        }
        @if !user.reservations.is_empty() {
            (table("Reservations that are held", &["Request", "Credits", "Until", "For"], &html! {
                @for reservation in &user.reservations {
                    tr {
                        th scope="row" { span class="id" { (reservation.request_id) } }
                        td class="number" { (credits(reservation.amount)) }
                        td { (time(&reservation.expires_at)) }
                        td { @if let Some(text) = &reservation.description { (text) } }
                    }
                }
            }))
        }
    }
}

//! The pages: sign-in, what waits, what an id is, and everything of a user.

use hyper::StatusCode;
use maud::{Markup, html};

use crate::routes::console::books::{glance, grants, ledger, payment_article, plans};
use crate::routes::console::forms::{self, Wanted};
use crate::routes::console::frame::{page, page_outside};
use crate::routes::console::inbox::{found_table, object, waiting_table};
use crate::routes::console::known::{Event, KnownId, KnownUser};
use crate::routes::console::picture;
use crate::routes::console::visit::{Desk, Notice};

/// The page that asks for the token and for a name.
pub(crate) fn sign_in(query: &str, name: &str, notice: Option<&Notice>) -> Markup {
    page_outside(
        "Sign in",
        notice,
        &html! {
            h1 { "Sign in" }
            p { "This console shows what was paid for which credits, and changes balances. What you do is kept with your name." }
            form class="stack" method="post" action="/console/sign-in" {
                input type="hidden" name="q" value=(query);
                label for="name" { "Your name" }
                input id="name" name="name" value=(name) required maxlength="60" autocomplete="name" autofocus
                    aria-describedby="name-help";
                p id="name-help" class="help" { "As colleagues know you: the ledger and the log keep it." }
                label for="token" { "Service token" }
                input id="token" name="token" type="password" required maxlength="4096" autocomplete="current-password"
                    aria-describedby="token-help";
                p id="token-help" class="help" { "One of SERVICE_TOKEN. It is checked, and not kept." }
                button type="submit" { "Sign in" }
            }
        },
    )
}

/// The page of a request that failed.
pub(crate) fn failed(status: StatusCode, text: &str) -> Markup {
    let title = status.canonical_reason().unwrap_or("Failed");
    page_outside(
        title,
        None,
        &html! {
            h1 { (title) }
            p { (text) }
            p { a href="/console" { "Go to the start of the console" } }
        },
    )
}

/// The first page: what can be looked for, and what waits, whoever it is of.
pub(crate) fn start(desk: &Desk, waiting: &[Event]) -> Markup {
    page(
        desk,
        "What waits",
        &html! {
            h1 { "What waits" }
            p {
                "To answer somebody, find them above: by the user’s id, an e-mail address, or what they can quote of a receipt (cs_…, \
                 in_…, pi_…, ch_…, re_…, sub_…, cus_…)."
            }
            (waiting_table(desk, "Events that are not applied yet, those that came first", waiting))
        },
    )
}

/// Nothing is known of what was looked for.
pub(crate) fn nothing(desk: &Desk) -> Markup {
    page(
        desk,
        "Nothing found",
        &html! {
            h1 { "Nothing is known of " span class="id" { (desk.query) } }
            ul {
                li { "An id has to be whole, with its beginning, such as cs_… or in_…." }
                li {
                    "An e-mail address is looked for in the latest events only, and not of users who were forgotten. Look the \
                     customer up at Stripe, and search for cus_…."
                }
                li {
                    "If Stripe has it, its event did not come: " code { "stripe-credits doctor" } ", then " code { "stripe-credits sweep" }
                    "."
                }
            }
        },
    )
}

/// Several users, or nobody yet.
pub(crate) fn found(desk: &Desk, known: &KnownId, now: Option<&str>, wanted: &Wanted) -> Markup {
    page(
        desk,
        &known.id,
        &html! {
            h1 { span class="id" { (known.id) } }
            (forms::wanted(desk, wanted, None))
            (found_table(&known.found))
            (object(desk, known, now))
        },
    )
}

/// Everything of a user, and before it what was looked for, if that is something of Stripe's.
pub(crate) fn user(
    desk: &Desk,
    user: &KnownUser,
    known: Option<(&KnownId, Option<&str>)>,
    wanted: &Wanted,
) -> Markup {
    let id = user.user_id.to_string();
    page(
        desk,
        &format!("User {id}"),
        &html! {
            h1 { "User " span class="id" { (id) } }
            (glance(user))
            (forms::wanted(desk, wanted, Some(user.user_id)))
            @if let Some((known, now)) = known { (object(desk, known, now)) }
            nav aria-label="On this page" {
                ul {
                    li { a href="#waits" { "What waits" } }
                    li { a href="#balance" { "Balance" } }
                    li { a href="#payments" { "Payments" } }
                    li { a href="#grants" { "Grants" } }
                    li { a href="#ledger" { "Ledger" } }
                    li { a href="#correct" { "Correct" } }
                    li { a href="#plans" { "Plans and customers" } }
                }
            }
            section aria-labelledby="waits" {
                h2 id="waits" { "What waits" }
                (waiting_table(desk, "Events of this user that are not applied yet", &user.waiting))
            }
            section aria-labelledby="balance" {
                h2 id="balance" { "Balance over time" }
                (picture::balance(&user.balances))
            }
            section aria-labelledby="payments" {
                h2 id="payments" { "Payments" }
                @if user.payments.is_empty() { p { "Nothing was paid." } }
                @for payment in &user.payments { (payment_article(payment)) }
            }
            section aria-labelledby="grants" {
                h2 id="grants" { "Grants" }
                (grants(&user.grants))
            }
            section aria-labelledby="ledger" {
                h2 id="ledger" { "Ledger" }
                (ledger(desk, "The last rows, the newest first", &user.transactions, &user.refundable()))
            }
            section aria-labelledby="correct" {
                h2 id="correct" { "Correct" }
                (forms::correct(desk, user.user_id))
            }
            section aria-labelledby="plans" {
                h2 id="plans" { "Plans and customers" }
                (plans(user))
            }
        },
    )
}

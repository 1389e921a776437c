//! What every page of the console has: the document, the way past its head, the search, who is signed in, and what came of the
//! last form; and the fields that several forms have.

use maud::{DOCTYPE, Markup, html};
use uuid::Uuid;

use crate::routes::console::actions::REQUEST_ID_PREFIX;
use crate::routes::console::visit::{Desk, Notice};

/// A page for somebody who is signed in.
pub(crate) fn page(desk: &Desk, title: &str, content: &Markup) -> Markup {
    document(
        title,
        desk.notice,
        &html! {
            header {
                p class="name" { a href="/console" { "stripe-credits console" } }
                form class="search" role="search" method="get" action="/console" {
                    label for="q" { "User, e-mail address, or an id of Stripe’s" }
                    div class="row" {
                        input id="q" name="q" type="search" value=(desk.query) maxlength="255" autocomplete="off"
                            autocapitalize="none" spellcheck="false";
                        button type="submit" { "Find" }
                    }
                }
                form class="who" method="post" action="/console/sign-out" {
                    (form_token(desk))
                    p { "Signed in as " strong { (desk.session.name) } }
                    button type="submit" class="quiet" { "Sign out" }
                }
            }
            main id="main" tabindex="-1" {
                (said(desk.notice))
                (content)
            }
        },
    )
}

/// A page for somebody who is not.
pub(crate) fn page_outside(title: &str, notice: Option<&Notice>, content: &Markup) -> Markup {
    document(
        title,
        notice,
        &html! {
            header { p class="name" { "stripe-credits console" } }
            main id="main" tabindex="-1" {
                (said(notice))
                (content)
            }
        },
    )
}

fn document(title: &str, notice: Option<&Notice>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // A screen reader says the title first: it begins with what came of a form.
                title {
                    @if let Some(notice) = notice { (if notice.is_done { "Done: " } else { "Not done: " }) }
                    (title) " – stripe-credits console"
                }
                link rel="stylesheet" href="/console/style.css";
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

/// What came of the last form. The address leads here, so that reading goes on with it.
fn said(notice: Option<&Notice>) -> Markup {
    let class = notice.map(|notice| if notice.is_done { "notice done" } else { "notice refused" });
    html! {
        div id="notice" role="status" tabindex="-1" class=[class] {
            @if let Some(notice) = notice { p { (notice.text) } }
        }
    }
}

/// What proves that a form is of this session.
pub(crate) fn form_token(desk: &Desk) -> Markup {
    html! { input type="hidden" name="form_token" value=(desk.session.form_token()); }
}

/// The fields of a form that leads back to this page.
pub(crate) fn form_fields(desk: &Desk) -> Markup {
    html! {
        (form_token(desk))
        input type="hidden" name="q" value=(desk.query);
    }
}

/// The field that lets a form count once.
pub(crate) fn request_id() -> Markup {
    html! { input type="hidden" name="request_id" value={ (REQUEST_ID_PREFIX) (Uuid::new_v4().simple()) }; }
}

/// The columns of numbers: their heads stand above the last digits.
const NUMBERS: [&str; 6] = ["Quantity", "Amount", "Worth", "Credits", "Left", "Balance"];

/// A table that scrolls by itself where it is too wide, by keyboard too.
pub(crate) fn table(caption: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        div class="scroll" role="group" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr {
                    @for column in columns {
                        th scope="col" class=[NUMBERS.contains(column).then_some("number")] { (column) }
                    }
                 } }
                tbody { (rows) }
            }
        }
    }
}

/// The address of what an id or a user leads to.
pub(crate) fn search_path(searched: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("q", searched).finish();
    format!("/console?{query}")
}

/// A link to what is known of an id.
pub(crate) fn link(id: &str) -> Markup {
    html! { a class="id" href=(search_path(id)) { (id) } }
}

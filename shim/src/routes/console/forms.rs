//! The forms by which a support person changes something. Each says what it will do, asks for a reason that the ledger keeps,
//! and counts once.

use maud::{Markup, html};
use uuid::Uuid;

use crate::routes::console::frame::{form_fields, request_id, search_path};
use crate::routes::console::visit::Desk;

/// The form that a link on the page asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// None.
    Nothing,
    /// To say whose this is.
    Attribute(String),
    /// To give back this spend.
    Refund(String),
}

/// The form that was asked for, ready to be filled in.
pub(crate) fn wanted(desk: &Desk, wanted: &Wanted, user: Option<Uuid>) -> Markup {
    let form = match (wanted, user) {
        (Wanted::Attribute(id), _) => html! {
            h2 id="act" { "Whose is " span class="id" { (id) } "?" }
            (attribute(desk, id, None, true))
        },
        (Wanted::Refund(spend), Some(user)) => html! {
            h2 id="act" { "Give back " span class="id" { (spend) } }
            (refund(desk, user, spend))
        },
        (Wanted::Refund(_), None) | (Wanted::Nothing, _) => return html! {},
    };
    html! {
        section class="act" aria-labelledby="act" {
            (form)
            p { a href=(search_path(desk.query)) { "Do nothing, and go back" } }
        }
    }
}

/// The corrections that a user's page offers.
pub(crate) fn correct(desk: &Desk, user: Uuid) -> Markup {
    html! {
        h3 { "Give or take credits" }
        form class="stack" method="post" action="/console/adjust" {
            (form_fields(desk))
            (request_id())
            input type="hidden" name="user" value=(user);
            fieldset {
                legend { "What to do" }
                label { input type="radio" name="direction" value="give" required; " Give credits" }
                label { input type="radio" name="direction" value="take" required; " Take credits" }
            }
            label for="amount" { "How many" }
            input id="amount" name="amount" type="number" inputmode="numeric" min="1" step="1" required;
            label for="reason" { "Reason, for the ledger" }
            input id="reason" name="reason" required maxlength="500" autocomplete="off";
            button type="submit" { "Correct the balance" }
        }
        h3 { "Say that something is this user’s" }
        (attribute(desk, "", Some(user), false))
        p class="help" { "To give back what a spend took, press “Give back…” at its row of the ledger." }
    }
}

/// Says whose something is; one of the two is known.
fn attribute(desk: &Desk, id: &str, user: Option<Uuid>, is_asked_for: bool) -> Markup {
    html! {
        form class="stack" method="post" action="/console/attribute" {
            (form_fields(desk))
            @match user {
                Some(user) => {
                    input type="hidden" name="user" value=(user);
                    label for="stripe-id" { "Checkout session, customer or subscription" }
                    input id="stripe-id" name="stripe_id" required maxlength="255" autocomplete="off"
                        autocapitalize="none" spellcheck="false" aria-describedby="stripe-id-help";
                    p id="stripe-id-help" class="help" {
                        "cs_…, cus_… or sub_…. What waits for it is applied at once; a subscription moves with what is left of it."
                    }
                },
                None => {
                    input type="hidden" name="stripe_id" value=(id);
                    label for="user" { "The user’s id" }
                    input id="user" name="user" required maxlength="255" autocomplete="off" autocapitalize="none"
                        spellcheck="false" autofocus[is_asked_for] aria-describedby="user-help";
                    p id="user-help" class="help" {
                        "Ask the user, or look into the app’s own table. All that waits for it is applied at once."
                    }
                },
            }
            button type="submit" { "Attribute" }
        }
    }
}

fn refund(desk: &Desk, user: Uuid, spend: &str) -> Markup {
    html! {
        form class="stack" method="post" action="/console/refund" {
            (form_fields(desk))
            (request_id())
            input type="hidden" name="user" value=(user);
            input type="hidden" name="spend_request_id" value=(spend);
            label for="back" { "How many credits" }
            input id="back" name="amount" type="number" inputmode="numeric" min="1" step="1" autofocus
                aria-describedby="back-help";
            p id="back-help" class="help" { "Empty: all that was not given back yet." }
            label for="back-reason" { "Reason for giving back, for the ledger" }
            input id="back-reason" name="reason" required maxlength="500" autocomplete="off";
            button type="submit" { "Give back" }
        }
    }
}

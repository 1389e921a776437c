//! The way of one event through the database: read, lock, judge, post, let what waited for it follow, write down.

use serde_json::{Value, json};
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{Item, Settings};
use stripe_credits_rules::event::{self, Event, Keys, Malformed, Subject};
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::identity::{self, Claims, Identity};
use stripe_credits_rules::invoice::Invoice;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::{Mode, PaymentStatus, Session};
use stripe_credits_rules::subscription::Subscription;
use stripe_credits_rules::worth::Refusal;
use uuid::Uuid;

use crate::ledger;
use crate::outcome::{Outcome, Verdict};
use crate::pg::json::JsonText;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::subscription::Word;
use crate::posting::{invoice, pack as purchase, subscription as state};
use crate::tables::inbox::{self, Waiting};
use crate::tables::{catalog, customers, payments, reversals, subscriptions};

/// Through which door an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Stripe's word, or what waited for it: whose it is, is for the rules to say.
    Event,
    /// A user's browser came back: it must be that user's, and a refusal leaves no trace.
    Reconcile(Uuid),
}

/// Applies one delivery: the event's text, and what Stripe answered about it, where it was asked.
pub(crate) fn delivery(sql: &mut Sql, payload: &JsonText, fetched: Option<&JsonText>, door: Door) -> Outcome {
    let event = match event::read(payload.text()) {
        Ok(event) => event,
        Err(malformed) => return refuse(sql, &malformed, payload),
    };
    locks::catalog_shared();
    let answer = fetched.map(|fetched| Fetched::read(fetched.text())).transpose();
    let waiting = lock_event(sql, &event, answer.as_ref().ok().and_then(Option::as_ref));
    let settings = catalog::settings(sql);
    let mut judged = match answer {
        Ok(answer) => judge(sql, settings.as_ref(), &event, answer.as_ref(), door),
        Err(malformed) => unreadable(&malformed),
    };
    if judged.outcome.verdict == Verdict::NeedsFetch && door == Door::Event {
        // Stripe may have answered an earlier delivery of this event already, which then waited for something else.
        if let Some(Ok(answer)) = inbox::fetched(sql, &event.id).map(|kept| Fetched::read(&kept)) {
            let again = judge(sql, settings.as_ref(), &event, Some(&answer), door);
            if again.outcome.verdict != Verdict::Parked(Reason::Shape) {
                judged = Judged { tied: judged.tied.or(again.tied), ..again };
            }
        }
    }
    let Judged { mut outcome, tied } = judged;
    if door != Door::Event && matches!(outcome.verdict, Verdict::Rejected(_)) {
        return outcome;
    }
    if tied.is_some() {
        outcome = follow_into(sql, settings.as_ref(), &waiting, outcome);
    }
    let came_to_nothing = matches!(outcome.verdict, Verdict::AlreadyApplied | Verdict::Ignored(_));
    if event.is_backfill() && came_to_nothing && !inbox::holds(sql, &event.id) {
        // Else each run through Stripe's lists would leave a copy of all that Stripe has.
        return outcome;
    }
    inbox::record(sql, &event, payload, fetched, &outcome);
    outcome
}

/// An answer of Stripe's that cannot be read is no answer, but the event is paid all the same: it waits.
fn unreadable(answer: &Malformed) -> Judged {
    let outcome = Outcome::of(Verdict::Parked(Reason::Shape)).with("fault", answer.fault.as_str());
    Judged::untied(outcome)
}

/// Keeps the refusal where the text carries an id to keep it under.
fn refuse(sql: &mut Sql, malformed: &Malformed, payload: &JsonText) -> Outcome {
    let outcome = refused(malformed);
    inbox::record_malformed(sql, malformed, payload, &outcome);
    outcome
}

pub(crate) fn refused(malformed: &Malformed) -> Outcome {
    Outcome::of(Verdict::Rejected(Reason::Malformed)).with("fault", malformed.fault.as_str())
}

/// Takes the locks of an event and of everything that would follow it. Answers what waits for the event's customer.
fn lock_event(sql: &mut Sql, event: &Event, fetched: Option<&Fetched>) -> Vec<Waiting> {
    let customer_id = match &event.subject {
        Subject::CheckoutSession(_) | Subject::Subscription(_) | Subject::Invoice(_) => {
            event.customer_id.as_deref()
        }
        Subject::InvoicePayment(_) | Subject::Reversals(_) | Subject::Other => None,
    };
    let mut keys = event.subject.keys();
    // What an answer ties to a payment intent is locked as if the payment's own event had told it.
    let paid = fetched.map_or(&[][..], Fetched::invoice_payments);
    keys.sources.extend(paid.iter().map(|payment| payment.invoice_id.as_str()));
    lock_payment(sql, customer_id, &keys)
}

/// Takes the locks of a payment, in rule 15's order, and of everything that waits for its customer.
pub(crate) fn lock_payment(sql: &mut Sql, customer_id: Option<&str>, keys: &Keys) -> Vec<Waiting> {
    let waiting = match customer_id {
        Some(customer_id) => {
            locks::customer(customer_id);
            inbox::waiting_for_customer(sql, customer_id)
        }
        None => Vec::new(),
    };
    lock_waiting(sql, &waiting, keys);
    waiting
}

/// Takes the locks of what waits, together with more.
pub(crate) fn lock_waiting(sql: &mut Sql, waiting: &[Waiting], more: &Keys) {
    let subjects = subjects(waiting);
    let keys: Vec<Keys> = subjects.iter().map(Subject::keys).collect();
    let all = || keys.iter().chain([more]);
    locks::sources(all().flat_map(|keys| keys.sources.iter().copied()));
    // Told by their own events, under the invoices' locks.
    let mut told = Vec::new();
    for invoice_id in all().flat_map(|keys| keys.invoices.iter()) {
        told.extend(payments::payment_intents(sql, invoice_id));
    }
    let told = told.iter().map(String::as_str);
    locks::payment_intents(all().flat_map(|keys| keys.payment_intents.iter().copied()).chain(told));
}

/// Takes the payment intents' locks of what waits for a session, under the session's lock.
pub(crate) fn lock_payment_intents(waiting: &[Waiting]) {
    let subjects = subjects(waiting);
    locks::payment_intents(subjects.iter().flat_map(|subject| subject.keys().payment_intents));
}

fn subjects(waiting: &[Waiting]) -> Vec<Subject> {
    waiting
        .iter()
        .filter_map(|waiting| event::read(&waiting.payload).ok())
        .map(|event| event.subject)
        .collect()
}

/// Judges what waited for something that is known now. Answers what came of each, for the outcome's details.
pub(crate) fn follow(sql: &mut Sql, settings: Option<&Settings>, waiting: &[Waiting]) -> Vec<Value> {
    let summary = |(waiting, outcome): (&Waiting, Outcome)| {
        json!({
            "event_id": waiting.event_id,
            "outcome": outcome.verdict.as_str(),
            "reason": outcome.verdict.reason().map(Reason::as_str),
            "user_id": outcome.user,
            "credits": outcome.credits.0,
        })
    };
    waiting
        .iter()
        .map(|waiting| (waiting, judge_waiting(sql, settings, waiting).outcome))
        .map(summary)
        .collect()
}

/// Lets what waited follow, and writes what came of it into the outcome of what it waited for.
pub(crate) fn follow_into(
    sql: &mut Sql,
    settings: Option<&Settings>,
    waiting: &[Waiting],
    mut outcome: Outcome,
) -> Outcome {
    let followed = follow(sql, settings, waiting);
    if followed.is_empty() {
        return outcome;
    }
    outcome.balances = outcome.user.and_then(|user| ledger::balances(sql, user));
    outcome.with("followed", followed)
}

/// Judges a parked event by what is known now, and what waited for its customer after it. The caller holds the catalog's
/// lock alone.
pub(crate) fn retry(sql: &mut Sql, settings: Option<&Settings>, waiting: &Waiting) -> Outcome {
    let Judged { outcome, tied } = judge_waiting(sql, settings, waiting);
    let Some(customer_id) = tied else { return outcome };
    let followers = inbox::waiting_for_customer(sql, &customer_id);
    follow_into(sql, settings, &followers, outcome)
}

/// Judges an event that waited, by what is known now, and writes down what came of it.
fn judge_waiting(sql: &mut Sql, settings: Option<&Settings>, waiting: &Waiting) -> Judged {
    let judged =
        match (event::read(&waiting.payload), waiting.fetched.as_deref().map(Fetched::read).transpose()) {
            (Ok(event), Ok(fetched)) => judge(sql, settings, &event, fetched.as_ref(), Door::Event),
            (Err(malformed), _) => Judged::untied(refused(&malformed)),
            (_, Err(malformed)) => unreadable(&malformed),
        };
    inbox::update(sql, &waiting.event_id, &judged.outcome);
    judged
}

/// What an event came to.
struct Judged {
    outcome: Outcome,
    /// Its customer, where that is another user than before, or something is known of a subscription that was not: what
    /// waits for the customer can follow.
    tied: Option<String>,
}

impl Judged {
    fn untied(outcome: Outcome) -> Judged {
        Judged { outcome, tied: None }
    }
}

fn judge(
    sql: &mut Sql,
    settings: Option<&Settings>,
    event: &Event,
    fetched: Option<&Fetched>,
    door: Door,
) -> Judged {
    let Some(settings) = settings else {
        return Judged::untied(Outcome::of(Verdict::Parked(Reason::NoCatalog)));
    };
    if let Some(reason) = settings.wall.refuses(event.livemode, event.account.as_deref()) {
        return Judged::untied(Outcome::of(Verdict::Ignored(reason)));
    }
    match &event.subject {
        Subject::CheckoutSession(session) if session.mode == Mode::Subscription => {
            judge_subscribing(sql, settings, event, session, fetched, door)
        }
        Subject::CheckoutSession(session) => judge_session(sql, settings, event, session, fetched, door),
        Subject::Subscription(said) => judge_subscription(sql, event, said, Word::Event, fetched, None),
        Subject::Invoice(invoice) => judge_invoice(sql, settings, event, invoice, fetched, None),
        Subject::InvoicePayment(payment) => Judged::untied(reversals::paid_by(sql, event, payment)),
        Subject::Reversals(reversals) => Judged::untied(reversals::apply(sql, event, reversals, fetched)),
        Subject::Other => Judged::untied(Outcome::of(Verdict::Ignored(Reason::EventType))),
    }
}

/// Whose something is, and what that made of its customer's tie.
struct Whose {
    identity: Result<Identity, Reason>,
    tied: Option<String>,
}

/// Decides whose something is, and ties its customer by what it says; `claims` come without the tie.
///
/// # Errors
/// Why a reconcile is refused: before anything is written, so that nobody learns or moves anything by naming somebody
/// else's session.
fn whose(
    sql: &mut Sql,
    customer_id: Option<&str>,
    claims: Claims,
    as_of: Time,
    door: Door,
) -> Result<Whose, Reason> {
    let tie = customer_id.and_then(|customer_id| customers::tie(sql, customer_id));
    let identity = identity::identify(Claims { tie: tie.map(|tie| tie.user), ..claims });
    if let Door::Reconcile(expected) = door {
        match identity {
            Ok(identity) if identity.user == expected => {}
            Err(Reason::UnknownUser) => return Err(Reason::NoOwner),
            _ => return Err(Reason::NotOwner),
        }
    }
    let said = identity::tie_said(claims.metadata, claims.client_reference, as_of);
    let tied = match (customer_id, said, identity) {
        (Some(customer_id), Some(said), Ok(_)) => {
            customers::say(sql, customer_id, tie, said).then(|| customer_id.to_owned())
        }
        _ => None,
    };
    Ok(Whose { identity, tied })
}

/// Writes whose it is into what came of it.
fn owned(sql: &mut Sql, mut outcome: Outcome, identity: Result<Identity, Reason>) -> Outcome {
    let Ok(Identity { user, mismatch }) = identity else { return outcome };
    outcome.user = Some(user);
    if outcome.balances.is_none() {
        outcome.balances = ledger::balances(sql, user);
    }
    match mismatch {
        Some(other) => outcome.with("identity_mismatch", json!({ "customer_tied_to": other })),
        None => outcome,
    }
}

/// Whose a pack's session is, and what it is worth to them.
fn judge_session(
    sql: &mut Sql,
    settings: &Settings,
    event: &Event,
    session: &Session,
    fetched: Option<&Fetched>,
    door: Door,
) -> Judged {
    let known = payments::of_source(sql, &session.id, session.payment_intent_id.as_deref());
    let owner = |paid| known.as_ref().filter(|payment| payment.paid == paid).map(|payment| payment.user);
    let claims = Claims {
        paid_for: owner(true),
        metadata: session.metadata_user,
        attributed: owner(false),
        tie: None,
        client_reference: session.client_reference,
    };
    let Whose { identity, tied } =
        match whose(sql, session.customer_id.as_deref(), claims, session.created, door) {
            Ok(whose) => whose,
            Err(reason) => return Judged::untied(Outcome::of(Verdict::Rejected(reason))),
        };
    let outcome = match (purchase::worth(sql, settings, session, fetched), identity) {
        (Ok(lots), Ok(identity)) => purchase::session(sql, event, session, known.as_ref(), identity, &lots),
        (Ok(_), Err(reason)) => nobodys(reason),
        // It names no lines, but the payment is in the books: there is nothing to ask Stripe for.
        (Err(Refusal::NeedsFetch(_)), Ok(_)) if owner(true).is_some() => Outcome::of(Verdict::AlreadyApplied),
        (Err(refused), _) => refusal(refused),
    };
    Judged { outcome: owned(sql, outcome, identity), tied }
}

/// Whose a subscription's session is: that is all it says by itself. What it began and what was paid count where the
/// object carries them.
fn judge_subscribing(
    sql: &mut Sql,
    settings: &Settings,
    event: &Event,
    session: &Session,
    fetched: Option<&Fetched>,
    door: Door,
) -> Judged {
    let attributed = payments::of_source(sql, &session.id, None).map(|payment| payment.user);
    let claims = Claims {
        // Said by hand of this session, it holds for all that the session began.
        metadata: session.metadata_user.or(attributed),
        client_reference: session.client_reference,
        ..Claims::default()
    };
    let Whose { identity, tied } =
        match whose(sql, session.customer_id.as_deref(), claims, session.created, door) {
            Ok(whose) => whose,
            Err(reason) => return Judged::untied(Outcome::of(Verdict::Rejected(reason))),
        };
    let user = identity.ok().map(|identity| identity.user);
    let began = session.subscription.as_ref();
    let began = began.map(|said| judge_subscription(sql, event, said, Word::Current, fetched, user));
    let paid =
        session.invoice.as_ref().map(|paid| judge_invoice(sql, settings, event, paid, fetched, user).outcome);
    let tied = tied.or_else(|| began.as_ref()?.tied.clone());
    let outcome = match (began.map(|began| began.outcome), paid) {
        (Some(began), Some(paid)) => began.and_then(paid),
        (Some(outcome), None) | (None, Some(outcome)) => outcome,
        (None, None) if session.payment == Some(PaymentStatus::Unpaid) => {
            Outcome::of(Verdict::Ignored(Reason::Unpaid))
        }
        (None, None) => Outcome::of(Verdict::Ignored(Reason::Mode)),
    };
    Judged { outcome: owned(sql, outcome, identity), tied }
}

/// Whose a subscription is, and what its state is now. `attributed` is whose its session is.
fn judge_subscription(
    sql: &mut Sql,
    event: &Event,
    said: &Subscription,
    word: Word,
    fetched: Option<&Fetched>,
    attributed: Option<Uuid>,
) -> Judged {
    let known = subscriptions::find(sql, &said.id);
    let owner = known.as_ref().and_then(|known| known.user);
    let claims =
        Claims { metadata: said.metadata_user, attributed: owner.or(attributed), ..Claims::default() };
    let Ok(Whose { identity, tied }) =
        whose(sql, said.customer_id.as_deref(), claims, said.as_of, Door::Event)
    else {
        unreachable!("only a reconcile is refused");
    };
    let user = identity.map(|identity| identity.user);
    let outcome =
        state::apply(sql, &event.id, said, word, fetched, known.as_ref(), user).unwrap_or_else(refusal);
    // An invoice may have waited for what is known of its subscription now.
    let first_known = said.customer_id.clone().filter(|_| known.is_none());
    Judged { outcome: owned(sql, outcome, identity), tied: tied.or(first_known) }
}

/// Whose a subscription's invoice is, and what it is worth to them. `attributed` is whose its session is.
fn judge_invoice(
    sql: &mut Sql,
    settings: &Settings,
    event: &Event,
    invoice: &Invoice,
    fetched: Option<&Fetched>,
    attributed: Option<Uuid>,
) -> Judged {
    let Some(subscription_id) = invoice.subscription_id.as_deref() else {
        return Judged::untied(Outcome::of(Verdict::Ignored(Reason::NoSubscription)));
    };
    let known = subscriptions::find(sql, subscription_id);
    let payment = payments::of_source(sql, &invoice.id, None).filter(|payment| payment.paid);
    let claims = Claims {
        paid_for: payment.map(|payment| payment.user),
        metadata: invoice.metadata_user,
        attributed: known.as_ref().and_then(|known| known.user).or(attributed),
        ..Claims::default()
    };
    let Ok(Whose { identity, tied }) =
        whose(sql, invoice.customer_id.as_deref(), claims, invoice.paid_at, Door::Event)
    else {
        unreachable!("only a reconcile is refused");
    };
    let outcome = match (invoice::worth(sql, settings, invoice, known.as_ref(), fetched), identity) {
        (Ok(worth), Ok(identity)) => invoice::post(sql, &event.id, invoice, identity.user, worth),
        (Ok(_), Err(reason)) => nobodys(reason),
        (Err(refused), _) => refusal(refused),
    };
    Judged { outcome: owned(sql, outcome, identity), tied }
}

/// What something comes to that is worth something, to nobody.
fn nobodys(reason: Reason) -> Outcome {
    Outcome::of(if reason == Reason::Conflict { Verdict::Rejected(reason) } else { Verdict::Parked(reason) })
}

pub(crate) fn refusal(refused: Refusal) -> Outcome {
    match refused {
        Refusal::Ignored(reason) => Outcome::of(Verdict::Ignored(reason)),
        Refusal::NeedsFetch(paths) => Outcome { to_fetch: paths, ..Outcome::of(Verdict::NeedsFetch) },
        Refusal::Parked(reason, unknown) if unknown.is_empty() => Outcome::of(Verdict::Parked(reason)),
        Refusal::Parked(reason, unknown) => {
            let missing: Vec<Value> = unknown.iter().map(|item| name(item).into()).collect();
            Outcome::of(Verdict::Parked(reason)).with("missing_prices", missing)
        }
        Refusal::Rejected(reason) => Outcome::of(Verdict::Rejected(reason)),
    }
}

fn name(item: &Item) -> &str {
    match item {
        Item::Price(name) | Item::Pack(name) => name,
        Item::Unpriced => "(none)",
    }
}

//! Judges an event: who owns its object, what that is worth, and the posting of it.
//!
//! One function per kind of object. The caller holds every lock of the event.

use std::cell::Cell;

use serde_json::json;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::event::{self, Event, Subject};
use stripe_credits_rules::fetched::{self, Fetched};
use stripe_credits_rules::identity::{self, Claims, CustomerLink, Identity, LinkSource};
use stripe_credits_rules::invoice::{self as invoice_rules, Invoice};
use stripe_credits_rules::name::Name;
use stripe_credits_rules::payment_intent::PaymentIntent;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::{self, Mode, PaymentStatus, Session};
use stripe_credits_rules::subscription::{self as subscription_rules, Subscription};
use stripe_credits_rules::user::UserNames;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::{NoGrant, invoice as rules};
use uuid::Uuid;

use crate::ledger::{self, Account};
use crate::outcome::Outcome;
use crate::payment;
use crate::pg::sql::Sql;
use crate::posting::subscription::{Incoming, Source};
use crate::posting::{invoice, pack, reversal, subscription, top_up};
use crate::tables::payments::{self, Joined, Known};
use crate::tables::{customers, inbox, ownership, subscriptions, test_clocks};

/// Who asks for an event to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Stripe's webhook, or an event that was parked.
    Stripe,
    /// A user's browser that came back from checkout: the session must be this user's, and a rejection writes nothing.
    Browser { expected: Uuid },
}

impl Caller {
    /// Checks that a browser names a session of its own user. This comes before anything is written: otherwise a user could
    /// read or claim another user's session by its id.
    fn check_owner(self, owner: Result<Identity, Reason>) -> Result<(), Reason> {
        match (self, owner) {
            (Caller::Stripe, _) => Ok(()),
            (Caller::Browser { expected }, Ok(identity)) if identity.user == expected => Ok(()),
            (Caller::Browser { .. }, Err(Reason::UnknownUser)) => Err(Reason::NoOwner),
            (Caller::Browser { .. }, _) => Err(Reason::NotOwner),
        }
    }
}

/// The result of judging an event.
pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    /// The event's customer, if events that are parked for it may be applied now: because it was linked to a user, or because
    /// one of its subscriptions became known.
    pub(crate) unblocked: Option<String>,
}

impl From<Outcome> for Judged {
    fn from(outcome: Outcome) -> Judged {
        Judged { outcome, unblocked: None }
    }
}

/// What an event is judged by, in addition to the tables.
struct Context<'a> {
    settings: &'a Settings,
    event: &'a Event,
    fetched: Option<&'a Fetched>,
    caller: Caller,
    /// What was read under the locks, as long as nothing is written that makes it old: to join the names does.
    known: Cell<Option<Known>>,
}

impl Context<'_> {
    /// What is known under the names of a payment.
    fn known(&self, sql: &mut Sql, names: &[Name]) -> Known {
        let read_before = self.known.take().filter(|known| known.covers(names));
        read_before.unwrap_or_else(|| payments::known(sql, payments::ids(names)))
    }

    /// The user whom a text of Stripe's object names.
    fn user(&self, names: &UserNames) -> Option<Uuid> {
        names.user(self.settings.user_namespace)
    }

    /// The outcome of a payment that was made before the books began (rule 12), by whichever door it comes.
    fn before_books(&self, made_at: Time) -> Option<Outcome> {
        self.settings.scope.excludes_payment(made_at).map(Outcome::ignored)
    }
}

/// Judges an event by what is known now, and posts the difference to what is posted. `known` was read under the locks, if
/// nothing was written since.
pub(crate) fn judge(
    sql: &mut Sql,
    settings: Option<&Settings>,
    event: &Event,
    fetched: Option<&Fetched>,
    caller: Caller,
    known: Option<Known>,
) -> Judged {
    let Some(settings) = settings else {
        return Outcome::parked(Reason::NoCatalog).into();
    };
    if let Some(reason) = settings.scope.excludes(event.livemode, event.account.as_deref()) {
        return Outcome::ignored(reason).into();
    }
    let context = Context { settings, event, fetched, caller, known: Cell::new(known) };
    link_accounts(sql, &context);
    record_account(sql, event);
    let linked = link_both_names(sql, event);
    let mut judged = judge_subject(sql, &context);
    if judged.outcome.verdict == Verdict::Parked(Reason::UnknownUser) && link_by_other_name(sql, event) {
        judged = judge_subject(sql, &context);
    }
    // The subject links only the name that it is found by.
    let relinked = link_both_names(sql, event);
    judged.unblocked = judged.unblocked.or(linked).or(relinked);
    if judged.outcome.verdict != Verdict::Parked(Reason::UnknownUser) || fetched.is_some() {
        return judged;
    }
    // Stripe sends no event that says whom the server names as the user of a customer that is an account.
    let mut names = [&event.account_of_customer, &event.customer_id].into_iter().flatten();
    match names.find_map(|name| fetched::customer_path(name)) {
        Some(path) => Judged { outcome: NoGrant::NeedsFetch(vec![path]).into(), ..judged },
        None => judged,
    }
}

/// Links the event's customer, if it is an account that was fetched, to the user whom its metadata name.
fn link_accounts(sql: &mut Sql, context: &Context) {
    let Some(fetched) = context.fetched else { return };
    let names = [&context.event.customer_id, &context.event.account_of_customer];
    let is_customer = |id: &String| names.into_iter().flatten().any(|name| name == id);
    for account in fetched.accounts().iter().filter(|account| is_customer(&account.id)) {
        let claims = Claims { metadata: context.user(&account.metadata_user), ..Claims::default() };
        resolve_owner(sql, Some(&account.id), claims, fetched.as_of()).link_customer(sql);
    }
}

/// The customer and the account that it is, of which an object in Accounts v2 may name both.
fn both_names(event: &Event) -> Option<(&str, &str)> {
    let names = event.customer_id.as_deref().zip(event.account_of_customer.as_deref());
    names.filter(|_| event.subject.is_of_customer())
}

/// Keeps that a customer is an account.
fn record_account(sql: &mut Sql, event: &Event) {
    if let Some((customer_id, account_id)) = both_names(event) {
        customers::record_account(sql, customer_id, account_id);
    }
}

/// Links both names of a customer to the user to whom one of them is linked. Returns the customer, if that changed the user of
/// either.
fn link_both_names(sql: &mut Sql, event: &Event) -> Option<String> {
    let (customer_id, account_id) = both_names(event)?;
    let links = [customer_id, account_id].map(|name| (name, customers::find(sql, name)));
    let merged = links.iter().fold(None, |known, (_, link)| match link {
        Some(link) => Some(CustomerLink::merge(known, *link)),
        None => known,
    })?;
    let mut changed = false;
    for (name, known) in links {
        changed |= known != Some(merged) && customers::link(sql, name, known, merged);
    }
    changed.then(|| customer_id.to_owned())
}

/// Links the customer to the user to whom another name of it is linked. Returns whether there is one.
fn link_by_other_name(sql: &mut Sql, event: &Event) -> bool {
    let Some(customer_id) = event.customer_id.as_deref() else { return false };
    let names = customers::other_names(sql, customer_id).into_iter();
    let links: Vec<CustomerLink> = names.filter_map(|name| customers::find(sql, &name)).collect();
    match links.into_iter().reduce(|one, other| CustomerLink::merge(Some(one), other)) {
        Some(link) => customers::link(sql, customer_id, None, link),
        None => false,
    }
}

fn judge_subject(sql: &mut Sql, context: &Context) -> Judged {
    let (event, fetched) = (context.event, context.fetched);
    match &event.subject {
        Subject::CheckoutSession(session) if session.mode == Mode::Subscription => {
            judge_subscription_session(sql, context, session)
        }
        Subject::CheckoutSession(session) => judge_pack_session(sql, context, session),
        Subject::Subscription(facts) => judge_subscription(sql, context, facts, Source::Event, None),
        Subject::Invoice(invoice) => judge_invoice(sql, context, invoice, None),
        Subject::InvoicePayment(payment) => {
            let known = context.known(sql, &payment.names());
            reversal::invoice_paid_by(sql, event, payment, &known).into()
        }
        Subject::PaymentIntent(intent) => judge_payment_intent(sql, context, intent),
        Subject::Reversals(reversals) => {
            let known = |sql: &mut Sql, names: &[Name]| context.known(sql, names);
            reversal::apply(sql, event, reversals, fetched, known).into()
        }
        Subject::Customer { id, metadata_user, test_clock } => {
            let user = context.user(metadata_user);
            judge_customer(sql, event.created, id, user, test_clock.as_deref())
        }
        Subject::TestClock { id, frozen_time } => {
            let rose = test_clocks::freeze(sql, id, *frozen_time);
            Outcome::of(if rose { Verdict::Applied } else { Verdict::AlreadyApplied }).into()
        }
        Subject::Other => Outcome::ignored(Reason::EventType).into(),
    }
}

/// A session that sells credit packs.
fn judge_pack_session(sql: &mut Sql, context: &Context, session: &Session) -> Judged {
    let names = session.names();
    let known = context.known(sql, &names);
    let payment = known.payment(&session.id, &names);
    let user_if_paid = |paid| payment.filter(|payment| payment.paid == paid).map(|payment| payment.user);
    let claims = Claims {
        paid_for: user_if_paid(true),
        metadata: context.user(&session.metadata_user),
        attributed: user_if_paid(false),
        link: None,
        client_reference: context.user(&session.client_reference),
    };
    let ownership = resolve_owner(sql, session.customer_id.as_deref(), claims, session.created);
    if let Err(reason) = context.caller.check_owner(ownership.owner) {
        return Outcome::rejected(reason).into();
    }
    let unblocked = ownership.link_customer(sql);
    if ownership.owner == Err(Reason::Conflict) {
        return Outcome::rejected(Reason::Conflict).into();
    }
    let joined = payment::join(sql, &known, Some(&session.id), &names);
    payment::take_back_first(sql, &context.event.id, &joined.duplicates);
    if let Some(outcome) = context.before_books(session.created) {
        return Judged { outcome: ownership.with_owner(sql, outcome), unblocked };
    }
    let succeeded = session.payment == Some(PaymentStatus::Unpaid) && payments::has_succeeded(sql, &names);
    let worth = pack::worth(sql, context.settings, session, succeeded, context.fetched);
    let outcome = match (worth, ownership.owner) {
        (Ok(worth), Ok(owner)) => {
            pack::post_session(sql, &context.event.id, session, &joined, owner.user, &worth)
        }
        (Ok(_), Err(reason)) => unowned(reason),
        // The session names no lines, but Stripe's are known: there is no need to ask again.
        (Err(NoGrant::NeedsFetch(_)), Ok(_)) if joined.payment.is_some_and(|paid| paid.has_lines()) => {
            Outcome::of(Verdict::AlreadyApplied)
        }
        (Err(no_grant), _) => no_grant.into(),
    };
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked }
}

/// A session that starts a subscription. It links the customer to a user; its subscription and its invoice are judged if the
/// object contains them.
fn judge_subscription_session(sql: &mut Sql, context: &Context, session: &Session) -> Judged {
    let attributed = payments::of_source(sql, &session.id).map(|payment| payment.user);
    let claims = Claims {
        // An operator's attribution of this session holds for the subscription that it started.
        metadata: context.user(&session.metadata_user).or(attributed),
        client_reference: context.user(&session.client_reference),
        ..Claims::default()
    };
    let ownership = resolve_owner(sql, session.customer_id.as_deref(), claims, session.created);
    if let Err(reason) = context.caller.check_owner(ownership.owner) {
        return Outcome::rejected(reason).into();
    }
    let mut unblocked = ownership.link_customer(sql);
    let user = ownership.user().ok();
    let mut outcome = None;
    if let Some(facts) = &session.subscription {
        let started = judge_subscription(sql, context, facts, Source::Snapshot, user);
        unblocked = unblocked.or(started.unblocked);
        outcome = Some(started.outcome);
    }
    if let Some(invoice) = &session.invoice {
        let paid = judge_invoice(sql, context, invoice, user).outcome;
        outcome = Some(match outcome {
            Some(started) => started.and_then(paid),
            None => paid,
        });
    }
    let outcome = outcome.unwrap_or_else(|| {
        let unpaid = session.payment == Some(PaymentStatus::Unpaid);
        Outcome::ignored(if unpaid { Reason::Unpaid } else { Reason::Mode })
    });
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked }
}

/// A subscription's state. `session_user` owns the session that started it.
fn judge_subscription(
    sql: &mut Sql,
    context: &Context,
    facts: &Subscription,
    source: Source,
    session_user: Option<Uuid>,
) -> Judged {
    let known = subscriptions::find(sql, &facts.id);
    let named = context.user(&facts.metadata_user);
    let contradicts = |user| ownership::contradicts(sql, &facts.id, facts.as_of, user);
    if context.fetched.is_none() && named.is_some_and(contradicts) {
        // Two states of one second name two users: Stripe says which one is later.
        return Outcome::from(NoGrant::NeedsFetch(vec![subscription_rules::path(&facts.id)])).into();
    }
    let answer = context.fetched.and_then(|fetched| fetched.subscription(&facts.id));
    for state in [Some(facts), answer].into_iter().flatten() {
        if let Some(user) = context.user(&state.metadata_user) {
            ownership::give(sql, &facts.id, user, state.as_of, ownership::Source::Metadata);
        }
    }
    let given_to = ownership::user(sql, &facts.id);
    let attributed = given_to.or(known.as_ref().and_then(|known| known.user)).or(session_user);
    // The latest word is the server's; a state that names an earlier one again links nobody else.
    let claims = Claims { metadata: given_to.filter(|_| named.is_some()), attributed, ..Claims::default() };
    let ownership = resolve_owner(sql, facts.customer_id.as_deref(), claims, facts.as_of);
    let relinked = ownership.link_customer(sql);
    let incoming = Incoming { event_id: &context.event.id, facts, source, fetched: context.fetched };
    // If the subscription moves, its payments become another user's.
    context.known.take();
    let outcome = match subscription::apply(sql, &incoming, known.as_ref(), ownership.user()) {
        Ok((outcome, _)) => outcome,
        Err(no_grant) => no_grant.into(),
    };
    // An invoice may be parked until its subscription is known.
    let first_known = facts.customer_id.clone().filter(|_| known.is_none());
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked: relinked.or(first_known) }
}

/// A paid invoice. `session_user` owns the session that started its subscription.
fn judge_invoice(sql: &mut Sql, context: &Context, invoice: &Invoice, session_user: Option<Uuid>) -> Judged {
    if invoice.subscription_ids().next().is_none() {
        return judge_pack_invoice(sql, context, invoice);
    }
    let paid_at = invoice.paid_at.unwrap_or(context.event.created);
    // It follows its own subscription, or else the first that its lines name and that is known.
    let mut ids = invoice.subscription_id.as_deref().into_iter().chain(invoice.subscription_ids());
    let of_subscription = ids.find_map(|id| subscriptions::user(sql, id));
    let names = invoice.names();
    let known = context.known(sql, &names);
    let Joined { payment, duplicates, .. } = payment::join(sql, &known, Some(&invoice.id), &names);
    let known = payment.filter(|payment| payment.source_id == invoice.id);
    // The metadata are a copy of the time when it was made: they name a user if nobody is known, and move nothing.
    let paid_for = known.as_ref().filter(|payment| payment.paid).map(|payment| payment.user);
    let snapshot = context.user(&invoice.metadata_user);
    let attributed = of_subscription.or(paid_for).or(snapshot).or(session_user);
    let claims = Claims { attributed, ..Claims::default() };
    let mut ownership = resolve_owner(sql, invoice.customer_id.as_deref(), claims, paid_at);
    ownership.incoming =
        snapshot.map(|user| CustomerLink { user, source: LinkSource::Snapshot, as_of: paid_at });
    let unblocked = ownership.link_customer(sql);
    if let Some(outcome) = context.before_books(paid_at) {
        payment::take_back_first(sql, &context.event.id, &duplicates);
        return Judged { outcome: ownership.with_owner(sql, outcome), unblocked };
    }
    let lines = rules::lines(invoice, context.fetched);
    let sorted = lines.and_then(|lines| invoice::sort(sql, &lines, paid_at).map(|sorted| (lines, sorted)));
    let ours = match (sorted, ownership.user()) {
        (Ok(sorted), Ok(user)) => Ok((sorted, user)),
        (Ok(_), Err(reason)) => Err(unowned(reason)),
        (Err(no_grant), _) => Err(no_grant.into()),
    };
    let outcome = match ours {
        Ok(((lines, sorted), user)) => {
            let paid = invoice::Paid {
                event_id: &context.event.id,
                invoice,
                lines,
                sorted,
                paid_at,
                listed_at: Some(context.event.created),
                is_direct: false,
                duplicates: &duplicates,
            };
            invoice::post(sql, &paid, known.as_ref(), user)
        }
        Err(outcome) => {
            payment::take_back_first(sql, &context.event.id, &duplicates);
            outcome
        }
    };
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked }
}

/// An invoice without a subscription: the packs on it. It may be a session's own, and is that payment then.
fn judge_pack_invoice(sql: &mut Sql, context: &Context, invoice: &Invoice) -> Judged {
    let names = invoice.names();
    let known = context.known(sql, &names);
    let paid = known.payment(&invoice.id, &names).filter(|payment| payment.paid);
    let claims = Claims {
        paid_for: paid.map(|payment| payment.user),
        metadata: context.user(&invoice.metadata_user),
        ..Claims::default()
    };
    let billed_at = invoice.paid_at.or(invoice.created).unwrap_or(context.event.created);
    let ownership = resolve_owner(sql, invoice.customer_id.as_deref(), claims, billed_at);
    if ownership.owner == Err(Reason::Conflict) {
        return Outcome::rejected(Reason::Conflict).into();
    }
    let unblocked = ownership.link_customer(sql);
    let joined = payment::join(sql, &known, Some(&invoice.id), &names);
    payment::take_back_first(sql, &context.event.id, &joined.duplicates);
    if let Some(outcome) = context.before_books(billed_at) {
        return Judged { outcome: ownership.with_owner(sql, outcome), unblocked };
    }
    let worth = pack::worth_of_invoice(sql, context.settings, invoice, billed_at, context.fetched);
    let outcome = match (worth, ownership.user()) {
        (Ok(worth), Ok(user)) => {
            pack::post_invoice(sql, &context.event.id, invoice, billed_at, &joined, user, &worth)
        }
        (Ok(_), Err(reason)) => unowned(reason),
        (Err(NoGrant::Ignored(Reason::NotCredits)), _) => Outcome::ignored(Reason::NoSubscription),
        (Err(no_grant), _) => no_grant.into(),
    };
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked }
}

/// A payment intent. Behind a session or an invoice it only says that these were paid; otherwise it grants what its metadata
/// name. Newer ones do not say what is behind them, so Stripe is asked once.
fn judge_payment_intent(sql: &mut Sql, context: &Context, intent: &PaymentIntent) -> Judged {
    if !intent.succeeded {
        return Outcome::ignored(Reason::Unpaid).into();
    }
    let judged = judge_succeeded_intent(sql, context, intent);
    top_up::succeed(sql, intent, &judged.outcome);
    judged
}

fn judge_succeeded_intent(sql: &mut Sql, context: &Context, intent: &PaymentIntent) -> Judged {
    let event_id = context.event.id.as_str();
    let mut names = intent.names();
    names.extend(context.fetched.iter().flat_map(|fetched| fetched.names_of(&intent.id)));
    let known = context.known(sql, &names);
    let joined = payment::join(sql, &known, Some(&intent.id), &names);
    let is_new = payments::record_success(sql, &intent.id) || joined.is_new;
    let unchanged = if is_new { Verdict::Applied } else { Verdict::AlreadyApplied };
    if let Some(payment) = &joined.payment {
        let duplicates = &joined.duplicates;
        return reversal::settle(sql, context.event, payment, duplicates, Some(&intent.id), unchanged).into();
    }
    if payments::is_linked(sql, &intent.id) {
        return judge_unpaid_sessions(sql, context, &intent.id, Outcome::of(unchanged));
    }
    let Some(line) = &intent.named else {
        return Outcome::ignored(Reason::NothingNamed).into();
    };
    if let Some(outcome) = context.before_books(intent.created) {
        return outcome.into();
    }
    if context.fetched.is_none() {
        let paths =
            vec![session::of_payment_intent_path(&intent.id), invoice_rules::payments_path(&intent.id)];
        return Outcome::from(NoGrant::NeedsFetch(paths)).into();
    }
    let claims = Claims { metadata: context.user(&intent.metadata_user), ..Claims::default() };
    let ownership = resolve_owner(sql, intent.customer_id.as_deref(), claims, intent.created);
    let unblocked = ownership.link_customer(sql);
    let worth = pack::worth_of(sql, std::slice::from_ref(line), intent.created);
    let outcome = match (worth, ownership.user()) {
        (Ok(bought), Ok(user)) => pack::post_payment_intent(sql, event_id, intent, &joined, user, &bought),
        (Ok(_), Err(reason)) => unowned(reason),
        (Err(no_grant), _) => no_grant.into(),
    };
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked }
}

/// The sessions of a payment intent that were not paid when their events came: now they are. Adds what came of them to the
/// payment intent's outcome.
fn judge_unpaid_sessions(
    sql: &mut Sql,
    context: &Context,
    payment_intent_id: &str,
    mut outcome: Outcome,
) -> Judged {
    let mut unblocked = None;
    let session_ids = payments::sessions(sql, payment_intent_id);
    for waiting in inbox::unpaid(sql, &session_ids) {
        let Ok(event) = event::read(&waiting.payload) else { continue };
        let Subject::CheckoutSession(session) = &event.subject else { continue };
        let fetched = waiting.fetched.as_deref().and_then(|fetched| Fetched::read(fetched).ok());
        let of_session = Context {
            event: &event,
            fetched: fetched.as_ref(),
            caller: Caller::Stripe,
            settings: context.settings,
            known: Cell::new(None),
        };
        let judged = judge_pack_session(sql, &of_session, session);
        inbox::record_outcome(sql, &waiting.event_id, &judged.outcome);
        outcome = outcome.and_then(judged.outcome);
        unblocked = unblocked.or(judged.unblocked);
    }
    Judged { outcome, unblocked }
}

/// A customer, whose metadata may name its user: the server's word, which links it. One of a test clock lets its user's account
/// live by that (rule 16).
fn judge_customer(
    sql: &mut Sql,
    as_of: Time,
    customer_id: &str,
    user: Option<Uuid>,
    test_clock: Option<&str>,
) -> Judged {
    let claims = Claims { metadata: user, ..Claims::default() };
    let ownership = resolve_owner(sql, Some(customer_id), claims, as_of);
    let (Ok(owner), true) = (ownership.user(), user.is_some() || test_clock.is_some()) else {
        return Outcome::ignored(Reason::UnknownUser).into();
    };
    let unblocked = ownership.link_customer(sql);
    let verdict = if unblocked.is_some() { Verdict::Applied } else { Verdict::AlreadyApplied };
    let outcome = match test_clock {
        Some(clock_id) => {
            let mut account = Account::open(sql, owner);
            let verdict = if account.live_by(sql, clock_id) { Verdict::Applied } else { verdict };
            account.close(sql, verdict)
        }
        None => Outcome::of(verdict),
    };
    Judged { outcome: ownership.with_owner(sql, outcome), unblocked }
}

/// Who owns an object, and the link of its customer: as it is known, and as the object states it.
struct Ownership<'a> {
    owner: Result<Identity, Reason>,
    customer_id: Option<&'a str>,
    known: Option<CustomerLink>,
    incoming: Option<CustomerLink>,
}

/// Resolves who owns an object (rule 11) by its claims and its customer's link. Writes nothing.
fn resolve_owner<'a>(
    sql: &mut Sql,
    customer_id: Option<&'a str>,
    claims: Claims,
    as_of: Time,
) -> Ownership<'a> {
    let known = customer_id.and_then(|customer_id| customers::find(sql, customer_id));
    let owner = identity::identify(Claims { link: known.map(|link| link.user), ..claims });
    let incoming = identity::stated_link(claims.metadata, claims.client_reference, as_of);
    Ownership { owner, customer_id, known, incoming }
}

impl Ownership<'_> {
    fn user(&self) -> Result<Uuid, Reason> {
        self.owner.map(|identity| identity.user)
    }

    /// Links the customer to the user that the object names, if the object has an owner. Returns the customer if that changed
    /// its user.
    fn link_customer(&self, sql: &mut Sql) -> Option<String> {
        let (Some(customer_id), Some(incoming), Ok(_)) = (self.customer_id, self.incoming, self.owner) else {
            return None;
        };
        customers::link(sql, customer_id, self.known, incoming).then(|| customer_id.to_owned())
    }

    /// Adds the owner and their balances to an outcome.
    fn with_owner(&self, sql: &mut Sql, mut outcome: Outcome) -> Outcome {
        let Ok(Identity { user, mismatch }) = self.owner else { return outcome };
        outcome.user = Some(user);
        if outcome.balances.is_none() {
            outcome.balances = ledger::balances(sql, user);
        }
        match mismatch {
            Some(other) => outcome.with("identity_mismatch", json!({ "customer_tied_to": other })),
            None => outcome,
        }
    }
}

/// The outcome of a payment that is worth credits, but whose owner is not known.
fn unowned(reason: Reason) -> Outcome {
    if reason == Reason::Conflict { Outcome::rejected(reason) } else { Outcome::parked(reason) }
}

//! Table `reversals`: refunds and disputes, each as far as it has come; and what an event about one of them does.

use stripe_credits_rules::amount::MinorUnits;
use stripe_credits_rules::event::Event;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::invoice::{self, InvoicePayment};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::reversal::{Kind, Reversal, Reversals, State};
use stripe_credits_rules::worth::Refusal;

use crate::entry::event::refusal;
use crate::ledger::{self, Origin};
use crate::outcome::{Outcome, Verdict};
use crate::pg::convert::{clock, timestamp};
use crate::pg::sql::Sql;
use crate::posting::pack::close;
use crate::tables::payments::{self, Payment};

/// Joins what an event says of a payment's reversals to what is known, and posts the difference that makes. Newer invoices
/// do not name what paid them: where nothing is known of the payment intent, Stripe is asked once which invoices it paid.
pub(crate) fn apply(
    sql: &mut Sql,
    event: &Event,
    reversals: &Reversals,
    fetched: Option<&Fetched>,
) -> Outcome {
    for said in &reversals.said {
        join(sql, reversals, said);
    }
    let Some(payment_intent_id) = reversals.payment_intent_id.as_deref() else {
        return Outcome::of(Verdict::Ignored(Reason::UnknownPayment));
    };
    let told = fetched.map_or(&[][..], Fetched::invoice_payments);
    for paid in told.iter().filter(|paid| paid.payment_intent_id == payment_intent_id) {
        payments::paid_by(sql, &paid.invoice_id, payment_intent_id);
    }
    if let Some(payment) = payments::of_payment_intent(sql, payment_intent_id).filter(|payment| payment.paid)
    {
        return settle(sql, event, &payment, payment_intent_id, Verdict::AlreadyApplied);
    }
    let is_known =
        fetched.is_some() || payments::is_tied(sql, payment_intent_id) || was_asked(sql, payment_intent_id);
    if is_known {
        Outcome::of(Verdict::Ignored(Reason::UnknownPayment))
    } else {
        refusal(Refusal::NeedsFetch(vec![invoice::payments_path(payment_intent_id)]))
    }
}

/// Whether Stripe answered another event of this payment intent's already. It says the same again.
fn was_asked(sql: &mut Sql, payment_intent_id: &str) -> bool {
    let asked = "select from billing.reversals r join billing.stripe_events e on e.object_id = r.reversal_id
                 where r.payment_intent_id = $1 and e.fetched <> '{}' limit 1";
    sql.run(asked, &[payment_intent_id.into()]).next()
}

/// Notes which payment intent paid which invoice, and posts what is known to reverse it.
pub(crate) fn paid_by(sql: &mut Sql, event: &Event, payment: &InvoicePayment) -> Outcome {
    let InvoicePayment { invoice_id, payment_intent_id } = payment;
    let news = payments::paid_by(sql, invoice_id, payment_intent_id);
    let verdict = if news { Verdict::Applied } else { Verdict::AlreadyApplied };
    match payments::of_payment_intent(sql, payment_intent_id).filter(|payment| payment.paid) {
        Some(payment) => settle(sql, event, &payment, payment_intent_id, verdict),
        // The invoice itself comes, or has been nothing of ours.
        None => Outcome::of(verdict),
    }
}

fn settle(
    sql: &mut Sql,
    event: &Event,
    payment: &Payment,
    payment_intent_id: &str,
    unchanged: Verdict,
) -> Outcome {
    let mut account = ledger::lock(sql, payment.user);
    let payment_intent_id = Some(payment_intent_id);
    let origin = payment.named(Origin { event_id: Some(&event.id), payment_intent_id, ..Origin::default() });
    let verdict = match account.settle_reversals(sql, &payment.source_id, &origin) {
        false => Verdict::Parked(Reason::UnknownCharge),
        true if account.is_changed() => Verdict::Applied,
        true => unchanged,
    };
    close(sql, account, verdict)
}

fn join(sql: &mut Sql, reversals: &Reversals, said: &Reversal) {
    sql.run(
        "insert into billing.reversals as r
             (reversal_id, kind, state, payment_intent_id, charge_id, amount, currency, charged, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
         on conflict (reversal_id) do update set
             state = case when array_position(array['inquiry', 'live', 'undone'], excluded.state)
                 > array_position(array['inquiry', 'live', 'undone'], r.state) then excluded.state else r.state end,
             payment_intent_id = coalesce(r.payment_intent_id, excluded.payment_intent_id),
             charge_id = coalesce(r.charge_id, excluded.charge_id),
             amount = greatest(r.amount, excluded.amount),
             currency = greatest(r.currency, excluded.currency),
             charged = greatest(r.charged, excluded.charged),
             updated_at = excluded.updated_at",
        &[
            said.id.as_str().into(),
            said.kind.as_str().into(),
            said.state.as_str().into(),
            reversals.payment_intent_id.as_deref().into(),
            reversals.charge_id.as_deref().into(),
            said.amount.0.into(),
            said.currency.as_deref().into(),
            said.charged.map(|charged| charged.0).into(),
            timestamp(clock()).into(),
        ],
    );
}

/// Everything known to reverse a payment. Read under its payment intents' locks.
pub(crate) fn of_payment(sql: &mut Sql, source_id: &str) -> Vec<Reversal> {
    let mut rows = sql.run(
        "select r.reversal_id, r.kind, r.state, r.amount, r.currency, r.charged
         from billing.payment_intents i join billing.reversals r using (payment_intent_id)
         where i.source_id = $1 order by r.reversal_id",
        &[source_id.into()],
    );
    let mut known = Vec::new();
    while rows.next() {
        known.push(Reversal {
            id: rows.must(1),
            kind: Kind::parse(&rows.must::<String>(2)).expect("its CHECK allows no other word"),
            state: State::parse(&rows.must::<String>(3)).expect("its CHECK allows no other word"),
            amount: MinorUnits(rows.must(4)),
            currency: rows.get(5),
            charged: rows.get(6).map(MinorUnits),
        });
    }
    known
}

-- The manual of the functions in extension/src/api.rs, as \df+ prints it. pgrx emits no comments; those of everything
-- else stand under their objects. Too long is an id of more than 255 bytes, a description or reason of more than 4,096,
-- metadata of more than 64 KiB and a document of more than 16 MiB as text.

comment on function billing.apply_stripe_event(jsonb, jsonb) is
'Applies a whole Stripe event in one transaction: in any order, any number of times, the same end state.
  event    the webhook''s body
  fetched  Stripe''s answer to an earlier needs_fetch, {"as_of": unix seconds, "objects": […]}, or {} if Stripe '
'could not be asked
Outcome: applied; already_applied; ignored (livemode, account, before_books, event_type, mode, unpaid, payment_failed, expired, '
'no_payment_required, no_subscription, stale, nothing_billed, not_credits, trial, unknown_payment); '
'parked (no_catalog, unknown_price, unknown_user, identity_conflict, unknown_charge, unfetched, shape); rejected '
'(malformed, conflict, out_of_range); needs_fetch with to_fetch.
Errors: 22004 event is null, 22023 longer than 16 MiB as text. Nothing else in the event raises.
25001 in a transaction at a stricter isolation
level than read committed, where it would miss what was committed while it waited; so for every function that applies
something of Stripe''s, load_catalog and retry_parked included. Functions that lock one account only (spending,
run_due) raise 40001 there if they meet another transaction.
Event types: checkout.session.completed, .async_payment_succeeded, .async_payment_failed, .expired; '
'customer.created, .updated, which link the customer to the user that its metadata names (ignored, unknown_user, if '
'it names none); customer.subscription.created, .updated, .deleted, .paused, .resumed, .trial_will_end, .pending_update_applied, '
'.pending_update_expired; invoice.paid, .payment_succeeded, .payment_failed, .voided, .marked_uncollectible; '
'invoice_payment.paid; charge.refunded, refund.created, .updated, .failed, charge.refund.updated; '
'charge.dispute.created, .updated, .closed, .funds_withdrawn, .funds_reinstated. Other types are recorded and '
'ignored. The types backfill.subscription, .invoice, .refund and .dispute carry an object of one of Stripe''s lists: '
'they are recorded only if they have an effect.';

comment on function billing.apply_stripe_event_text(text, jsonb) is
'Applies a whole Stripe event from the text of a webhook''s body, as the shim does. As apply_stripe_event, but the text '
'is read once, and escapes that jsonb refuses, which a buyer''s name can hold (\u0000, surrogates that are not in '
'pairs), are replaced by U+FFFD: what was paid counts, and the replaced text is what is stored.
  body     the webhook''s body
  fetched  as for apply_stripe_event
Outcome: as apply_stripe_event''s; rejected, malformed, and nothing recorded, if the body is no JSON.
Errors: 22004 body is null; 22023 longer than 16 MiB; 25001 as apply_stripe_event; 22003 or 54001 for a number or a
depth that jsonb cannot hold.';

comment on function billing.apply_stripe_events(text[]) is
'Applies several Stripe events in one transaction, as the shim does with those that wait at the same moment: as '
'apply_stripe_event_text would one after the other, with one commit.
  p_events  the texts of up to 100 webhooks'' bodies
Outcomes: one for each text, in their order, as apply_stripe_event_text''s. All locks of all events are taken first, in '
'one order, so that batches do not wait for each other in a circle.
Errors: those of apply_stripe_event_text, of any of the texts; 22023 more than 100 texts. Then nothing is applied: send '
'the events one by one, so that one of them keeps no other back. With a short lock_timeout neither does a locked '
'account (55P03).';

comment on function billing.attribute(text, uuid) is
'Links a checkout session, a customer or a subscription to a user, and re-applies events that were parked waiting for '
'that. A subscription that another user has moves: its row, its tier, what is left of it and what is to come; with a '
'customer the subscriptions move of the user to whom it was linked, unless their metadata name that user.
  p_stripe_id  cs_…, cus_…, sub_…, or in Accounts v2 a customer''s acct_…
  p_user_id    the user
Outcome: applied, with the credits that moved and those of the re-applied events (details.followed); already_applied if '
'nothing changed; rejected, conflict if a pack''s session was paid for another user.
Errors: 22004 null, 22023 blank, too long, or none of these.';

comment on function billing.reconcile_checkout_session(jsonb, uuid, timestamptz) is
'Applies a session as Stripe has it now, for the user whose browser came back from it: the same purchase as its '
'webhook''s.
  session           Stripe''s object, best with line_items expanded
  expected_user_id  must own the session, by its metadata, its customer''s link or its client_reference_id
  as_of             the time at which it was read, by Stripe''s clock; by default now
Outcome: as apply_stripe_event''s; rejected, no_owner or not_owner, and nothing written, if the session names no '
'user or another.
Errors: 22004 session or user is null, 22023 a session of more than 16 MiB as text.';

comment on function billing.apply_stripe_credit_pack_purchase(uuid, bigint, text, text, text, text, text, text) is
'Applies a paid credit pack by SQL: one purchase with its webhook and its reconcile, whichever comes first.
  p_user_id              the user
  p_amount               credits, as the caller states them
  p_event_id             recorded in the ledger
  p_checkout_session_id  cs_…: the key of the payment
  p_payment_intent_id    pi_…, if known: finds the payment too
  p_customer_id          cus_…, if known: is linked to the user
  p_price_id, p_pack     the Stripe price or the catalog''s key: names the grant, and its expiry
Outcome: applied; already_applied; rejected, conflict if the payment was applied for another user or amount.
Errors: 22004 null, 22023 blank, too long, or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.apply_subscription_state(
    uuid, text, text, text, text, timestamptz, timestamptz, text, text, boolean, text, boolean) is
'Sets a subscription''s state by SQL: one subscription with its events, whichever come first; an invoice grants '
'once, here or by its event.
  p_user_id                    the user
  p_tier                       what the caller calls the plan; if the catalog''s key differs, details say so
  p_customer_id                cus_…, if known: is linked to the user
  p_subscription_id            sub_…
  p_price_id                   its price: the catalog says which plan it is and what a period is worth
  p_cycle_start, p_cycle_end   the current period
  p_event_id                   recorded in the ledger
  p_invoice_id                 in_…, the invoice that paid for the period: it grants. Without it nothing is granted
  p_reset_usage                changes nothing: the invoice that pays for a period resets
  p_status                     one of Stripe''s statuses, by default active
  p_cancel_at_period_end       whether it ends with the period
The state is as of now, in whole seconds: Stripe''s later events follow it, its older ones are stale.
Outcome: applied; already_applied; ignored, stale or an invoice''s reasons; rejected: no_catalog, unknown_price (the '
'row is written, nothing granted), conflict if the subscription or the invoice belongs to another user, '
'out_of_range.
Errors: 22004 null, 22023 blank or too long, an infinite time, an end not after its start, none of Stripe''s statuses.';

comment on function billing.user_id(text) is
'The user that a text names, as metadata, client_reference_id and tokens'' sub do: a UUID names itself; any other '
'text, such as user_2abc, names its UUID version 5 in the catalog''s user_namespace. Blanks around it do not count. '
'Null if it names nobody: it is no UUID, and the catalog has no user_namespace. Errors: 22004 null, 22023 blank or '
'too long.';

comment on function billing.load_catalog(jsonb) is
'Stores a catalog document, and re-applies events that were parked waiting for it: 20 at once, the others are due for '
'retry_due, run_due and retry_parked; likewise it updates 20 accounts that changed prices may concern, starts the months of '
'a new free plan in 1000, and leaves the others to retry_due and run_due. A price that the document lacks '
'is retired from now on, a changed one gets a new row in force from now on; loading the same document again changes '
'nothing.
  catalog  the document, described in docs/catalog.md
Returns every price with added, changed, retired or unchanged.
Errors: 22004 null; 22023 with the path of the fault, and nothing changed, also if user_namespace would change while
there are accounts; 55P03 if a lock is not had within a second, because every delivery waits meanwhile: try again.';

comment on function billing.grant_signup_credits(uuid) is
'Grants the catalog''s signup_credits (promotional), once per user.
Outcome: applied; already_applied; rejected, no_catalog. Errors: 22004 null.';

comment on function billing.grant_credits(uuid, bigint, text, text, timestamptz) is
'Grants promotional credits by hand, once per request id.
  p_user_id      the user
  p_amount       credits, 1 to 10^12
  p_request_id   the caller''s key: the same call again is already_applied
  p_description  for the ledger row
  p_expires_at   when the remaining credits expire; null: never
Outcome: applied; already_applied; rejected, conflict if the request id was used with another amount or expiry.
Errors: 22004 null, 22023 blank or too long, amount ≤ 0 or expiry in the past, 22003 amount above 10^12.';

comment on function billing.spend_credits(uuid, bigint, text, text, jsonb) is
'Spends credits, once per request id: those that are lost soonest first, then subscription before promotional before '
'purchased, then the oldest grant. One ledger row per grant.
  p_user_id      the user
  p_amount       credits, 1 to 10^12
  p_request_id   the caller''s key: the same call again is already_applied
  p_description  for the ledger rows, at most 4,096 bytes
  p_metadata     for the ledger rows, any JSON, at most 64 KiB as text
Outcome: applied, credits = −p_amount; already_applied; rejected, insufficient_credits, which records nothing, so '
'that the same request may try again; rejected, conflict if the request id was used with another amount or for a '
'reservation.
Errors: 22004 null, 22023 blank, too long, or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.reserve_credits(uuid, bigint, text, interval, text) is
'Reserves credits for a job that may fail, once per request id. They are drawn at once, as a spend would draw them, '
'and returned after p_ttl unless committed before.
  p_ttl  above 0, at most 30 days
Outcome: applied; already_applied, with details.status held, committed, released or expired; rejected, '
'insufficient_credits or conflict.
Errors: 22004 null, 22023 blank or too long, amount ≤ 0 or p_ttl out of range, 22003 amount above 10^12.';

comment on function billing.commit_reservation(uuid, text, bigint) is
'Ends a reservation with p_amount of it spent, by default all. The rest returns to the grants it came from; what '
'returns to a grant that has expired meanwhile expires with it.
Outcome: applied, credits = what was returned; already_applied; rejected: unknown_reservation, reservation_ended '
'(released or expired), exceeds_reservation, conflict (committed with another amount).
Errors: 22004 null, 22023 blank, too long, or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.release_reservation(uuid, text) is
'Ends a reservation with nothing of it spent; all of it returns to the grants it came from.
Outcome: applied, credits = what was returned; already_applied if it was released or expired before; rejected: '
'unknown_reservation, conflict (committed).
Errors: 22004 null, 22023 blank or too long.';

comment on function billing.refund_spend(uuid, text, text, bigint, text, text) is
'Gives back what a spend, or the committed part of a reservation, drew: to the grants it came from, what was drawn '
'last first, once per request id. What is given back to a grant that has expired meanwhile expires with it.
  p_user_id           the user
  p_spend_request_id  the request id of the spend or the reservation
  p_request_id        the caller''s key of this refund: the same call again is already_applied
  p_amount            credits, at most what was spent and not given back yet; by default all of that
  p_reason            the description of the ledger rows
  p_by                who gives it back: by in the metadata of the ledger rows
Outcome: applied, credits = what came back to the balance; already_applied; rejected: unknown_spend (neither a spend '
'nor a committed reservation), exceeds_spend (more than was spent, or nothing is left of it), conflict (the request '
'id was used with another spend or amount, or for another kind of request). A rejected request records nothing.
Errors: 22004 null, 22023 blank, too long, or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.adjust_credits(uuid, bigint, text, text, text) is
'Corrects a balance by hand, once per request id.
  p_user_id     the user
  p_amount      credits, not 0: above 0 they are granted (promotional, without expiry), below 0 they are taken, those '
'that are lost soonest first, purchased ones last
  p_request_id  the caller''s key: the same call again is already_applied
  p_reason      the description of the ledger rows
  p_by          who corrects it: by in the metadata of the ledger rows
Outcome: applied, credits = the change of the balance less the debt; already_applied; rejected: insufficient_credits '
'if there are fewer, which records nothing; conflict if the request id was used with another amount, or for a spend, '
'a reservation or a refund; out_of_range.
Errors: 22004 null, 22023 blank, too long, or amount 0, 22003 amount beyond ±10^12.';

comment on function billing.import_balance(uuid, text, bigint, text, timestamptz) is
'Imports the balance that a user has in another system, once per user and source. One statement imports a table: '
'select o.* from old_balances b cross join lateral billing.import_balance(b.user_id, ''purchased'', b.credits, '
'''old system'') o where b.credits > 0.
  p_user_id     the user
  p_pool        subscription, purchased or promotional
  p_amount      credits, 1 to 10^12
  p_source      what it is imported from: a user''s balances of two pools are two sources
  p_expires_at  when the remaining credits expire; null: never
Outcome: applied; already_applied; rejected: conflict if the source was imported for this user with another pool, '
'amount or expiry; out_of_range.
Errors: 22004 null, 22023 blank or too long, another pool, amount ≤ 0 or expiry in the past, 22003 amount above 10^12.';

comment on function billing.settle_account(uuid) is
'Posts what is due in one account, if the transaction may write. Internal to my_credits.';

comment on function billing.set_auto_top_up(uuid, boolean) is
'Turns auto top-up on or off for a user: whether the catalog''s auto_top_up buys packs by the user''s saved payment method, while '
'nobody is there to confirm it. Turn it on only with the user''s consent to that. It ends the pause after a payment that failed; for '
'a user who has too few credits already it buys at once.
Outcome: applied; already_applied; rejected: no_catalog, no_auto_top_up (the catalog has none), no_customer (no server linked a '
'customer of Stripe''s to the user). details.auto_top_up: on or off. Errors: 22004 null.';

comment on function billing.finish_top_up(uuid, bigint, text, text, text) is
'Records what an attempt to have a claimed top-up paid came to. A failure pauses auto top-up for the user; failed and canceled are '
'told to the app.
  p_user_id, p_id      the request
  p_payment_intent_id  the payment intent that the caller knows to be the request''s; null: none
  p_state              paid: Stripe took the money, the credits come with its event; failed or canceled: the request is not paid, and '
'p_payment_intent_id is canceled at Stripe, so that nothing can pay it any more
  p_reason             why it failed or was canceled
Returns whether it was recorded: not if the request has ended, or names another payment intent.
Errors: 22004 null, 22023 another state, blank or too long.';

comment on function billing.run_due(integer) is
'Posts what is due (expiries, parts of a period''s credits, months of the free plan, expired reservations) in up to '
'p_limit accounts, and does what retry_due(20) does, if no delivery is being applied at that '
'moment; tells of credits that expire within the catalog''s expiring_days, removes rows of the outbox that are 30 '
'days old, and gives accounts of which the read model changed without them (read_changes) a new version, for the '
'mirror, up to p_limit each; busy accounts are left for the next run. Whoever needs one of these accounts waits for it, '
'so keep the limit small. Returns how many accounts, events and rows, new versions not counted. It need not be '
'punctual: reads are right without it, and every operation posts what is due in its account. Errors: 22004, 22023.';

comment on function billing.retry_parked(integer) is
'Judges up to p_limit parked events again, those that waited longest first, except those of busy accounts. Returns '
'an outcome each, with details.event_id. Every delivery waits while it runs. Errors: 22004, 22023; 55P03 if the lock is '
'not had within a second.';

comment on function billing.retry_due(integer) is
'Judges up to p_limit of those parked events again that a loaded catalog or a linked customer made due, except those of '
'busy accounts; once there are none, posts what a loaded catalog changes in the next 20 accounts that it may concern. '
'Returns how many events it judged, or how many accounts it looked at; 0: nothing is due, or only in busy accounts. '
'Every delivery waits while it runs. '
'Errors: 22004, 22023; 55P03 if the lock is not had within a second.';

-- While one of these waits for a lock, everything of Stripe's waits behind it: a short wait, and the caller tries again.
alter function billing.load_catalog(jsonb) set lock_timeout = '1s';
alter function billing.retry_parked(integer) set lock_timeout = '1s';
alter function billing.retry_due(integer) set lock_timeout = '1s';

comment on function billing.forget_user(uuid) is
'Forgets a person: reduces what the inbox keeps of their events to the fields that the rules read, so without names, '
'e-mail addresses, addresses and cards, now and for events that arrive later. Auto top-up is turned off, and the mirror '
'drops the user''s rows. The ledger, payments and ids of Stripe''s stay, and every event can still be applied again. It '
'reads the whole inbox while deliveries wait.
  p_user_id  the user
Outcome: applied, with details.events, how many were reduced; already_applied if there was nothing left to do.
Errors: 22004 null, 25001 as apply_stripe_event.';

comment on function billing.prune_stripe_events(interval) is
'Deletes events that were last received longer ago than p_older_than, but none that is parked or waits for a fetch. '
'Returns how many. If a deleted event comes again, it is already_applied, because its payment is known. Errors: '
'22004 null, 22023 negative.';

comment on function billing.sync_user_credits(uuid) is
'Recomputes a user''s cached balance from the grants, and returns it: Σ remaining − debt. For repair; if '
'validate_credits_consistency() has no row it changes nothing. Errors: 22004 null.';

comment on function billing.worth_faults() is
'The part of validate_credits_consistency() about worth: grants of plans, trials and first purchases whose amount is '
'not what all facts of their user are worth, and payments of which another part came back than their reversals say. '
'place is the grant''s id.';

comment on function billing.chain_faults() is
'The part of validate_credits_consistency() about the chain of hashes: ledger rows whose hash is not that of the row and '
'the one before it, and last rows whose hash is not the account''s last_hash. place is the row''s id.';

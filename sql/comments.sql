-- The manual: what \d+ and \df+ print. Arguments, units, outcome, errors, and what it stands on.

comment on type billing.outcome is
'What a call answers. ok: true for applied and already_applied. outcome: applied, already_applied, ignored, parked, rejected or needs_fetch. reason: why, for the last four. credits: the net change of the balance. remaining_*: what the account holds now, by pool. to_fetch: Stripe API paths to read and hand back as fetched, under needs_fetch. details: postings, prices, discrepancies. Call it as select * from billing.f(…); (f(…)).* would run it once a column.';

comment on domain billing.credits is 'A number of credits that something holds.';
comment on domain billing.movement is 'A signed number of credits that moved.';
comment on domain billing.ordinal is 'A grant or a ledger row of a user, counted from 1.';
comment on domain billing.identifier is 'A text that names something: a Stripe id, a price, an app''s own key.';
comment on domain billing.pool is 'Which of a user''s balances credits count into.';
comment on domain billing.transaction_type is 'Why a row is in the ledger.';
comment on domain billing.event_outcome is 'What came of an event.';

comment on table billing.settings is 'One row: what holds for the whole install. Written by load_catalog alone; until then every event is parked.';
comment on column billing.settings.livemode is 'Whether these books keep real money. Events of the other mode are ignored.';
comment on column billing.settings.stripe_account is 'The connected account whose events count; null: only events without an account.';
comment on table billing.prices is 'The catalog, effective-dated: a Stripe price is worth what its row in force said when it was bought. Written by load_catalog alone.';
comment on column billing.prices.retired is 'No longer sold. What is paid for it still grants this row''s worth.';
comment on table billing.customers is 'Which Stripe customer is which user, who said so, and as of when.';
comment on table billing.accounts is 'One row per user: the row that is locked, with the cached balances. Read billing.user_credits instead: it leaves out what has expired since.';
comment on column billing.accounts.next_due_at is 'When time alone next changes something here. Reads are right before run_due has posted it.';
comment on table billing.subscriptions is 'The latest known state of each Stripe subscription.';
comment on column billing.subscriptions.as_of is 'As of when Stripe says all this. It only rises.';
comment on column billing.subscriptions.lot_limit is 'The most that a lot may hold from now on that was paid for before the subscription was this plan; null: as much as it did.';
comment on column billing.accounts.free_next_at is 'When the free plan''s next month begins that was not granted yet.';
comment on table billing.payments is 'What was paid, by checkout session or invoice. Claiming a row is what makes a payment count once; a row without paid_at says whose a session will be.';
comment on table billing.payment_intents is 'Which payment a payment intent paid. An invoice can have several.';
comment on table billing.credit_grants is 'The lots: who was given how many credits for what, how many remain, when they expire. source_id is the payment or the app''s own key, item the price or purpose.';
comment on column billing.credit_grants.amount is 'Credits granted in all.';
comment on column billing.credit_grants.remaining is 'Credits of this lot that are there to be spent.';
comment on column billing.credit_grants.pending is 'Credits of this lot that come at available_from.';
comment on column billing.credit_grants.set_aside is 'Credits of this lot that are kept back: a newer lot is current, or a lesser plan. They come back if that changes.';
comment on column billing.credit_grants.consumed is 'Of a subscription''s lot: what was drawn in its time; null while that is now.';
comment on table billing.credit_transactions is 'The ledger: append-only, a signed amount against one grant a row. UPDATE, DELETE and TRUNCATE are refused for everyone.';
comment on column billing.credit_transactions.operation_id is 'Rows of one operation share the id of its first.';
comment on column billing.credit_transactions.balance_after is 'Σ remaining − debt after this row.';
comment on table billing.reservations is 'Spends that can still be committed for less or released.';
comment on table billing.reversals is 'Refunds, disputes and charges'' own counts, each as far as it has come. What they take back is computed from all of them together.';
comment on column billing.payments.owed is 'Credits reversed after they had been spent: this payment''s share of the account''s debt, settled or not.';
comment on table billing.stripe_events is 'The inbox: every event as it was received, with what came of it. Parked rows apply by themselves once what they lack is known.';
comment on table billing.cursors is 'How far the shim''s commands sweep and backfill have come through Stripe''s lists, so that the next run goes on there.';
comment on view billing.user_credits is 'The read model: what each user has now, expired credits left out whether swept or not. bonus_* counts purchased and promotional credits together; what expired counts as used.';

comment on function billing.apply_stripe_event(jsonb, jsonb) is
'Applies a whole Stripe event in one transaction: in any order, any number of times, the same end state.
  event    the webhook''s body
  fetched  Stripe''s answer to a needs_fetch before, {"as_of": unix seconds, "objects": […]}, or {} where nobody could ask
Outcome: applied; already_applied; ignored (livemode, account, event_type, mode, unpaid, payment_failed, expired, no_payment_required, no_subscription, stale, nothing_billed, not_credits, trial, at_renewal, unknown_payment); parked (no_catalog, unknown_price, unknown_user, identity_conflict, unknown_charge, unfetched, shape); rejected (malformed, conflict, out_of_range); needs_fetch with to_fetch.
Errors: 22004 event is null. Nothing in the event''s content raises.
Stands on: Stripe''s checkout.session.completed, .async_payment_succeeded, .async_payment_failed, .expired; customer.subscription.created, .updated, .deleted, .paused, .resumed, .trial_will_end, .pending_update_applied, .pending_update_expired; invoice.paid, .payment_succeeded, .payment_failed, .voided, .marked_uncollectible; invoice_payment.paid; charge.refunded, refund.created, .updated, .failed, charge.refund.updated; charge.dispute.created, .updated, .closed, .funds_withdrawn, .funds_reinstated. Other types are recorded and ignored. The types backfill.subscription, .invoice, .refund and .dispute are an object as one of Stripe''s lists has it now: kept in the inbox only where something came of it.';

comment on function billing.explain_event(jsonb, jsonb) is
'What apply_stripe_event would answer for the same arguments, by the same path, with nothing written. details.postings are the ledger rows it would append.';

comment on function billing.attribute(text, uuid) is
'Ties a checkout session or a customer to a user, and applies what was parked for want of that.
  p_stripe_id  cs_… or cus_…
  p_user_id    the user
Outcome: applied, with the credits of what followed (details.followed); already_applied where nothing changed; rejected, conflict where the session was paid for another user.
Errors: 22004 null, 22023 blank or neither a session nor a customer.';

comment on function billing.reconcile_checkout_session(jsonb, uuid, timestamptz) is
'Applies what Stripe says of a session now, for the user whose browser came back from it: the same purchase as its webhook''s.
  session           Stripe''s object, best with line_items expanded
  expected_user_id  must be whose the session is, by metadata, the customer''s tie or client_reference_id
  as_of             Stripe''s clock when it was read; by default now
Outcome: as apply_stripe_event''s; rejected, no_owner or not_owner, and nothing written, where the session names nobody or somebody else.
Errors: 22004 session or user is null.';

comment on function billing.apply_stripe_credit_pack_purchase(uuid, bigint, text, text, text, text, text, text) is
'Applies a paid credit pack by SQL: one purchase with its webhook and its reconcile, whichever comes first.
  p_user_id              the user
  p_amount               credits, the caller''s word
  p_event_id             goes into the ledger
  p_checkout_session_id  cs_…: the key of the payment
  p_payment_intent_id    pi_…, where known: a second name of the payment
  p_customer_id          cus_…, where known: tied to the user
  p_price_id, p_pack     the Stripe price or the catalog''s key: names the grant, and its expiry
Outcome: applied; already_applied; rejected, conflict where the payment was applied for another user or amount.
Errors: 22004 null, 22023 blank or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.admin_apply_stripe_credit_pack_purchase(uuid, bigint, text, text, text, text, text, text) is
'The older name of apply_stripe_credit_pack_purchase, with the older answer: {ok, already_applied, remaining_monthly, remaining_bonus, reason}. remaining_monthly is the subscription pool, remaining_bonus the purchased and promotional ones.';

comment on function billing.apply_subscription_state(uuid, text, text, text, text, timestamptz, timestamptz, text, text, boolean, text, boolean) is
'Sets a subscription''s state by SQL: one subscription with its events, whichever come first; the same invoice by either way grants once.
  p_user_id                    the user
  p_tier                       what the caller calls the plan: compared with the catalog''s key, a difference told in details
  p_customer_id                cus_…, where known: tied to the user
  p_subscription_id            sub_…
  p_price_id                   its price: the catalog says which plan it is and what a period is worth
  p_cycle_start, p_cycle_end   the current period
  p_event_id                   goes into the ledger
  p_invoice_id                 in_…, where one was paid for the period: it grants. Without it nothing is granted
  p_reset_usage                changes nothing: the invoice that pays for a period resets
  p_status                     one of Stripe''s statuses, by default active
  p_cancel_at_period_end       whether it ends with the period
The state is as of now, in whole seconds: Stripe''s later events follow it, its older ones are stale.
Outcome: applied; already_applied; ignored, stale or an invoice''s reasons; rejected: no_catalog, unknown_price (the row is written, nothing granted), conflict where the subscription or the invoice is another user''s, out_of_range.
Errors: 22004 null, 22023 blank, an infinite time, an end not after its start, no status of Stripe''s.';

comment on function billing.apply_stripe_subscription_state(uuid, text, text, text, text, timestamptz, timestamptz, text, text, boolean) is
'The older name of apply_subscription_state, for an active subscription, with the older answer: {ok, already_applied, remaining_monthly, remaining_bonus, reason}.';

comment on function billing.older_answer(billing.outcome) is 'An outcome as the older names answer it.';

comment on function billing.load_catalog(jsonb) is
'Makes the catalog say what the document says, and applies what was parked for want of it. What is absent is retired from now on, what changed gets a new row in force from now on; loading the same twice changes nothing.
  catalog  the document, described in docs/catalog.md
Returns every price with added, changed, retired or unchanged.
Errors: 22004 null; 22023 with the path of the fault, and nothing changed.';

comment on function billing.resolve_price(text, timestamptz) is
'The price''s row in force at p_at, by default now; before its first row, the first. No row where the price is unknown. A retired row still says what the price is worth. Errors: 22004 null, 22023 blank.';

comment on function billing.assert_known_price(text) is
'Raises P0002 and names the price where the catalog does not sell it now: unknown, or retired. 22004 null, 22023 blank.';

comment on function billing.grant_signup_credits(uuid) is
'Grants the catalog''s signup_credits (promotional), once per user.
Outcome: applied; already_applied; rejected, no_catalog. Errors: 22004 null.';

comment on function billing.grant_credits(uuid, bigint, text, text, timestamptz) is
'Grants promotional credits by hand, once per request id.
  p_user_id      the user
  p_amount       credits, 1 to 10^12
  p_request_id   the caller''s key: the same call again is already_applied
  p_description  for the ledger row
  p_expires_at   when what is left expires; null: never
Outcome: applied; already_applied; rejected, conflict where the request id was used with another amount or expiry.
Errors: 22004 null, 22023 blank, amount ≤ 0 or expiry in the past, 22003 amount above 10^12.';

comment on function billing.spend_credits(uuid, bigint, text, text, jsonb) is
'Spends credits, once per request id: first what would be lost soonest, then subscription before promotional before purchased, then the oldest grant. One ledger row per grant touched.
  p_user_id      the user
  p_amount       credits, 1 to 10^12
  p_request_id   the caller''s key: the same call again is already_applied
  p_description, p_metadata  for the ledger rows
Outcome: applied, credits = −p_amount; already_applied; rejected, insufficient_credits, which leaves no trace, so that the same request may try again; rejected, conflict where the request id was used with another amount or for a reservation.
Errors: 22004 null, 22023 blank or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.reserve_credits(uuid, bigint, text, interval, text) is
'Holds credits for a job that may fail, once per request id. They are taken at once, as a spend would take them, and come back by themselves after p_ttl unless committed before.
  p_ttl  above 0, at most 30 days
Outcome: applied; already_applied, with details.status held, committed, released or expired; rejected, insufficient_credits or conflict.
Errors: 22004 null, 22023 blank, amount ≤ 0 or p_ttl out of range, 22003 amount above 10^12.';

comment on function billing.commit_reservation(uuid, text, bigint) is
'Ends a reservation with p_amount of it spent, by default all. The rest goes back to the grants it came from; what goes back to a grant that expired meanwhile expires with it.
Outcome: applied, credits = what came back; already_applied; rejected: unknown_reservation, reservation_ended (released, or ran out), exceeds_reservation, conflict (committed with another amount).
Errors: 22004 null, 22023 blank or amount ≤ 0, 22003 amount above 10^12.';

comment on function billing.release_reservation(uuid, text) is
'Ends a reservation with nothing of it spent; all of it goes back to the grants it came from.
Outcome: applied, credits = what came back; already_applied where it was released or ran out before; rejected: unknown_reservation, conflict (committed).
Errors: 22004 null, 22023 blank.';

comment on function billing.current_user_id() is
'The user of the request: the sub of request.jwt.claims, as Supabase''s auth.uid() reads it. Whoever may run SET can forge it, so client roles are for PostgREST''s path only.';

comment on function billing.unposted(uuid) is
'What time alone has brought a user and nothing has posted yet, as far as the caller may read it: part of user_credits. Reservations that ran out, parts of a period''s credits, months of the free plan; up_to_here is the sum in the order in which debt takes of it.';

comment on function billing.free_plan() is 'What users without a plan get, by the catalog; no row where that is nothing.';

comment on function billing.my_credits() is
'The caller''s row of user_credits, after what time alone has caused was posted; zeros for a user whom nothing was granted yet. The user is the JWT''s sub, never an argument.';

comment on function billing.settle_account(uuid) is
'Posts what time alone has caused in one account, where the transaction may write. Internal to my_credits.';

comment on function billing.my_transactions(integer, bigint) is
'The caller''s ledger rows, newest first.
  p_limit   rows, at most 1000, by default 50
  p_before  only rows with a smaller id: the last id of the page before';

comment on function billing.run_due(integer) is
'Posts what time alone has caused (expiries, parts of a period''s credits, free months, reservations that ran out) for up to p_limit accounts that are due, busy ones left for the next time. Returns how many. Nothing needs it to be punctual: reads are right before it ran, and every access of an account does the same for it. Errors: 22004, 22023.';

comment on function billing.retry_parked(integer) is
'Judges up to p_limit parked events again, those that waited longest first; an event of a busy account is left for the next time. Returns an outcome each, with details.event_id. Errors: 22004, 22023.';

comment on function billing.prune_stripe_events(interval) is
'Deletes settled events that were last received longer ago than p_older_than. Never one that is parked or waits for a fetch. Returns how many. A pruned event that comes again is already_applied: its payment is known. Errors: 22004 null, 22023 negative.';

comment on function billing.move_cursor(text, jsonb) is
'Keeps how far a command has come through Stripe''s lists.
  p_command   whose cursor: sweep, backfill
  p_position  where its next run goes on; null forgets it
Errors: 22004 command is null, 22023 blank.';

comment on function billing.validate_credits_consistency() is
'The books prove themselves: no row where, for every user, Σ ledger = Σ grants'' remaining − debt = cached balance. Otherwise a row per user that differs.';

comment on function billing.sync_user_credits(uuid) is
'Makes a user''s cached balance what the grants say, and returns it: Σ remaining − debt. For repair; where validate_credits_consistency() has no row it changes nothing. Errors: 22004 null.';

comment on function billing.balance_at(uuid, timestamptz) is
'A user''s balance, Σ remaining − debt, as the ledger had it at a time; 0 before its first row. From the ledger alone. Errors: 22004 null.';

comment on function billing.explain_checkout_session(text) is
'Everything known of a checkout session: its events and what came of them, the payment, the grants, the ledger rows, the balance effect in credits. Errors: 22004 null, 22023 blank.';

comment on function billing.credit_system_metrics(interval) is
'How the system does: what waits now and why, and events, ledger rows and credits within p_window, by default the last hour. Errors: 22004 null, 22023 not above 0.';

comment on function billing.security_selfcheck() is
'Checks that the access rules of sql/security.sql still hold: a row per rule, ok, and what breaks it.';

comment on function billing.guard_drop() is 'Event trigger: refuses to drop the books while the ledger holds rows, unless stripe_credits.allow_drop is on.';
comment on event trigger stripe_credits_drop_guard is 'Refuses to drop the books by accident; SET stripe_credits.allow_drop = on allows it.';
comment on function billing.draw_rank(text) is 'Of grants that are lost at the same time, which pool is drawn first: subscription, then promotional, then purchased.';
comment on function billing.adds_up(billing.credit_grants) is 'The CHECK of a grant as a whole.';
comment on function billing.refuse_ledger_change() is 'Trigger: the ledger is append-only.';

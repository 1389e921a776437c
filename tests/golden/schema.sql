-- What schema billing offers, from the catalogs. Written by tests/tests/sql/schema_dump.rs; not to be executed.

-- Functions
access_faults() -> TABLE(check_name text, fault text) stable {"search_path=pg_catalog, pg_temp"}
access_rights() -> TABLE(role_kind text, object text, privilege text) stable {"search_path=pg_catalog, pg_temp"}
account_time(p_test_clock text) -> timestamp with time zone stable security definer {"search_path=pg_catalog, pg_temp"}
adjust_credits(p_user_id uuid, p_amount bigint, p_request_id text, p_reason text, p_by text DEFAULT NULL::text) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
admin_apply_stripe_credit_pack_purchase(p_user_id uuid, p_amount bigint, p_event_id text, p_checkout_session_id text, p_payment_intent_id text DEFAULT NULL::text, p_customer_id text DEFAULT NULL::text, p_price_id text DEFAULT NULL::text, p_pack text DEFAULT NULL::text) -> jsonb volatile security definer {"search_path=pg_catalog, pg_temp"}
apply_stripe_credit_pack_purchase(p_user_id uuid, p_amount bigint, p_event_id text, p_checkout_session_id text, p_payment_intent_id text DEFAULT NULL::text, p_customer_id text DEFAULT NULL::text, p_price_id text DEFAULT NULL::text, p_pack text DEFAULT NULL::text) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
apply_stripe_event(event jsonb, fetched jsonb DEFAULT NULL::jsonb) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
apply_stripe_event_text(body text, fetched jsonb DEFAULT NULL::jsonb) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
apply_stripe_events(p_events text[]) -> SETOF billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
apply_stripe_subscription_state(p_user_id uuid, p_tier text, p_customer_id text, p_subscription_id text, p_price_id text, p_cycle_start timestamp with time zone, p_cycle_end timestamp with time zone, p_event_id text, p_invoice_id text DEFAULT NULL::text, p_reset_usage boolean DEFAULT false) -> jsonb volatile security definer {"search_path=pg_catalog, pg_temp"}
apply_subscription_state(p_user_id uuid, p_tier text, p_customer_id text, p_subscription_id text, p_price_id text, p_cycle_start timestamp with time zone, p_cycle_end timestamp with time zone, p_event_id text, p_invoice_id text DEFAULT NULL::text, p_reset_usage boolean DEFAULT false, p_status text DEFAULT 'active'::text, p_cancel_at_period_end boolean DEFAULT false) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
assert_known_price(p_price_id text) -> void stable security definer {"search_path=pg_catalog, pg_temp"}
attribute(p_stripe_id text, p_user_id uuid) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
balance_at(p_user_id uuid, p_at timestamp with time zone) -> bigint stable security definer {"search_path=pg_catalog, pg_temp"}
balance_faults() -> TABLE(user_id uuid, stored bigint, calculated bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
balances_by(p_user_id uuid, p_now timestamp with time zone) -> TABLE(subscription bigint, purchased bigint, promotional bigint, debt bigint) stable {"search_path=pg_catalog, pg_temp"}
chain_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan}
claim_outbox(p_limit integer DEFAULT 100, p_lease interval DEFAULT '00:01:00'::interval) -> TABLE(user_id uuid, id bigint, type text, data json, created_at timestamp with time zone, attempts integer) volatile security definer {"search_path=pg_catalog, pg_temp"}
claim_top_ups(p_livemode boolean, p_limit integer DEFAULT 10, p_lease interval DEFAULT '00:05:00'::interval) -> TABLE(user_id uuid, id bigint, price_id text, pack text, customer_id text, payment_intent_id text, attempts integer, unwanted text) volatile security definer {"search_path=pg_catalog, pg_temp"}
commit_reservation(p_user_id uuid, p_request_id text, p_amount bigint DEFAULT NULL::bigint) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
credit_system_metrics(p_window interval DEFAULT '01:00:00'::interval) -> jsonb stable security definer {"search_path=pg_catalog, pg_temp"}
current_user_id() -> uuid stable security definer {"search_path=pg_catalog, pg_temp"}
explain_checkout_session(p_session_id text) -> jsonb stable security definer {"search_path=pg_catalog, pg_temp"}
explain_event(event jsonb, fetched jsonb DEFAULT NULL::jsonb) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp"}
explain_id(p_id text) -> jsonb stable security definer {"search_path=pg_catalog, pg_temp",TimeZone=UTC}
explain_user(p_user_id uuid) -> jsonb stable security definer {"search_path=pg_catalog, pg_temp",TimeZone=UTC}
explain_waiting(p_limit integer DEFAULT 50) -> jsonb stable security definer {"search_path=pg_catalog, pg_temp",TimeZone=UTC}
find_users(p_text text) -> TABLE(found_as text, id text, user_id uuid, customer_id text, event_id text, seen_at timestamp with time zone) stable security definer {"search_path=pg_catalog, pg_temp"}
finish_outbox(p_user_id uuid, p_id bigint, p_attempts integer, p_error text DEFAULT NULL::text, p_retry_after interval DEFAULT NULL::interval) -> boolean volatile security definer {"search_path=pg_catalog, pg_temp"}
finish_top_up(p_user_id uuid, p_id bigint, p_payment_intent_id text, p_state text, p_reason text DEFAULT NULL::text) -> boolean volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
forget_user(p_user_id uuid) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
free_plan() -> TABLE(credits bigint, every interval) stable security definer {"search_path=pg_catalog, pg_temp"}
grant_access(p_client regrole, p_service regrole) -> void volatile {"search_path=pg_catalog, pg_temp"}
grant_credits(p_user_id uuid, p_amount bigint, p_request_id text, p_description text DEFAULT NULL::text, p_expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
grant_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
grant_signup_credits(p_user_id uuid) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
guard_drop() -> event_trigger volatile {"search_path=pg_catalog, pg_temp"}
import_balance(p_user_id uuid, p_pool text, p_amount bigint, p_source text, p_expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
installed_state() -> TABLE(check_name text, object text, state text) immutable {"search_path=pg_catalog, pg_temp"}
is_service() -> boolean stable {"search_path=pg_catalog, pg_temp"}
kept_table_changed() -> trigger volatile {"search_path=pg_catalog, pg_temp"}
ledger_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
load_catalog(catalog jsonb) -> TABLE(price_id text, change text) volatile security definer {"search_path=pg_catalog, pg_temp",lock_timeout=1s,plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
lots_by(p_user_id uuid, p_now timestamp with time zone) -> TABLE(source_id text, item text, pool text, credits bigint, starts_at timestamp with time zone, ends_at timestamp with time zone, is_back boolean) stable {"search_path=pg_catalog, pg_temp"}
mark_mirrored(p_user_ids uuid[], p_versions bigint[]) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp"}
mirror_again(p_user_ids uuid[]) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp"}
mirror_rows(p_user_ids uuid[], p_ledger_rows integer DEFAULT 0) -> TABLE(user_id uuid, version bigint, is_forgotten boolean, due_since timestamp with time zone, credits jsonb, transactions jsonb) stable security definer {"search_path=pg_catalog, pg_temp"}
move_cursor(p_command text, p_position jsonb DEFAULT NULL::jsonb) -> void volatile security definer {"search_path=pg_catalog, pg_temp"}
my_credits() -> SETOF billing.user_credits volatile security definer {"search_path=pg_catalog, pg_temp"}
my_payments(p_limit integer DEFAULT 50, p_before timestamp with time zone DEFAULT NULL::timestamp with time zone) -> TABLE(source_id text, paid_at timestamp with time zone, amount bigint, currency text, refunded bigint, credits bigint, description text) stable security definer {"search_path=pg_catalog, pg_temp"}
my_transactions(p_limit integer DEFAULT 50, p_before bigint DEFAULT NULL::bigint) -> SETOF billing.credit_transactions stable security definer {"search_path=pg_catalog, pg_temp"}
name_payment_intent(p_user_id uuid, p_id bigint, p_payment_intent_id text, p_customer_id text, p_amount bigint, p_currency text) -> text volatile security definer {"search_path=pg_catalog, pg_temp"}
older_answer(o billing.outcome) -> jsonb immutable {"search_path=pg_catalog, pg_temp"}
outbox_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
owner_role_faults() -> SETOF text stable {"search_path=pg_catalog, pg_temp"}
payment_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
payment_lines(p_source_id text) -> jsonb stable security definer {"search_path=pg_catalog, pg_temp"}
present_state() -> TABLE(check_name text, object text, state text) stable {"search_path=pg_catalog, pg_temp"}
prune_stripe_events(p_older_than interval) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
reconcile_checkout_session(session jsonb, expected_user_id uuid, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
refund_spend(p_user_id uuid, p_spend_request_id text, p_request_id text, p_amount bigint DEFAULT NULL::bigint, p_reason text DEFAULT NULL::text, p_by text DEFAULT NULL::text) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
refuse_ledger_change() -> trigger volatile {"search_path=pg_catalog, pg_temp"}
release_reservation(p_user_id uuid, p_request_id text) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
replay_outbox(p_user_id uuid DEFAULT NULL::uuid, p_id bigint DEFAULT NULL::bigint) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp"}
require_given(p_value anyelement, p_argument text) -> void immutable {"search_path=pg_catalog, pg_temp"}
require_named(p_value text, p_argument text) -> void immutable {"search_path=pg_catalog, pg_temp"}
require_not_negative(p_value anyelement, p_argument text) -> void immutable {"search_path=pg_catalog, pg_temp"}
require_positive(p_value anyelement, p_argument text) -> void immutable {"search_path=pg_catalog, pg_temp"}
reservation_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
reserve_credits(p_user_id uuid, p_amount bigint, p_request_id text, p_ttl interval DEFAULT '00:15:00'::interval, p_description text DEFAULT NULL::text) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
resolve_price(p_price_id text, p_at timestamp with time zone DEFAULT now()) -> SETOF billing.prices stable security definer {"search_path=pg_catalog, pg_temp"}
retry_due(p_limit integer DEFAULT 20) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp",lock_timeout=1s,plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
retry_parked(p_limit integer DEFAULT 100) -> SETOF billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",lock_timeout=1s,plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
retry_top_up(p_user_id uuid, p_id bigint, p_attempts integer, p_error text, p_retry_after interval) -> boolean volatile security definer {"search_path=pg_catalog, pg_temp"}
run_due(p_limit integer DEFAULT 500) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
secure_installation() -> void volatile {"search_path=pg_catalog, pg_temp"}
security_selfcheck() -> TABLE(check_name text, ok boolean, detail text) stable security definer {"search_path=pg_catalog, pg_temp"}
set_auto_top_up(p_user_id uuid, p_enabled boolean) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
set_rights(p_clients oid[], p_services oid[]) -> void volatile {"search_path=pg_catalog, pg_temp"}
settle_account(p_user_id uuid) -> void volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
spend_credits(p_user_id uuid, p_amount bigint, p_request_id text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT '{}'::jsonb) -> billing.outcome volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
store_price_amounts(p_amounts jsonb) -> void volatile security definer {"search_path=pg_catalog, pg_temp"}
surroundings_faults() -> TABLE(check_name text, fault text) stable {"search_path=pg_catalog, pg_temp"}
sync_user_credits(p_user_id uuid) -> bigint volatile security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}
top_up_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp"}
user_id(p_external text) -> uuid stable security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan}
validate_credits_consistency() -> TABLE(user_id uuid, stored_balance bigint, calculated_balance bigint, difference bigint, detail text) stable security definer {"search_path=pg_catalog, pg_temp"}
worth_faults() -> TABLE(user_id uuid, place bigint, fault text) stable security definer {"search_path=pg_catalog, pg_temp",plan_cache_mode=force_generic_plan}

-- Types
outcome: ok boolean, outcome text, already_applied boolean, reason text, user_id uuid, credits bigint, remaining_subscription bigint, remaining_purchased bigint, remaining_promotional bigint, remaining_total bigint, debt bigint, tier text, subscription_status text, to_fetch jsonb, details jsonb

-- Columns
table accounts 01: user_id uuid not null
table accounts 02: subscription_credits billing.credits not null default 0
table accounts 03: purchased_credits billing.credits not null default 0
table accounts 04: promotional_credits billing.credits not null default 0
table accounts 05: debt billing.credits not null default 0
table accounts 06: tier text not null default 'free'::text
table accounts 07: subscription_status text not null default 'none'::text
table accounts 08: signed_up_at timestamp with time zone
table accounts 09: free_next_at timestamp with time zone
table accounts 10: test_clock text
table accounts 11: periods_next_at timestamp with time zone
table accounts 12: to_set_aside jsonb
table accounts 13: next_due_at timestamp with time zone
table accounts 14: last_grant_id bigint not null default 0
table accounts 15: last_transaction_id bigint not null default 0
table accounts 16: last_hash bytea not null default '\x'::bytea
table accounts 17: last_recorded_at timestamp with time zone not null default '1970-01-01 00:00:00+00'::timestamp with time zone
table accounts 18: last_outbox_id bigint not null default 0
table accounts 19: auto_top_up billing.top_up_switch not null default 'off'::text
table accounts 20: version bigint not null default 0
table accounts 21: mirror_due_since timestamp with time zone default clock_timestamp()
table accounts 22: created_at timestamp with time zone not null
table accounts 23: updated_at timestamp with time zone not null
table credit_grants 01: user_id uuid not null
table credit_grants 02: id billing.ordinal not null
table credit_grants 03: source_id billing.identifier not null
table credit_grants 04: item billing.identifier not null
table credit_grants 05: pool billing.pool not null
table credit_grants 06: amount bigint not null
table credit_grants 07: drawn billing.credits not null default 0
table credit_grants 08: moved bigint not null default 0
table credit_grants 09: remaining billing.credits not null
table credit_grants 10: pending billing.credits not null default 0
table credit_grants 11: set_aside billing.credits not null default 0
table credit_grants 12: expired billing.credits not null default 0
table credit_grants 13: settled billing.credits not null default 0
table credit_grants 14: owed billing.credits not null default 0
table credit_grants 15: spendable boolean not null
table credit_grants 16: draw_rank smallint not null
table credit_grants 17: available_from timestamp with time zone
table credit_grants 18: expires_at timestamp with time zone
table credit_grants 19: priority_at timestamp with time zone
table credit_grants 20: stripe_subscription_id text
table credit_grants 21: stripe_item_id text
table credit_grants 22: period_start timestamp with time zone
table credit_grants 23: period_end timestamp with time zone
table credit_grants 24: part_start timestamp with time zone
table credit_grants 25: closed_at timestamp with time zone
table credit_grants 26: needed_by timestamp with time zone
table credit_grants 27: matters_until timestamp with time zone
table credit_grants 28: bought billing.credits
table credit_grants 29: moved_with text
table credit_grants 30: kept billing.credits
table credit_grants 31: made_after bigint not null
table credit_grants 32: told_expires_at timestamp with time zone
table credit_grants 33: created_at timestamp with time zone not null
table credit_transactions 01: user_id uuid not null
table credit_transactions 02: id billing.ordinal not null
table credit_transactions 03: operation_id billing.ordinal not null
table credit_transactions 04: transaction_type billing.transaction_type not null
table credit_transactions 05: amount billing.movement not null
table credit_transactions 06: grant_id bigint
table credit_transactions 07: pool billing.pool
table credit_transactions 08: balance_after bigint not null
table credit_transactions 09: description text
table credit_transactions 10: metadata jsonb
table credit_transactions 11: stripe_event_id text
table credit_transactions 12: stripe_checkout_session_id text
table credit_transactions 13: stripe_payment_intent_id text
table credit_transactions 14: stripe_invoice_id text
table credit_transactions 15: request_id text
table credit_transactions 16: created_at timestamp with time zone not null
table credit_transactions 17: recorded_at timestamp with time zone not null
table credit_transactions 18: hash bytea not null
table cursors 01: command billing.identifier not null
table cursors 02: position jsonb not null
table cursors 03: moved_at timestamp with time zone not null
table customer_accounts 01: customer_id billing.identifier not null
table customer_accounts 02: account_id billing.identifier not null
table customers 01: customer_id billing.identifier not null
table customers 02: user_id uuid not null
table customers 03: source billing.link_source not null
table customers 04: as_of timestamp with time zone not null
table forgotten_users 01: user_id uuid not null
table forgotten_users 02: forgotten_at timestamp with time zone not null
table invoice_lines 01: source_id billing.identifier not null
table invoice_lines 02: line billing.counter not null
table invoice_lines 03: user_id uuid not null
table invoice_lines 04: subscription_id text
table invoice_lines 05: item_id text
table invoice_lines 06: price_id text
table invoice_lines 07: product_id text
table invoice_lines 08: quantity billing.quantity
table invoice_lines 09: amount bigint not null
table invoice_lines 10: discount bigint not null
table invoice_lines 11: period_start timestamp with time zone not null
table invoice_lines 12: period_end timestamp with time zone not null
table invoice_lines 13: proration boolean not null
table invoice_lines 14: names_credited boolean not null
table invoice_lines 15: interval interval
table invoice_lines 16: metered boolean not null
table invoice_lines 17: paid_at timestamp with time zone not null
table invoice_lines 18: known_at timestamp with time zone not null
table outbox 01: user_id uuid not null
table outbox 02: id billing.ordinal not null
table outbox 03: type billing.outbox_type not null
table outbox 04: data json not null
table outbox 05: created_at timestamp with time zone not null
table outbox 06: state billing.outbox_state not null default 'pending'::text
table outbox 07: attempts integer not null default 0
table outbox 08: next_attempt_at timestamp with time zone not null
table outbox 09: ended_at timestamp with time zone
table outbox 10: last_error text
table payment_names 01: name billing.identifier not null
table payment_names 02: kind billing.name_kind not null
table payment_names 03: source_id billing.identifier not null
table payment_names 04: succeeded boolean not null default false
table payments 01: source_id billing.identifier not null
table payments 02: source_type billing.source_type not null
table payments 03: user_id uuid not null
table payments 04: customer_id text
table payments 05: subscription_id text
table payments 06: amount_total bigint
table payments 07: currency text
table payments 08: worth billing.credits
table payments 09: evidence billing.evidence
table payments 10: joined_to text
table payments 11: paid_at timestamp with time zone
table payments 12: discounted boolean not null default false
table payments 13: amount_reversed bigint not null default 0
table payments 14: amount_charged bigint
table payments 15: reversal_policy billing.reversal_policy
table payments 16: lines_as_of timestamp with time zone
table payments 17: created_at timestamp with time zone not null
table price_amounts 01: price_id billing.identifier not null
table price_amounts 02: currency text
table price_amounts 03: unit_amount bigint
table price_amounts 04: recurring_interval text
table price_amounts 05: interval_count integer
table price_amounts 06: read_at timestamp with time zone not null
table prices 01: price_id billing.identifier not null
table prices 02: names text not null
table prices 03: valid_from timestamp with time zone not null
table prices 04: kind text not null
table prices 05: key text not null
table prices 06: name text not null
table prices 07: credits billing.credits not null
table prices 08: rank integer not null
table prices 09: every interval not null
table prices 10: drip interval
table prices 11: renewal text not null
table prices 12: max_rollover billing.credits not null
table prices 13: plan_change text not null
table prices 14: cancellation text not null
table prices 15: trial_credits billing.credits not null
table prices 16: first_purchase_bonus billing.credits not null
table prices 17: expires_after interval
table prices 18: retired boolean not null
table read_changes 01: user_id uuid not null
table read_changes 02: id uuid not null default gen_random_uuid()
table repricings 01: number bigint not null
table repricings 02: changed text[] not null
table repricings 03: added text[] not null
table repricings 04: free_plan_since timestamp with time zone
table repricings 05: passed uuid
table repricings 06: is_walked boolean not null
table repricings 07: busy uuid[] not null
table repricings 08: created_at timestamp with time zone not null
table reservations 01: user_id uuid not null
table reservations 02: request_id billing.identifier not null
table reservations 03: amount bigint not null
table reservations 04: committed bigint not null default 0
table reservations 05: status text not null
table reservations 06: description text
table reservations 07: expires_at timestamp with time zone not null
table reservations 08: created_at timestamp with time zone not null
table reservations 09: updated_at timestamp with time zone not null
table reversals 01: reversal_id billing.identifier not null
table reversals 02: kind text not null
table reversals 03: payment_name text
table reversals 04: charge_id text
table reversals 05: refund_id text
table reversals 06: amount bigint not null
table reversals 07: currency text
table reversals 08: charged bigint
table reversals 09: made_at timestamp with time zone
table reversals 10: undone_at timestamp with time zone
table reversals 11: withdrawn_at timestamp with time zone
table reversals 12: reinstated_at timestamp with time zone
table reversals 13: disputed_at timestamp with time zone
table reversals 14: state text not null generated 
CASE
    WHEN ((kind <> 'dispute'::text) AND (undone_at IS NOT NULL)) THEN 'undone'::text
    WHEN (kind <> 'dispute'::text) THEN 'live'::text
    WHEN ((COALESCE(withdrawn_at, disputed_at) IS NULL) AND (reinstated_at IS NULL)) THEN 'inquiry'::text
    WHEN (COALESCE(withdrawn_at, disputed_at) > COALESCE(reinstated_at, '-infinity'::timestamp with time zone)) THEN 'live'::text
    ELSE 'undone'::text
END
table reversals 15: created_at timestamp with time zone not null
table reversals 16: updated_at timestamp with time zone not null
table settings 01: singleton boolean not null default true
table settings 02: livemode boolean not null
table settings 03: stripe_account text
table settings 04: begins_at timestamp with time zone
table settings 05: signup_credits billing.credits not null
table settings 06: reversal_policy billing.reversal_policy not null
table settings 07: no_payment_required text not null
table settings 08: user_namespace uuid
table settings 09: free_plan_key text
table settings 10: free_plan_name text
table settings 11: free_plan_credits billing.credits
table settings 12: free_plan_every interval
table settings 13: low_credits jsonb not null
table settings 14: expiring_days integer
table settings 15: auto_top_up jsonb
table settings 16: loaded_at timestamp with time zone not null
table settings 17: distributed boolean not null default false
table stripe_events 01: event_id billing.identifier not null
table stripe_events 02: type text
table stripe_events 03: created timestamp with time zone
table stripe_events 04: api_version text
table stripe_events 05: livemode boolean
table stripe_events 06: account text
table stripe_events 07: object_id text
table stripe_events 08: customer_id text
table stripe_events 09: payload json not null
table stripe_events 10: fetched json
table stripe_events 11: outcome billing.event_outcome not null
table stripe_events 12: reason text
table stripe_events 13: details jsonb
table stripe_events 14: user_id uuid
table stripe_events 15: attempts billing.counter not null default 1
table stripe_events 16: first_received_at timestamp with time zone not null
table stripe_events 17: last_received_at timestamp with time zone not null
table stripe_events 18: judged_at timestamp with time zone not null
table stripe_events 19: applied_at timestamp with time zone
table subscription_items 01: item_id billing.identifier not null
table subscription_items 02: as_of timestamp with time zone not null
table subscription_items 03: seen_at timestamp with time zone not null
table subscription_items 04: subscription_id billing.identifier not null
table subscription_items 05: price_id text
table subscription_items 06: product_id text
table subscription_items 07: quantity billing.quantity not null
table subscription_items 08: interval interval
table subscription_items 09: metered boolean not null
table subscription_items 10: removed boolean not null
table subscription_items 11: known_at timestamp with time zone not null
table subscription_moves 01: subscription_id billing.identifier not null
table subscription_moves 02: number integer not null
table subscription_moves 03: from_user uuid not null
table subscription_moves 04: to_user uuid not null
table subscription_moves 05: stripe_event_id text
table subscription_moves 06: moved_at timestamp with time zone not null
table subscription_users 01: subscription_id billing.identifier not null
table subscription_users 02: as_of timestamp with time zone not null
table subscription_users 03: source text not null
table subscription_users 04: user_id uuid not null
table subscriptions 01: subscription_id billing.identifier not null
table subscriptions 02: user_id uuid
table subscriptions 03: customer_id text
table subscriptions 04: price_id text
table subscriptions 05: tier text not null
table subscriptions 06: rank integer
table subscriptions 07: catalog_id text
table subscriptions 08: status text not null
table subscriptions 09: quantity bigint not null
table subscriptions 10: current_period_start timestamp with time zone not null
table subscriptions 11: current_period_end timestamp with time zone not null
table subscriptions 12: trial_end timestamp with time zone
table subscriptions 13: cancel_at timestamp with time zone
table subscriptions 14: cancel_at_period_end boolean not null
table subscriptions 15: ended_at timestamp with time zone
table subscriptions 16: as_of timestamp with time zone not null
table subscriptions 17: seen_at timestamp with time zone not null
table subscriptions 18: listed_since timestamp with time zone
table subscriptions 19: known_at timestamp with time zone not null
table subscriptions 20: stripe_event_id text
table subscriptions 21: created_at timestamp with time zone not null
table subscriptions 22: updated_at timestamp with time zone not null
table test_clocks 01: clock_id billing.identifier not null
table test_clocks 02: frozen_time timestamp with time zone
table test_clocks 03: named_time timestamp with time zone
table top_ups 01: user_id uuid not null
table top_ups 02: id billing.ordinal not null
table top_ups 03: pack text not null
table top_ups 04: price_id billing.identifier not null
table top_ups 05: credits billing.credits not null
table top_ups 06: below billing.credits not null
table top_ups 07: state billing.top_up_state not null default 'requested'::text
table top_ups 08: reason text
table top_ups 09: customer_id text
table top_ups 10: payment_intent_id text
table top_ups 11: amount bigint
table top_ups 12: currency text
table top_ups 13: requested_at timestamp with time zone not null
table top_ups 14: attempts integer not null default 0
table top_ups 15: next_attempt_at timestamp with time zone not null
table top_ups 16: ended_at timestamp with time zone
table top_ups 17: last_error text
view billing_fdw.credit_transactions 01: user_id uuid
view billing_fdw.credit_transactions 02: id bigint
view billing_fdw.credit_transactions 03: operation_id bigint
view billing_fdw.credit_transactions 04: transaction_type text
view billing_fdw.credit_transactions 05: amount bigint
view billing_fdw.credit_transactions 06: grant_id bigint
view billing_fdw.credit_transactions 07: pool text
view billing_fdw.credit_transactions 08: balance_after bigint
view billing_fdw.credit_transactions 09: description text
view billing_fdw.credit_transactions 10: metadata jsonb
view billing_fdw.credit_transactions 11: stripe_event_id text
view billing_fdw.credit_transactions 12: stripe_checkout_session_id text
view billing_fdw.credit_transactions 13: stripe_payment_intent_id text
view billing_fdw.credit_transactions 14: stripe_invoice_id text
view billing_fdw.credit_transactions 15: request_id text
view billing_fdw.credit_transactions 16: created_at timestamp with time zone
view billing_fdw.user_credits 01: user_id uuid
view billing_fdw.user_credits 02: subscription_tier text
view billing_fdw.user_credits 03: subscription_status text
view billing_fdw.user_credits 04: credits_balance bigint
view billing_fdw.user_credits 05: subscription_credits_balance bigint
view billing_fdw.user_credits 06: purchased_credits_balance bigint
view billing_fdw.user_credits 07: promotional_credits_balance bigint
view billing_fdw.user_credits 08: monthly_credits_per_cycle bigint
view billing_fdw.user_credits 09: monthly_credits_used bigint
view billing_fdw.user_credits 10: bonus_credits_total bigint
view billing_fdw.user_credits 11: bonus_credits_used bigint
view billing_fdw.user_credits 12: cycle_start_at timestamp with time zone
view billing_fdw.user_credits 13: cycle_end_at timestamp with time zone
view billing_fdw.user_credits 14: debt bigint
view billing_fdw.user_credits 15: stripe_customer_id text
view billing_fdw.user_credits 16: stripe_subscription_id text
view billing_fdw.user_credits 17: stripe_price_id text
view billing_fdw.user_credits 18: version bigint
view billing_fdw.user_payments 01: user_id uuid
view billing_fdw.user_payments 02: source_id text
view billing_fdw.user_payments 03: paid_at timestamp with time zone
view billing_fdw.user_payments 04: amount bigint
view billing_fdw.user_payments 05: currency text
view billing_fdw.user_payments 06: refunded bigint
view billing_fdw.user_payments 07: credits bigint
view billing_fdw.user_payments 08: description text
view user_credits 01: user_id uuid
view user_credits 02: subscription_tier text
view user_credits 03: subscription_status text
view user_credits 04: credits_balance bigint
view user_credits 05: subscription_credits_balance bigint
view user_credits 06: purchased_credits_balance bigint
view user_credits 07: promotional_credits_balance bigint
view user_credits 08: monthly_credits_per_cycle bigint
view user_credits 09: monthly_credits_used bigint
view user_credits 10: bonus_credits_total bigint
view user_credits 11: bonus_credits_used bigint
view user_credits 12: cycle_start_at timestamp with time zone
view user_credits 13: cycle_end_at timestamp with time zone
view user_credits 14: debt bigint
view user_credits 15: stripe_customer_id text
view user_credits 16: stripe_subscription_id text
view user_credits 17: stripe_price_id text
view user_payments 01: user_id uuid
view user_payments 02: source_id text
view user_payments 03: paid_at timestamp with time zone
view user_payments 04: amount bigint
view user_payments 05: currency text
view user_payments 06: refunded bigint
view user_payments 07: credits bigint
view user_payments 08: description text

-- Constraints
billing.accounts: PRIMARY KEY (user_id)
billing.credit_grants: PRIMARY KEY (user_id, id)
billing.credit_grants: UNIQUE (user_id, source_id, item)
billing.credit_transactions: PRIMARY KEY (user_id, id)
billing.cursors: PRIMARY KEY (command)
billing.customer_accounts: PRIMARY KEY (customer_id)
billing.customers: PRIMARY KEY (customer_id)
billing.forgotten_users: PRIMARY KEY (user_id)
billing.invoice_lines: PRIMARY KEY (source_id, line)
billing.outbox: PRIMARY KEY (user_id, id)
billing.payment_names: PRIMARY KEY (name)
billing.payments: PRIMARY KEY (source_id)
billing.price_amounts: PRIMARY KEY (price_id)
billing.prices: CHECK ((cancellation = ANY (ARRAY['keep'::text, 'expire'::text])))
billing.prices: CHECK ((drip > '00:00:00'::interval))
billing.prices: CHECK ((every > '00:00:00'::interval))
billing.prices: CHECK ((expires_after > '00:00:00'::interval))
billing.prices: CHECK ((kind = ANY (ARRAY['plan'::text, 'pack'::text, 'not_credits'::text])))
billing.prices: CHECK ((names = ANY (ARRAY['price'::text, 'product'::text])))
billing.prices: CHECK ((plan_change = ANY (ARRAY['reset'::text, 'keep'::text])))
billing.prices: CHECK ((renewal = ANY (ARRAY['reset'::text, 'rollover'::text])))
billing.prices: PRIMARY KEY (price_id, valid_from)
billing.read_changes: PRIMARY KEY (user_id, id)
billing.repricings: CHECK ((number > 0))
billing.repricings: PRIMARY KEY (number)
billing.reservations: CHECK (((committed >= 0) AND (committed <= amount)))
billing.reservations: CHECK ((amount > 0))
billing.reservations: CHECK ((status = ANY (ARRAY['held'::text, 'committed'::text, 'released'::text, 'expired'::text])))
billing.reservations: PRIMARY KEY (user_id, request_id)
billing.reversals: CHECK ((amount >= 0))
billing.reversals: CHECK ((charged >= 0))
billing.reversals: CHECK ((kind = ANY (ARRAY['refund'::text, 'charge'::text, 'dispute'::text, 'credit_note'::text])))
billing.reversals: PRIMARY KEY (reversal_id)
billing.settings: CHECK ((expiring_days > 0))
billing.settings: CHECK ((no_payment_required = ANY (ARRAY['grant'::text, 'ignore'::text])))
billing.settings: CHECK ((num_nulls(free_plan_key, free_plan_name, free_plan_credits, free_plan_every) = ANY (ARRAY[0, 4])))
billing.settings: CHECK (singleton)
billing.settings: PRIMARY KEY (singleton)
billing.stripe_events: PRIMARY KEY (event_id)
billing.subscription_items: PRIMARY KEY (subscription_id, item_id, as_of)
billing.subscription_moves: CHECK ((number > 0))
billing.subscription_moves: CHECK ((to_user <> from_user))
billing.subscription_moves: PRIMARY KEY (subscription_id, number)
billing.subscription_users: CHECK ((source = ANY (ARRAY['metadata'::text, 'operator'::text])))
billing.subscription_users: PRIMARY KEY (subscription_id, as_of, source)
billing.subscriptions: CHECK (((ended_at IS NOT NULL) = (status = ANY (ARRAY['incomplete_expired'::text, 'canceled'::text]))))
billing.subscriptions: CHECK ((quantity > 0))
billing.subscriptions: CHECK ((status = ANY (ARRAY['incomplete'::text, 'unpaid'::text, 'paused'::text, 'past_due'::text, 'trialing'::text, 'active'::text, 'incomplete_expired'::text, 'canceled'::text])))
billing.subscriptions: PRIMARY KEY (subscription_id)
billing.test_clocks: PRIMARY KEY (clock_id)
billing.top_ups: PRIMARY KEY (user_id, id)
domain billing.counter as integer: CHECK ((VALUE > 0))
domain billing.credits as bigint: CHECK ((VALUE >= 0))
domain billing.event_outcome as text: CHECK ((VALUE = ANY (ARRAY['applied'::text, 'already_applied'::text, 'ignored'::text, 'parked'::text, 'rejected'::text, 'needs_fetch'::text])))
domain billing.evidence as text: CHECK ((VALUE = ANY (ARRAY['payment_intent'::text, 'metadata'::text, 'lines'::text])))
domain billing.identifier as text: CHECK ((VALUE <> ''::text))
domain billing.link_source as text: CHECK ((VALUE = ANY (ARRAY['client_reference'::text, 'snapshot'::text, 'server'::text])))
domain billing.movement as bigint: CHECK ((VALUE <> 0))
domain billing.name_kind as text: CHECK ((VALUE = ANY (ARRAY['checkout_session'::text, 'invoice'::text, 'payment_intent'::text, 'charge'::text])))
domain billing.ordinal as bigint: CHECK ((VALUE > 0))
domain billing.outbox_state as text: CHECK ((VALUE = ANY (ARRAY['pending'::text, 'delivered'::text, 'dead'::text])))
domain billing.outbox_type as text: CHECK ((VALUE = ANY (ARRAY['credits.granted'::text, 'credits.reversed'::text, 'credits.low'::text, 'credits.exhausted'::text, 'credits.expiring'::text, 'subscription.changed'::text, 'payment.parked'::text, 'payment.applied_late'::text, 'top_up.requested'::text, 'top_up.succeeded'::text, 'top_up.failed'::text, 'top_up.canceled'::text, 'top_up.refused'::text])))
domain billing.pool as text: CHECK ((VALUE = ANY (ARRAY['subscription'::text, 'purchased'::text, 'promotional'::text])))
domain billing.quantity as bigint: CHECK ((VALUE >= 0))
domain billing.reversal_policy as text: CHECK ((VALUE = ANY (ARRAY['debt'::text, 'forgive'::text])))
domain billing.source_type as text: CHECK ((VALUE = ANY (ARRAY['checkout_session'::text, 'invoice'::text, 'payment_intent'::text, 'direct_call'::text])))
domain billing.top_up_state as text: CHECK ((VALUE = ANY (ARRAY['requested'::text, 'paid'::text, 'succeeded'::text, 'failed'::text, 'canceled'::text])))
domain billing.top_up_switch as text: CHECK ((VALUE = ANY (ARRAY['off'::text, 'on'::text, 'paused'::text])))
domain billing.transaction_type as text: CHECK ((VALUE = ANY (ARRAY['purchase'::text, 'subscription_grant'::text, 'signup'::text, 'bonus'::text, 'grant'::text, 'spend'::text, 'reservation'::text, 'release'::text, 'expiry'::text, 'set_aside'::text, 'restore'::text, 'reversal'::text, 'reinstatement'::text, 'debt_settlement'::text, 'spend_refund'::text, 'adjustment'::text, 'import'::text, 'transfer'::text])))

-- Indexes
CREATE INDEX accounts_due ON billing.accounts USING btree (next_due_at) WHERE (next_due_at IS NOT NULL)
CREATE INDEX accounts_mirror_due ON billing.accounts USING btree (mirror_due_since) WHERE (mirror_due_since IS NOT NULL)
CREATE INDEX accounts_test_clock ON billing.accounts USING btree (test_clock) WHERE (test_clock IS NOT NULL)
CREATE INDEX credit_grants_debt ON billing.credit_grants USING btree (user_id) WHERE (((owed)::bigint > 0) OR ((settled)::bigint > 0))
CREATE INDEX credit_grants_draw ON billing.credit_grants USING btree (user_id, priority_at, draw_rank, id) WHERE spendable
CREATE INDEX credit_grants_expiring ON billing.credit_grants USING btree (expires_at) WHERE (spendable AND (expires_at IS DISTINCT FROM told_expires_at) AND ((source_id)::text <> 'free_plan'::text))
CREATE INDEX credit_grants_moved ON billing.credit_grants USING btree (moved_with) WHERE (moved_with IS NOT NULL)
CREATE INDEX credit_grants_periods ON billing.credit_grants USING btree (user_id, matters_until) WHERE (matters_until IS NOT NULL)
CREATE INDEX credit_transactions_created ON billing.credit_transactions USING brin (created_at) WITH (autosummarize='on')
CREATE INDEX credit_transactions_invoice ON billing.credit_transactions USING btree (stripe_invoice_id) WHERE (stripe_invoice_id IS NOT NULL)
CREATE INDEX credit_transactions_request ON billing.credit_transactions USING btree (user_id, request_id) WHERE (request_id IS NOT NULL)
CREATE INDEX credit_transactions_session ON billing.credit_transactions USING btree (stripe_checkout_session_id) WHERE (stripe_checkout_session_id IS NOT NULL)
CREATE INDEX credit_transactions_spend_refunds ON billing.credit_transactions USING btree (user_id, ((metadata ->> 'spend_request_id'::text))) WHERE ((transaction_type)::text = 'spend_refund'::text)
CREATE INDEX customer_accounts_account ON billing.customer_accounts USING btree (account_id)
CREATE INDEX customers_user ON billing.customers USING btree (user_id)
CREATE INDEX invoice_lines_periods ON billing.invoice_lines USING btree (user_id, period_end)
CREATE INDEX invoice_lines_purchases ON billing.invoice_lines USING btree (user_id, paid_at, source_id) WHERE ((subscription_id IS NOT NULL) AND (NOT metered) AND (NOT names_credited) AND (amount > discount))
CREATE INDEX invoice_lines_subscription ON billing.invoice_lines USING btree (subscription_id, period_start)
CREATE INDEX invoice_lines_trials ON billing.invoice_lines USING btree (user_id, period_start) WHERE ((subscription_id IS NOT NULL) AND (NOT metered) AND (NOT names_credited) AND (NOT proration) AND (amount = 0))
CREATE INDEX outbox_created ON billing.outbox USING btree (created_at)
CREATE INDEX outbox_dead ON billing.outbox USING btree (ended_at) WHERE ((state)::text = 'dead'::text)
CREATE INDEX outbox_due ON billing.outbox USING btree (next_attempt_at) WHERE ((state)::text = 'pending'::text)
CREATE INDEX outbox_pending ON billing.outbox USING btree (user_id, id) WHERE ((state)::text = 'pending'::text)
CREATE INDEX payment_names_source ON billing.payment_names USING btree (source_id)
CREATE INDEX payments_user ON billing.payments USING btree (user_id, paid_at)
CREATE INDEX reservations_held ON billing.reservations USING btree (user_id, expires_at) WHERE (status = 'held'::text)
CREATE INDEX reversals_payment ON billing.reversals USING btree (payment_name)
CREATE INDEX stripe_events_object ON billing.stripe_events USING btree (object_id)
CREATE INDEX stripe_events_parked_customer ON billing.stripe_events USING btree (customer_id, created, event_id) WHERE (((outcome)::text = 'parked'::text) AND (customer_id IS NOT NULL))
CREATE INDEX stripe_events_received ON billing.stripe_events USING brin (first_received_at) WITH (autosummarize='on')
CREATE INDEX stripe_events_waiting ON billing.stripe_events USING btree (judged_at) WHERE (((outcome)::text = ANY (ARRAY['parked'::text, 'needs_fetch'::text])) AND (judged_at IS NOT NULL))
CREATE INDEX subscription_items_metered ON billing.subscription_items USING btree (price_id) WHERE metered
CREATE INDEX subscription_items_removed ON billing.subscription_items USING btree (subscription_id, item_id) WHERE removed
CREATE INDEX subscription_items_seen ON billing.subscription_items USING btree (subscription_id, item_id, seen_at, as_of)
CREATE INDEX subscription_moves_from ON billing.subscription_moves USING btree (from_user)
CREATE INDEX subscription_moves_to ON billing.subscription_moves USING btree (to_user)
CREATE INDEX subscriptions_customer ON billing.subscriptions USING btree (customer_id)
CREATE INDEX subscriptions_user ON billing.subscriptions USING btree (user_id)
CREATE INDEX top_ups_due ON billing.top_ups USING btree (next_attempt_at) WHERE ((state)::text = 'requested'::text)
CREATE UNIQUE INDEX accounts_pkey ON billing.accounts USING btree (user_id)
CREATE UNIQUE INDEX credit_grants_pkey ON billing.credit_grants USING btree (user_id, id)
CREATE UNIQUE INDEX credit_grants_user_id_source_id_item_key ON billing.credit_grants USING btree (user_id, source_id, item)
CREATE UNIQUE INDEX credit_transactions_pkey ON billing.credit_transactions USING btree (user_id, id)
CREATE UNIQUE INDEX cursors_pkey ON billing.cursors USING btree (command)
CREATE UNIQUE INDEX customer_accounts_pkey ON billing.customer_accounts USING btree (customer_id)
CREATE UNIQUE INDEX customers_pkey ON billing.customers USING btree (customer_id)
CREATE UNIQUE INDEX forgotten_users_pkey ON billing.forgotten_users USING btree (user_id)
CREATE UNIQUE INDEX invoice_lines_pkey ON billing.invoice_lines USING btree (source_id, line)
CREATE UNIQUE INDEX outbox_pkey ON billing.outbox USING btree (user_id, id)
CREATE UNIQUE INDEX payment_names_pkey ON billing.payment_names USING btree (name)
CREATE UNIQUE INDEX payments_pkey ON billing.payments USING btree (source_id)
CREATE UNIQUE INDEX price_amounts_pkey ON billing.price_amounts USING btree (price_id)
CREATE UNIQUE INDEX prices_pkey ON billing.prices USING btree (price_id, valid_from)
CREATE UNIQUE INDEX read_changes_pkey ON billing.read_changes USING btree (user_id, id)
CREATE UNIQUE INDEX repricings_pkey ON billing.repricings USING btree (number)
CREATE UNIQUE INDEX reservations_pkey ON billing.reservations USING btree (user_id, request_id)
CREATE UNIQUE INDEX reversals_pkey ON billing.reversals USING btree (reversal_id)
CREATE UNIQUE INDEX settings_pkey ON billing.settings USING btree (singleton)
CREATE UNIQUE INDEX stripe_events_pkey ON billing.stripe_events USING btree (event_id)
CREATE UNIQUE INDEX subscription_items_pkey ON billing.subscription_items USING btree (subscription_id, item_id, as_of)
CREATE UNIQUE INDEX subscription_moves_pkey ON billing.subscription_moves USING btree (subscription_id, number)
CREATE UNIQUE INDEX subscription_users_pkey ON billing.subscription_users USING btree (subscription_id, as_of, source)
CREATE UNIQUE INDEX subscriptions_pkey ON billing.subscriptions USING btree (subscription_id)
CREATE UNIQUE INDEX test_clocks_pkey ON billing.test_clocks USING btree (clock_id)
CREATE UNIQUE INDEX top_ups_open ON billing.top_ups USING btree (user_id) WHERE ((state)::text = ANY (ARRAY['requested'::text, 'paid'::text]))
CREATE UNIQUE INDEX top_ups_pkey ON billing.top_ups USING btree (user_id, id)

-- Triggers
billing.credit_transactions: CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON billing.credit_transactions FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_ledger_change() (A)
billing.credit_transactions: CREATE TRIGGER append_only_rows BEFORE DELETE OR UPDATE ON billing.credit_transactions FOR EACH ROW EXECUTE FUNCTION billing.refuse_ledger_change() (A)
billing.forgotten_users: CREATE TRIGGER kept_table_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON billing.forgotten_users FOR EACH STATEMENT EXECUTE FUNCTION billing.kept_table_changed() (A)
billing.prices: CREATE TRIGGER kept_table_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON billing.prices FOR EACH STATEMENT EXECUTE FUNCTION billing.kept_table_changed() (A)
billing.settings: CREATE TRIGGER kept_table_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON billing.settings FOR EACH STATEMENT EXECUTE FUNCTION billing.kept_table_changed() (A)
event trigger stripe_credits_drop_guard on ddl_command_start  (A)
event trigger stripe_credits_rewrite_guard on table_rewrite  (A)

-- Row level security
accounts policy readers: SELECT to {public} using ((( SELECT billing.current_user_id() AS current_user_id) = user_id) OR ( SELECT billing.is_service() AS is_service)) check none
accounts: t
credit_grants policy readers: SELECT to {public} using ((( SELECT billing.current_user_id() AS current_user_id) = user_id) OR ( SELECT billing.is_service() AS is_service)) check none
credit_grants: t
credit_transactions policy readers: SELECT to {public} using ((( SELECT billing.current_user_id() AS current_user_id) = user_id) OR ( SELECT billing.is_service() AS is_service)) check none
credit_transactions: t
cursors policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
cursors: t
customer_accounts policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
customer_accounts: t
customers policy readers: SELECT to {public} using ((( SELECT billing.current_user_id() AS current_user_id) = user_id) OR ( SELECT billing.is_service() AS is_service)) check none
customers: t
forgotten_users policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
forgotten_users: t
invoice_lines policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
invoice_lines: t
outbox policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
outbox: t
payment_names policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
payment_names: t
payments policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
payments: t
price_amounts policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
price_amounts: t
prices policy readers: SELECT to {public} using true check none
prices: t
read_changes policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
read_changes: t
repricings policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
repricings: t
reservations policy readers: SELECT to {public} using ((( SELECT billing.current_user_id() AS current_user_id) = user_id) OR ( SELECT billing.is_service() AS is_service)) check none
reservations: t
reversals policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
reversals: t
settings policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
settings: t
stripe_events policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
stripe_events: t
subscription_items policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
subscription_items: t
subscription_moves policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
subscription_moves: t
subscription_users policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
subscription_users: t
subscriptions policy readers: SELECT to {public} using ((( SELECT billing.current_user_id() AS current_user_id) = user_id) OR ( SELECT billing.is_service() AS is_service)) check none
subscriptions: t
test_clocks policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
test_clocks: t
top_ups policy readers: SELECT to {public} using ( SELECT billing.is_service() AS is_service) check none
top_ups: t

-- Options
billing.accounts: {fillfactor=80}
billing.credit_grants: {fillfactor=80}
billing.outbox: {fillfactor=80}
billing.top_ups: {fillfactor=80}
billing.user_credits: {security_invoker=true}
billing.user_payments: {security_invoker=true}
billing_fdw.credit_transactions: {security_invoker=true}
billing_fdw.user_credits: {security_invoker=true}
billing_fdw.user_payments: {security_invoker=true}

-- Grants
billing.access_faults(): EXECUTE to stripe_credits_owner
billing.access_rights(): EXECUTE to stripe_credits_owner
billing.account_time(text): EXECUTE to authenticated
billing.account_time(text): EXECUTE to service_role
billing.accounts: SELECT to authenticated
billing.accounts: SELECT to service_role
billing.adjust_credits(uuid,bigint,text,text,text): EXECUTE to service_role
billing.admin_apply_stripe_credit_pack_purchase(uuid,bigint,text,text,text,text,text,text): EXECUTE to service_role
billing.apply_stripe_credit_pack_purchase(uuid,bigint,text,text,text,text,text,text): EXECUTE to service_role
billing.apply_stripe_event(jsonb,jsonb): EXECUTE to service_role
billing.apply_stripe_event_text(text,jsonb): EXECUTE to service_role
billing.apply_stripe_events(text[]): EXECUTE to service_role
billing.apply_stripe_subscription_state(uuid,text,text,text,text,timestamp with time zone,timestamp with time zone,text,text,boolean): EXECUTE to service_role
billing.apply_subscription_state(uuid,text,text,text,text,timestamp with time zone,timestamp with time zone,text,text,boolean,text,boolean): EXECUTE to service_role
billing.assert_known_price(text): EXECUTE to service_role
billing.attribute(text,uuid): EXECUTE to service_role
billing.balance_at(uuid,timestamp with time zone): EXECUTE to service_role
billing.balance_faults(): EXECUTE to service_role
billing.balances_by(uuid,timestamp with time zone): EXECUTE to authenticated
billing.balances_by(uuid,timestamp with time zone): EXECUTE to service_role
billing.balances_by(uuid,timestamp with time zone): EXECUTE to stripe_credits_owner
billing.chain_faults(): EXECUTE to service_role
billing.claim_outbox(integer,interval): EXECUTE to service_role
billing.claim_top_ups(boolean,integer,interval): EXECUTE to service_role
billing.commit_reservation(uuid,text,bigint): EXECUTE to service_role
billing.credit_grants: SELECT to authenticated
billing.credit_grants: SELECT to service_role
billing.credit_system_metrics(interval): EXECUTE to service_role
billing.credit_transactions: SELECT to authenticated
billing.credit_transactions: SELECT to service_role
billing.current_user_id(): EXECUTE to authenticated
billing.current_user_id(): EXECUTE to service_role
billing.cursors: SELECT to service_role
billing.customer_accounts: SELECT to service_role
billing.customers: SELECT to authenticated
billing.customers: SELECT to service_role
billing.explain_checkout_session(text): EXECUTE to service_role
billing.explain_event(jsonb,jsonb): EXECUTE to service_role
billing.explain_id(text): EXECUTE to service_role
billing.explain_user(uuid): EXECUTE to service_role
billing.explain_waiting(integer): EXECUTE to service_role
billing.find_users(text): EXECUTE to service_role
billing.finish_outbox(uuid,bigint,integer,text,interval): EXECUTE to service_role
billing.finish_top_up(uuid,bigint,text,text,text): EXECUTE to service_role
billing.forget_user(uuid): EXECUTE to service_role
billing.forgotten_users: SELECT to service_role
billing.free_plan(): EXECUTE to authenticated
billing.free_plan(): EXECUTE to service_role
billing.grant_access(regrole,regrole): EXECUTE to stripe_credits_owner
billing.grant_credits(uuid,bigint,text,text,timestamp with time zone): EXECUTE to service_role
billing.grant_faults(): EXECUTE to service_role
billing.grant_signup_credits(uuid): EXECUTE to service_role
billing.guard_drop(): EXECUTE to stripe_credits_owner
billing.import_balance(uuid,text,bigint,text,timestamp with time zone): EXECUTE to service_role
billing.installed_state(): EXECUTE to stripe_credits_owner
billing.invoice_lines: SELECT to service_role
billing.is_service(): EXECUTE to authenticated
billing.is_service(): EXECUTE to service_role
billing.is_service(): EXECUTE to stripe_credits_owner
billing.kept_table_changed(): EXECUTE to stripe_credits_owner
billing.ledger_faults(): EXECUTE to service_role
billing.load_catalog(jsonb): EXECUTE to service_role
billing.lots_by(uuid,timestamp with time zone): EXECUTE to authenticated
billing.lots_by(uuid,timestamp with time zone): EXECUTE to service_role
billing.lots_by(uuid,timestamp with time zone): EXECUTE to stripe_credits_owner
billing.mark_mirrored(uuid[],bigint[]): EXECUTE to service_role
billing.mirror_again(uuid[]): EXECUTE to service_role
billing.mirror_rows(uuid[],integer): EXECUTE to service_role
billing.move_cursor(text,jsonb): EXECUTE to service_role
billing.my_credits(): EXECUTE to authenticated
billing.my_credits(): EXECUTE to service_role
billing.my_payments(integer,timestamp with time zone): EXECUTE to authenticated
billing.my_payments(integer,timestamp with time zone): EXECUTE to service_role
billing.my_transactions(integer,bigint): EXECUTE to authenticated
billing.my_transactions(integer,bigint): EXECUTE to service_role
billing.name_payment_intent(uuid,bigint,text,text,bigint,text): EXECUTE to service_role
billing.older_answer(billing.outcome): EXECUTE to stripe_credits_owner
billing.outbox: SELECT to service_role
billing.outbox_faults(): EXECUTE to service_role
billing.owner_role_faults(): EXECUTE to stripe_credits_owner
billing.payment_faults(): EXECUTE to service_role
billing.payment_lines(text): EXECUTE to service_role
billing.payment_names: SELECT to service_role
billing.payments: SELECT to service_role
billing.present_state(): EXECUTE to stripe_credits_owner
billing.price_amounts: SELECT to service_role
billing.prices: SELECT to authenticated
billing.prices: SELECT to service_role
billing.prune_stripe_events(interval): EXECUTE to service_role
billing.read_changes: SELECT to service_role
billing.reconcile_checkout_session(jsonb,uuid,timestamp with time zone): EXECUTE to service_role
billing.refund_spend(uuid,text,text,bigint,text,text): EXECUTE to service_role
billing.refuse_ledger_change(): EXECUTE to stripe_credits_owner
billing.release_reservation(uuid,text): EXECUTE to service_role
billing.replay_outbox(uuid,bigint): EXECUTE to service_role
billing.repricings: SELECT to service_role
billing.require_given(anyelement,text): EXECUTE to stripe_credits_owner
billing.require_named(text,text): EXECUTE to stripe_credits_owner
billing.require_not_negative(anyelement,text): EXECUTE to stripe_credits_owner
billing.require_positive(anyelement,text): EXECUTE to stripe_credits_owner
billing.reservation_faults(): EXECUTE to service_role
billing.reservations: SELECT to authenticated
billing.reservations: SELECT to service_role
billing.reserve_credits(uuid,bigint,text,interval,text): EXECUTE to service_role
billing.resolve_price(text,timestamp with time zone): EXECUTE to service_role
billing.retry_due(integer): EXECUTE to service_role
billing.retry_parked(integer): EXECUTE to service_role
billing.retry_top_up(uuid,bigint,integer,text,interval): EXECUTE to service_role
billing.reversals: SELECT to service_role
billing.run_due(integer): EXECUTE to service_role
billing.secure_installation(): EXECUTE to stripe_credits_owner
billing.security_selfcheck(): EXECUTE to service_role
billing.set_auto_top_up(uuid,boolean): EXECUTE to service_role
billing.set_rights(oid[],oid[]): EXECUTE to stripe_credits_owner
billing.settings: SELECT to service_role
billing.spend_credits(uuid,bigint,text,text,jsonb): EXECUTE to service_role
billing.store_price_amounts(jsonb): EXECUTE to service_role
billing.stripe_events: SELECT to service_role
billing.subscription_items: SELECT to service_role
billing.subscription_moves: SELECT to service_role
billing.subscription_users: SELECT to service_role
billing.subscriptions: SELECT to authenticated
billing.subscriptions: SELECT to service_role
billing.surroundings_faults(): EXECUTE to stripe_credits_owner
billing.sync_user_credits(uuid): EXECUTE to service_role
billing.test_clocks: SELECT to service_role
billing.top_up_faults(): EXECUTE to service_role
billing.top_ups: SELECT to service_role
billing.user_credits: SELECT to authenticated
billing.user_credits: SELECT to service_role
billing.user_id(text): EXECUTE to service_role
billing.user_payments: SELECT to service_role
billing.validate_credits_consistency(): EXECUTE to service_role
billing.worth_faults(): EXECUTE to service_role
billing_fdw.credit_transactions: SELECT to service_role
billing_fdw.user_credits: SELECT to service_role
billing_fdw.user_payments: SELECT to service_role
schema billing: USAGE to authenticated
schema billing: USAGE to service_role
schema billing: USAGE to stripe_credits_owner
schema billing_fdw: USAGE to service_role
schema billing_fdw: USAGE to stripe_credits_owner

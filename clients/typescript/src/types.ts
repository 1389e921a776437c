/**
 * What the shim and the SQL functions answer, in their own names. openapi.yaml and the comments in the database
 * describe each field.
 */

/** What became of a call. */
export const OUTCOMES = ['applied', 'already_applied', 'ignored', 'parked', 'rejected', 'needs_fetch'] as const;
export type OutcomeName = (typeof OUTCOMES)[number];

/** Why something was ignored, parked or rejected. */
export const REASONS = [
  'livemode',
  'account',
  'before_books',
  'event_type',
  'mode',
  'unpaid',
  'payment_failed',
  'expired',
  'no_payment_required',
  'no_subscription',
  'stale',
  'nothing_billed',
  'nothing_named',
  'not_credits',
  'nothing_paid',
  'unknown_payment',
  'no_catalog',
  'unknown_price',
  'unknown_user',
  'identity_conflict',
  'unknown_charge',
  'unfetched',
  'shape',
  'malformed',
  'conflict',
  'not_owner',
  'no_owner',
  'out_of_range',
  'insufficient_credits',
  'unknown_spend',
  'exceeds_spend',
  'unknown_reservation',
  'reservation_ended',
  'exceeds_reservation',
  'no_auto_top_up',
  'no_customer',
] as const;
export type Reason = (typeof REASONS)[number];

/** Where credits come from: a plan, a purchase, or a gift. */
export type Pool = 'subscription' | 'purchased' | 'promotional';

/** The key of a plan of the catalog, or `free`. An app names its plans: `Tier<'pro' | 'max'>`. */
export type Tier<Plan extends string = string> = 'free' | Plan;

/** The state of the subscription that determines the tier. */
export type SubscriptionStatus =
  | 'none'
  | 'incomplete'
  | 'unpaid'
  | 'paused'
  | 'past_due'
  | 'trialing'
  | 'active'
  | 'incomplete_expired'
  | 'canceled';

/** The balances after a call; absent or null without an account. */
export interface Balances<Plan extends string = string> {
  user_id?: string | null;
  /** The net change of the balance less the debt. */
  credits?: number | null;
  remaining_subscription?: number | null;
  remaining_purchased?: number | null;
  remaining_promotional?: number | null;
  remaining_total?: number | null;
  debt?: number | null;
  tier?: Tier<Plan> | null;
  subscription_status?: SubscriptionStatus | null;
  to_fetch?: string[] | null;
  /** Postings, prices, discrepancies; not for an app's user. */
  details?: Details | null;
}

/** One change of one grant. */
export interface Posting {
  pool: Pool;
  amount: number;
  grant_id: number;
  transaction_id: number;
  transaction_type: string;
}

export interface Details {
  postings?: Posting[];
  price_ids?: string[];
  [other: string]: unknown;
}

/** A row of `billing.outcome`. */
export type Outcome<Plan extends string = string> = Balances<Plan> &
  (
    | { ok: true; outcome: 'applied' | 'already_applied'; already_applied: boolean; reason?: null }
    | { ok: false; outcome: 'ignored' | 'parked' | 'rejected'; already_applied: false; reason: Reason }
    | { ok: false; outcome: 'needs_fetch'; already_applied: false; reason?: null }
  );

/** The row of `billing.my_credits()`. While `debt` is above 0, the balance is 0. */
export interface Credits<Plan extends string = string> {
  user_id: string;
  subscription_tier: Tier<Plan>;
  subscription_status: SubscriptionStatus;
  credits_balance: number;
  subscription_credits_balance: number;
  purchased_credits_balance: number;
  promotional_credits_balance: number;
  monthly_credits_per_cycle: number;
  monthly_credits_used: number;
  bonus_credits_total: number;
  bonus_credits_used: number;
  cycle_start_at: string | null;
  cycle_end_at: string | null;
  debt: number;
  stripe_customer_id: string | null;
  stripe_subscription_id: string | null;
  stripe_price_id: string | null;
}

/** What a price costs at Stripe, to be shown. */
export interface PriceAmount {
  price_id: string;
  currency: string | null;
  /** In the currency's smallest unit; null if one number does not say it, as for tiers. */
  unit_amount: number | null;
  /** Null if it is sold once. */
  interval: 'day' | 'week' | 'month' | 'year' | null;
  interval_count: number | null;
}

/** A plan or a pack on sale. */
export interface Pack {
  key: string;
  name: string | null;
  credits: number;
  prices: string[];
  /** Of those of the prices whose amount is known. */
  amounts: PriceAmount[];
}

export interface Plan extends Pack {
  /** Of several plans of a user, the highest names the tier. */
  rank: number;
}

/** What is on sale. */
export interface Catalog {
  plans: Plan[];
  packs: Pack[];
}

/**
 * The SQL functions by supabase-js: its `Database` type for schema `billing`.
 *
 * ```ts
 * const supabase = createClient<Database, 'billing'>(url, key, { db: { schema: 'billing' } });
 * const { data } = await supabase.rpc('my_credits').single();
 * ```
 *
 * Signed-in users may call the functions that begin with `my_`, and `service_role` all of them.
 */

import type { Credits, Outcome, Pool } from './types.js';

export * from './types.js';

type Json = string | number | boolean | null | Json[] | { [key: string]: Json | undefined };

/** A row of the ledger. */
export interface Transaction {
  user_id: string;
  id: number;
  operation_id: number;
  transaction_type: string;
  amount: number;
  grant_id: number | null;
  pool: Pool | null;
  balance_after: number;
  description: string | null;
  request_id: string | null;
  created_at: string;
  [column: string]: unknown;
}

/** A payment of a user; amounts in the currency's smallest unit. */
export interface Payment {
  source_id: string;
  paid_at: string;
  amount: number | null;
  currency: string | null;
  refunded: number;
  credits: number;
  description: string | null;
}

type User = { p_user_id: string };
type Named = User & { p_request_id: string };

/** For `createClient<Database, 'billing'>`; with the keys of the app's plans, `Database<'pro' | 'max'>`. */
export type Database<Plan extends string = string> = {
  billing: {
    Tables: Record<never, never>;
    Views: Record<never, never>;
    Functions: {
      my_credits: { Args: Record<never, never>; Returns: Credits<Plan>[] };
      my_transactions: { Args: { p_limit?: number; p_before?: number }; Returns: Transaction[] };
      my_payments: { Args: { p_limit?: number; p_before?: string }; Returns: Payment[] };
      spend_credits: {
        Args: Named & { p_amount: number; p_description?: string; p_metadata?: Json };
        Returns: Outcome<Plan>;
      };
      reserve_credits: {
        /** `p_ttl` is an interval, such as `15 minutes`. */
        Args: Named & { p_amount: number; p_ttl?: string; p_description?: string };
        Returns: Outcome<Plan>;
      };
      commit_reservation: { Args: Named & { p_amount?: number }; Returns: Outcome<Plan> };
      release_reservation: { Args: Named; Returns: Outcome<Plan> };
      refund_spend: { Args: Named & { p_spend_request_id: string; p_amount?: number }; Returns: Outcome<Plan> };
      grant_credits: {
        Args: Named & { p_amount: number; p_description?: string; p_expires_at?: string };
        Returns: Outcome<Plan>;
      };
      grant_signup_credits: { Args: User; Returns: Outcome<Plan> };
      adjust_credits: { Args: Named & { p_amount: number; p_reason: string }; Returns: Outcome<Plan> };
      import_balance: {
        Args: User & { p_pool: Pool; p_amount: number; p_source: string; p_expires_at?: string };
        Returns: Outcome<Plan>;
      };
      set_auto_top_up: { Args: User & { p_enabled: boolean }; Returns: Outcome<Plan> };
      attribute: { Args: User & { p_stripe_id: string }; Returns: Outcome<Plan> };
      user_id: { Args: { p_external: string }; Returns: string | null };
    };
    Enums: Record<never, never>;
    CompositeTypes: Record<never, never>;
  };
};

/**
 * The routes for an app's users: checkout, reconcile, credits, events, changes of plan, and the return flow.
 *
 * Also for a server that acts for one user, with that user's token.
 */

import { streamEvents, type CreditEvent, type EventOptions } from './events.js';
import { ask, type Connection, StripeCreditsError } from './http.js';
import type { Catalog, Credits, Outcome } from './types.js';

export { type CreditEvent, type EventData, type EventOptions, type EventType } from './events.js';
export { StripeCreditsError, type Step } from './http.js';
export { followReturn, type ReturnOptions, type ReturnOutcome } from './return-flow.js';
export * from './types.js';

export interface BrowserOptions extends Connection {
  /** The user's token, renewed where it has to be; null for nobody. */
  getToken: () => Promise<string | null>;
}

export interface Choice {
  price_id: string;
  /** 1 by default. */
  quantity?: number;
}

export interface Change extends Choice {
  /** The preview's, so that the invoice is prorated as it was shown. */
  proration_date?: number;
}

/** What a change of plan does. Times are in Unix seconds, amounts in the currency's smallest unit. */
export interface ChangeEffect {
  price_id: string;
  quantity: number;
  direction: 'up' | 'down' | 'none';
  /** The change of the balance. */
  credits_now: number;
  credits_after: number;
  debt_after: number;
  takes_effect_at: number | null;
  billed_at: number | null;
}

export interface ChangePreview extends ChangeEffect {
  ok: true;
  proration_date?: number;
  currency: string | null;
  subtotal: number;
  total: number;
  amount_due: number;
  lines: { description: string | null; amount: number }[];
}

export interface ChangeResult extends ChangeEffect {
  /** False for `payment_required`. */
  ok: boolean;
  status: 'changed' | 'unchanged' | 'payment_required' | 'scheduled';
  subscription_id: string;
  /** Where the buyer can complete the payment. */
  hosted_invoice_url: string | null;
}

export interface Cancellation {
  ok: true;
  subscription_id: string;
  cancel_at_period_end: boolean;
  cancel_at: number | null;
}

/** Calls the routes for an app's users. What is not answered with 200 throws {@link StripeCreditsError}. */
export class BrowserClient<Plan extends string = string> {
  readonly #options: BrowserOptions;

  constructor(options: BrowserOptions) {
    this.#options = options;
  }

  /** What is on sale; needs no user. */
  catalog(): Promise<Catalog> {
    return this.#ask('GET', '/catalog', undefined, null);
  }

  /** The user's tier and balances. */
  credits(): Promise<Credits<Plan>> {
    return this.#ask('GET', '/credits');
  }

  /** Opens a checkout; send the buyer to `url`. The same key, user and choice open one checkout only. */
  checkout(choice: Choice, idempotencyKey?: string): Promise<{ ok: true; session_id: string; url: string }> {
    const headers = idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey };
    return this.#ask('POST', '/checkout', choice, undefined, headers);
  }

  /** Applies a pack's checkout when its buyer comes back; `followReturn` does it with all that can happen. */
  reconcilePack(sessionId: string): Promise<Outcome<Plan>> {
    return this.#ask('POST', '/reconcile-stripe-credit-pack', { session_id: sessionId });
  }

  /** The same for a plan. */
  reconcilePlan(sessionId: string): Promise<Outcome<Plan>> {
    return this.#ask('POST', '/reconcile-stripe-checkout', { session_id: sessionId });
  }

  /** What a change of plan would do and cost now. */
  previewChange(choice: Choice): Promise<ChangePreview> {
    return this.#ask('POST', '/subscription/preview-change', choice);
  }

  /** Changes the plan or the quantity. */
  change(change: Change): Promise<ChangeResult> {
    return this.#ask('POST', '/subscription/change', change);
  }

  /** Cancels the subscription at the end of its period. */
  cancel(): Promise<Cancellation> {
    return this.#ask('POST', '/subscription/cancel', {});
  }

  /** Opens Stripe's page for invoices and cards. */
  portal(): Promise<{ ok: true; url: string }> {
    return this.#ask('POST', '/portal', {});
  }

  /** What happens to the user's credits, as it happens, without an end. */
  events(options?: EventOptions): AsyncGenerator<CreditEvent, void, undefined> {
    return streamEvents(this.#options, this.#options.getToken, options);
  }

  async #ask<T>(
    method: string,
    path: string,
    body?: unknown,
    token?: null,
    headers: Record<string, string> = {},
  ): Promise<T> {
    const bearer = token === null ? null : await this.#options.getToken();
    const answer = await ask(this.#options, bearer, method, path, body, headers);
    if (answer.status !== 200) throw new StripeCreditsError(`${method} ${path}`, answer);
    return answer.body as T;
  }
}

/**
 * The service routes, for an app's own servers: spend, reserve, commit, release, refund, grant, and read.
 *
 * Every call is the same call as long as its `request_id` is the same, so that it can be sent again after any failure;
 * the client does so itself while the shim is unavailable.
 */

import { type Answer, ask, type Connection, sleep, StripeCreditsError } from './http.js';
import type { Credits, Outcome } from './types.js';

export { StripeCreditsError, type Step } from './http.js';
export * from './types.js';

/** How often a call is sent again that was not answered or answered with 503. */
const MAX_RETRIES = 3;
/** How long to wait before the first of these, in milliseconds; twice as long before each further one. */
const RETRY_MS = 250;
/** The longest wait that Retry-After may ask for, in milliseconds: a caller is waiting too. */
const MAX_WAIT_MS = 2_000;

export interface ServiceOptions extends Connection {
  /** One of the shim's `SERVICE_TOKEN`. */
  token: string;
}

/** Whose credits, and what makes the call the same as an earlier one. */
interface Call {
  /** A UUID, or with the catalog's `user_namespace` any text. */
  user: string;
  request_id: string;
}

export interface SpendCall extends Call {
  amount: number;
  description?: string;
  /** Kept with the ledger rows. */
  metadata?: Record<string, unknown>;
}

export interface ReserveCall extends Call {
  amount: number;
  /** The reservation returns after this time unless it is committed; 900 by default. */
  ttl_seconds?: number;
  description?: string;
}

export interface CommitCall extends Call {
  /** All of the reservation by default. */
  amount?: number;
}

export type ReleaseCall = Call;

export interface RefundCall extends Call {
  spend_request_id: string;
  /** All that was not given back by default. */
  amount?: number;
  /** The description of the ledger's rows. */
  reason?: string;
}

export interface GrantCall extends Call {
  amount: number;
  description?: string;
  /** ISO 8601 with a time zone; never by default. */
  expires_at?: string;
}

/**
 * Calls the service routes. Too few credits is an outcome (`ok` false), not an error; what is wrong in itself, a wrong
 * token and a shim that stays unavailable throw {@link StripeCreditsError}.
 */
export class ServiceClient<Plan extends string = string> {
  readonly #options: ServiceOptions;

  constructor(options: ServiceOptions) {
    this.#options = options;
  }

  /** Spends credits. */
  spend(call: SpendCall): Promise<Outcome<Plan>> {
    return this.#call('spend', call);
  }

  /** Reserves credits for a job that may fail. */
  reserve(call: ReserveCall): Promise<Outcome<Plan>> {
    return this.#call('reserve', call);
  }

  /** Ends a reservation with all or part of it spent. */
  commit(call: CommitCall): Promise<Outcome<Plan>> {
    return this.#call('commit', call);
  }

  /** Ends a reservation with nothing of it spent. */
  release(call: ReleaseCall): Promise<Outcome<Plan>> {
    return this.#call('release', call);
  }

  /** Gives back all or part of what a spend drew. */
  refund(call: RefundCall): Promise<Outcome<Plan>> {
    return this.#call('refund', call);
  }

  /** Grants promotional credits. */
  grant(call: GrantCall): Promise<Outcome<Plan>> {
    return this.#call('grant', call);
  }

  /**
   * Turns auto top-up on or off for a user. Turn it on only with the user's consent to be charged by the saved payment
   * method while not present; after a payment that failed, it ends the pause.
   */
  async setAutoTopUp(user: string, enabled: boolean): Promise<Outcome<Plan>> {
    const answer = await this.#ask('POST', '/service/auto-top-up', { user, enabled });
    return answer.body as unknown as Outcome<Plan>;
  }

  /** A user's tier and balances. */
  async credits(user: string): Promise<Credits<Plan>> {
    const answer = await this.#ask('GET', `/service/credits/${encodeURIComponent(user)}`);
    return answer.body as unknown as Credits<Plan>;
  }

  async #call(route: string, call: Call): Promise<Outcome<Plan>> {
    return (await this.#ask('POST', `/service/${route}`, call)).body as unknown as Outcome<Plan>;
  }

  async #ask(method: string, path: string, body?: unknown): Promise<Answer> {
    for (let retry = 0; ; retry += 1) {
      const answer = await ask(this.#options, this.#options.token, method, path, body);
      if (answer.status === 200) return answer;
      const isTransient = answer.status === 0 || answer.status === 503;
      if (!isTransient || retry === MAX_RETRIES) throw new StripeCreditsError(`${method} ${path}`, answer);
      await sleep(Math.max(RETRY_MS * 2 ** retry, Math.min(answer.waitMs, MAX_WAIT_MS)));
    }
  }
}

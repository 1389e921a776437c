/**
 * The browser's half of coming back from Stripe.
 *
 * Stripe sends the buyer back with `session_id=cs_…` and `credits_checkout=success` (a pack) or `checkout=success` (a
 * plan) in the query. The purchase is reconciled once; then the credits are read until it shows. The server counts a
 * purchase once however often it is told of it, so nothing has to be remembered here: a reload, a second tab and the
 * back button simply begin anew. Until the purchase shows, its parameters stay in the address: they are all that a
 * reload needs to try again.
 *
 * While a purchase is late, the shim's events say when there is something to read (`GET /events`); where there are none,
 * the credits are read every few seconds.
 */

import { streamEvents } from './events.js';
import { type Answer, ask, type Connection, reasonOf, sleep } from './http.js';
import type { Credits } from './types.js';

/** The parameters that say how a checkout ended, and the routes that reconcile what was bought. */
const ROUTES: Record<string, string> = {
  credits_checkout: '/reconcile-stripe-credit-pack',
  checkout: '/reconcile-stripe-checkout',
};
/** Marks the address that sign-in returns to, so that a token which is refused again does not lead there again. */
const AFTER_SIGN_IN = 'after_sign_in';

/** How long to wait between two looks, in milliseconds, where the shim does not ask for longer. */
const POLL_INTERVAL_MS = 2_000;
/** The same while events are listened to: they tell of a purchase at once, unless they are lost. */
const POLL_INTERVAL_WITH_EVENTS_MS = 15_000;
/** For how long to look, in milliseconds, before the purchase is left to the webhook and the next visit. */
const POLL_LIMIT_MS = 60_000;

/** The purchases that are being followed, by session: who asks twice gets one answer. */
const underWay = new Map<string, Promise<ReturnOutcome>>();

export interface ReturnOptions extends Connection {
  /** The user's token, renewed where it has to be; null for nobody. */
  getToken: () => Promise<string | null>;
  /** Forgets a token that the shim refused. */
  signOut: () => Promise<unknown>;
  /**
   * Goes to the sign-in page, which comes back to the URL `returnTo`. Best by `location.replace`, so that the back
   * button does not lead to the moment before.
   */
  signIn: (returnTo: string) => unknown;
  /** Called with a `late` outcome after each look that did not find the purchase, while there are more to come. */
  onLate?: (late: ReturnOutcome & { status: 'late' }) => void;
}

/** How it ended. */
export type ReturnOutcome =
  /** The address names no checkout. */
  | { status: 'none' }
  /** The buyer left the checkout. */
  | { status: 'canceled' }
  /** The purchase shows. Now, and only now, its parameters are taken out of the address. */
  | { status: 'credited'; credits: Credits; reason?: undefined }
  /**
   * It did not show in time. It will, without the page or after a reload. The reason is the shim's word, such as
   * `unpaid`; or `not_shown` (credited, but the balance that was read is the old one, or none), `unreachable`,
   * `status_429` and the like (an answer without a word).
   */
  | { status: 'late'; reason: string; credits: Credits | undefined }
  /** The token is missing or was refused, and the page is being left for the sign-in. */
  | { status: 'signing_in' }
  /** The same, right after a sign-in. */
  | { status: 'sign_in_refused' }
  /** The purchase is another user's. */
  | { status: 'not_yours' }
  /** It cannot be reconciled, and asking again would not help; the reason is the shim's word. */
  | { status: 'refused'; reason: string }
  /** The page's options or the shim's settings that are missing. */
  | { status: 'misconfigured'; missing: string[] };

/** What an answer of a reconcile route says of the purchase: its end, or how it stands. */
type Verdict =
  | { end: ReturnOutcome }
  | {
      end?: undefined;
      reason: string;
      waitMs: number;
      isApplied?: boolean;
      isUnanswered?: boolean;
      /** The change of the balance that it made. */
      change?: unknown;
    };

/**
 * Follows the purchase that the page's address names, until it shows or cannot. Rejects only with what `signIn` or
 * `onLate` throws.
 */
export async function followReturn(options: ReturnOptions): Promise<ReturnOutcome> {
  const missing = (['url', 'getToken', 'signOut', 'signIn'] as const).filter((name) => !options[name]);
  if (missing.length > 0) return { status: 'misconfigured', missing };

  const query = new URL(location.href).searchParams;
  const kind = Object.keys(ROUTES).find((name) => ['success', 'cancel'].includes(query.get(name) ?? ''));
  const route = kind && ROUTES[kind];
  if (!kind || !route) return { status: 'none' };
  if (query.get(kind) === 'cancel') return { status: 'canceled' };
  const sessionId = query.get('session_id');
  if (!sessionId) return { status: 'refused', reason: 'not_a_session' };

  const running = underWay.get(sessionId);
  if (running) return running;
  const end = follow(options, route, sessionId).finally(() => underWay.delete(sessionId));
  underWay.set(sessionId, end);
  return end;
}

/** Follows one purchase to its end, and does to the address what the end asks for. */
async function follow(options: ReturnOptions, route: string, sessionId: string): Promise<ReturnOutcome> {
  const returnTo = new URL(location.href);
  const outcome = await untilItShows(options, route, sessionId);
  if (outcome.status === 'credited') {
    forget(sessionId, [...Object.keys(ROUTES), 'session_id', AFTER_SIGN_IN]);
  } else if (outcome.status !== 'sign_in_refused') {
    forget(sessionId, [AFTER_SIGN_IN]);
  } else if (!returnTo.searchParams.has(AFTER_SIGN_IN)) {
    returnTo.searchParams.set(AFTER_SIGN_IN, '1');
    // Whoever cannot be signed out can still sign in.
    await Promise.resolve().then(options.signOut).catch(() => {});
    await options.signIn(returnTo.href);
    return { status: 'signing_in' };
  }
  return outcome;
}

/**
 * Reconciles, and reads the credits until they show it. Each reconcile makes the shim ask Stripe, so it is repeated
 * only where another answer can be expected: there was none, or the credits have changed, which may be it.
 */
async function untilItShows(options: ReturnOptions, route: string, sessionId: string): Promise<ReturnOutcome> {
  const read = async () => readingOf(await askAsUser(options, 'GET', '/credits'));
  const reconcile = async () => verdictOf(await askAsUser(options, 'POST', route, { session_id: sessionId }));

  const deadline = performance.now() + POLL_LIMIT_MS;
  let before = await read();
  let verdict: Verdict = before.end ? { end: before.end } : await reconcile();
  let news: News | undefined;
  try {
    while (!verdict.end) {
      const { end, credits } = await read();
      if (end) return end;
      const hasChanged = credits && JSON.stringify(credits) !== JSON.stringify(before.credits);
      // A purchase that was in before we asked changes nothing any more.
      const isShown = verdict.isApplied && (hasChanged || (credits && verdict.change === 0));
      if (isShown && credits) return { status: 'credited', credits };
      const late = { status: 'late' as const, reason: verdict.reason, credits };
      const left = deadline - performance.now();
      if (left <= 0) return late;
      options.onLate?.(late);
      news ??= new News(options);
      const mayBeIt = hasChanged && !verdict.isApplied;
      if (!mayBeIt || verdict.isUnanswered) await news.wait(verdict.waitMs, left);
      if (verdict.isUnanswered || mayBeIt) {
        before = credits ? { credits } : {};
        verdict = await reconcile();
      }
    }
  } finally {
    news?.end();
  }
  return verdict.end;
}

/** Waits for the next look: until an event tells of news, or for a while. */
class News {
  readonly #ended = new AbortController();
  #isListening = false;
  /** Whether something has happened since the last look began, also while nobody waited. */
  #hasNews = false;
  #interrupt = () => {};

  constructor(options: ReturnOptions) {
    this.#listen(options).catch(() => {});
  }

  async wait(waitMs: number, limitMs: number): Promise<void> {
    const interval = this.#isListening ? POLL_INTERVAL_WITH_EVENTS_MS : POLL_INTERVAL_MS;
    // A shim that asks for time gets it, whatever happens.
    const atLeast = Math.min(waitMs, limitMs);
    await sleep(atLeast);
    if (!this.#hasNews) {
      const interrupted = new AbortController();
      this.#interrupt = () => interrupted.abort();
      await sleep(Math.max(Math.min(interval, limitMs) - atLeast, 0), interrupted.signal);
    }
    this.#hasNews = false;
  }

  end(): void {
    this.#ended.abort();
  }

  #wake(): void {
    this.#hasNews = true;
    this.#interrupt();
  }

  async #listen(options: ReturnOptions): Promise<void> {
    const onOpen = () => {
      this.#isListening = true;
      // What happened while the stream was not open is read at once.
      this.#wake();
    };
    try {
      for await (const _ of streamEvents(options, options.getToken, { signal: this.#ended.signal, onOpen })) {
        this.#wake();
      }
    } finally {
      // The shim has no events, or no longer any for this token, as the next look will say.
      if (this.#isListening) this.#wake();
      this.#isListening = false;
    }
  }
}

function verdictOf(answer: Answer): Verdict {
  const { status, body, waitMs } = answer;
  const reason = reasonOf(answer) ?? `status_${status}`;
  const end = endOf(answer);
  if (end) return { end };
  if (body.ok) return { isApplied: true, change: body.credits, reason: 'not_shown', waitMs };
  // The shim has kept it, and it is Stripe's turn, or a person's.
  if (reason === 'unpaid' || body.outcome === 'parked') return { reason, waitMs };
  if ([0, 408, 429].includes(status) || status >= 500) return { isUnanswered: true, reason, waitMs };
  return { end: status === 403 ? { status: 'not_yours' } : { status: 'refused', reason } };
}

/** What an answer of `GET /credits` says: the credits, nothing, or that it is no use to go on. */
function readingOf(answer: Answer): { end?: ReturnOutcome; credits?: Credits } {
  const end = endOf(answer);
  if (end) return { end };
  return answer.body.credits_balance === undefined ? {} : { credits: answer.body as unknown as Credits };
}

/** The ends that every route knows. */
function endOf({ status, body }: Answer): ReturnOutcome | undefined {
  if (status === 401) return { status: 'sign_in_refused' };
  if (body.error === 'Configuration error') {
    return { status: 'misconfigured', missing: body.missing as string[] };
  }
  return undefined;
}

/** Asks the shim as the user who is signed in; without one the answer is 401, and no request is made. */
async function askAsUser(options: ReturnOptions, method: string, path: string, body?: unknown): Promise<Answer> {
  const token = await Promise.resolve().then(options.getToken).catch(() => undefined);
  if (token === undefined) return { status: 0, body: {}, waitMs: 0 };
  if (!token) return { status: 401, body: {}, waitMs: 0 };
  return ask(options, token, method, path, body);
}

/** Takes parameters out of the address, as long as it is still this purchase's; whatever else is in it stays. */
function forget(sessionId: string, names: string[]): void {
  const address = new URL(location.href);
  const present = names.filter((name) => address.searchParams.has(name));
  if (address.searchParams.get('session_id') !== sessionId || present.length === 0) return;
  for (const name of present) address.searchParams.delete(name);
  history.replaceState(history.state, '', address);
}

/**
 * The browser's half of coming back from Stripe.
 *
 * Stripe sends the buyer back with `session_id=cs_…` and `credits_checkout=success` (a pack) or `checkout=success` (a
 * plan) in the query. The purchase is reconciled once; then the credits are read until it shows. The server counts a
 * purchase once however often it is told of it, so nothing has to be remembered here: a reload, a second tab and the
 * back button simply begin anew. Until the purchase shows, its parameters stay in the address: they are all that a
 * reload needs to try again.
 */

/** The parameters that say how a checkout ended, and the routes that reconcile what was bought. */
const ROUTES = {
  credits_checkout: '/reconcile-stripe-credit-pack',
  checkout: '/reconcile-stripe-checkout',
};
/** Marks the address that sign-in returns to, so that a token which is refused again does not lead there again. */
const AFTER_SIGN_IN = 'after_sign_in';

/** How long one request may take, in milliseconds; the shim itself waits 10 seconds for Stripe. */
const REQUEST_LIMIT_MS = 20_000;
/** How long to wait between two looks, in milliseconds, where the shim does not ask for longer. */
const POLL_INTERVAL_MS = 2_000;
/** For how long to look, in milliseconds, before the purchase is left to the webhook and the next visit. */
const POLL_LIMIT_MS = 60_000;

/** The purchases that are being followed, by session: who asks twice gets one answer. */
const underWay = new Map();

/**
 * Follows the purchase that the page's address names, until it shows or cannot.
 *
 * @param {object} options
 * @param {string} options.shimUrl Where the shim answers, such as `https://billing.example`.
 * @param {() => Promise<?string>} options.getToken The user's token, renewed where it has to be; null for nobody.
 * @param {() => Promise<void>} options.signOut Forgets a token that the shim refused.
 * @param {(returnTo: string) => void|Promise<void>} options.signIn Goes to the sign-in page, which comes back to the
 *   URL `returnTo`. Best by `location.replace`, so that the back button does not lead to the moment before.
 * @param {(late: Outcome) => void} [options.onLate] Called with a `late` outcome after each look that did not find
 *   the purchase, while there are more to come.
 * @returns {Promise<Outcome>} How it ended. Rejects only with what `signIn` or `onLate` throws.
 *
 * @typedef {object} Outcome
 * @property {string} status One of:
 *   - `none`: the address names no checkout.
 *   - `canceled`: the buyer left the checkout.
 *   - `credited`: the purchase shows. Now, and only now, its parameters are taken out of the address.
 *   - `late`: it did not show in time. It will, without the page or after a reload.
 *   - `signing_in`: the token is missing or was refused, and the page is being left for the sign-in.
 *   - `sign_in_refused`: the same, right after a sign-in.
 *   - `not_yours`: the purchase is another user's.
 *   - `refused`: it cannot be reconciled, and asking again would not help.
 *   - `misconfigured`: the page or the shim lacks a setting.
 * @property {string} [reason] Of `late` and `refused`: the shim's word, such as `unpaid` or `unknown_session`; or
 *   `not_shown` (credited, but the balance that was read is the old one, or none), `unreachable` (no answer),
 *   `status_429` and the like (an answer without a word).
 * @property {object} [credits] Of `credited`, and of `late` where it could be read: the answer of `GET /credits`.
 * @property {string[]} [missing] Of `misconfigured`: the page's options, or the shim's settings.
 */
export async function followReturn(options) {
  const missing = ['shimUrl', 'getToken', 'signOut', 'signIn'].filter((name) => !options[name]);
  if (missing.length > 0) return { status: 'misconfigured', missing };

  const query = new URL(location.href).searchParams;
  const kind = Object.keys(ROUTES).find((name) => ['success', 'cancel'].includes(query.get(name)));
  if (!kind) return { status: 'none' };
  if (query.get(kind) === 'cancel') return { status: 'canceled' };
  const sessionId = query.get('session_id');
  if (!sessionId) return { status: 'refused', reason: 'not_a_session' };

  if (!underWay.has(sessionId)) {
    const end = follow(options, ROUTES[kind], sessionId).finally(() => underWay.delete(sessionId));
    underWay.set(sessionId, end);
  }
  return underWay.get(sessionId);
}

/** Follows one purchase to its end, and does to the address what the end asks for. */
async function follow(options, route, sessionId) {
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
async function untilItShows(options, route, sessionId) {
  const read = async () => readingOf(await ask(options, 'GET', '/credits'));
  const reconcile = async () => verdictOf(await ask(options, 'POST', route, { session_id: sessionId }));

  const deadline = performance.now() + POLL_LIMIT_MS;
  let before = await read();
  let verdict = before.end ? before : await reconcile();
  while (!verdict.end) {
    const { end, credits } = await read();
    if (end) return end;
    const hasChanged = credits && JSON.stringify(credits) !== JSON.stringify(before.credits);
    // A purchase that was in before we asked changes nothing any more.
    const isShown = verdict.isApplied && (hasChanged || (credits && verdict.change === 0));
    if (isShown) return { status: 'credited', credits };
    const late = { status: 'late', reason: verdict.reason, credits };
    const left = deadline - performance.now();
    if (left <= 0) return late;
    options.onLate?.(late);
    await sleep(Math.min(Math.max(POLL_INTERVAL_MS, verdict.waitMs), left));
    if (verdict.isUnanswered || (hasChanged && !verdict.isApplied)) {
      before = { credits };
      verdict = await reconcile();
    }
  }
  return verdict.end;
}

/** What an answer of a reconcile route says of the purchase: its end, or how it stands. */
function verdictOf(answer) {
  const { status, body, waitMs } = answer;
  const reason = body.reason ?? body.error?.code ?? (status === 0 ? 'unreachable' : `status_${status}`);
  const end = endOf(answer);
  if (end) return { end };
  if (body.ok) return { isApplied: true, change: body.credits, reason: 'not_shown', waitMs };
  // The shim has kept it, and it is Stripe's turn, or a person's.
  if (reason === 'unpaid' || body.outcome === 'parked') return { reason, waitMs };
  if ([0, 408, 429].includes(status) || status >= 500) return { isUnanswered: true, reason, waitMs };
  return { end: status === 403 ? { status: 'not_yours' } : { status: 'refused', reason } };
}

/** What an answer of `GET /credits` says: the credits, nothing, or that it is no use to go on. */
function readingOf(answer) {
  const isRead = answer.body.credits_balance !== undefined;
  return { end: endOf(answer), credits: isRead ? answer.body : undefined };
}

/** The ends that every route knows. */
function endOf({ status, body }) {
  if (status === 401) return { status: 'sign_in_refused' };
  if (body.error === 'Configuration error') return { status: 'misconfigured', missing: body.missing };
  return undefined;
}

/** Asks the shim as the user who is signed in. No answer in time, and one that is not JSON, count as status 0. */
async function ask({ shimUrl, getToken }, method, path, body) {
  try {
    const token = await getToken();
    if (!token) return { status: 401, body: {}, waitMs: 0 };
    const response = await fetch(shimUrl.replace(/\/+$/, '') + path, {
      method,
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
      cache: 'no-store',
      signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
    });
    const waitMs = 1_000 * (Number(response.headers.get('Retry-After')) || 0);
    return { status: response.status, body: (await response.json()) ?? {}, waitMs };
  } catch {
    return { status: 0, body: {}, waitMs: 0 };
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Takes parameters out of the address, as long as it is still this purchase's; whatever else is in it stays. */
function forget(sessionId, names) {
  const address = new URL(location.href);
  const present = names.filter((name) => address.searchParams.has(name));
  if (address.searchParams.get('session_id') !== sessionId || present.length === 0) return;
  present.forEach((name) => address.searchParams.delete(name));
  history.replaceState(history.state, '', address);
}

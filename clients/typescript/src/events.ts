/** `GET /events`: what happens to the user's credits, as it happens, by fetch, since EventSource sends no token. */

import { type Answer, type Connection, sleep, StripeCreditsError, tell } from './http.js';
import type { Credits, Pool } from './types.js';

/** How long to wait before connecting again, in milliseconds; twice as long after each failure in a row. */
const RECONNECT_MS = 1_000;
/** The longest of these waits, in milliseconds. */
const MAX_RECONNECT_MS = 30_000;
/** How long a stream may be silent, in milliseconds, before it counts as lost: longer than the shim's heartbeat. */
const SILENCE_LIMIT_MS = 60_000;

/** The user's account after what happened, by the names of `my_credits()`. */
type Account = Pick<
  Credits,
  | 'subscription_tier'
  | 'subscription_status'
  | 'credits_balance'
  | 'subscription_credits_balance'
  | 'purchased_credits_balance'
  | 'promotional_credits_balance'
  | 'debt'
>;

/** A row of the ledger that an event tells of. */
interface ToldTransaction {
  transaction_id: number;
  transaction_type: string;
  amount: number;
  /** Without one it is debt. */
  pool?: Pool;
  [id: string]: unknown;
}

/** A pack that is bought by auto top-up. */
interface ToldTopUp {
  top_up_id: string;
  pack: string;
  stripe_price_id: string;
  credits: number;
  stripe_payment_intent_id: string | null;
  account: Account;
}

/** What each type of event tells; docs/events.md describes it. `payment.parked` is about no user's account. */
export interface EventData {
  'credits.granted': { credits: number; transactions: ToldTransaction[]; account: Account };
  'credits.reversed': { credits: number; transactions: ToldTransaction[]; account: Account };
  'credits.low': { threshold: number; crossed: number[]; balance_before: number; account: Account };
  'credits.exhausted': { balance_before: number; account: Account };
  'credits.expiring': {
    credits: number;
    grants: { grant_id: number; pool: Pool; credits: number; expires_at: string }[];
    account: Account;
  };
  'subscription.changed': { subscription: object | null; previous: object | null; account: Account };
  'payment.applied_late': { credits: number; account: Account; [id: string]: unknown };
  'top_up.requested': ToldTopUp;
  'top_up.succeeded': ToldTopUp;
  /** `reason` is Stripe's code, such as `card_declined`, or `no_customer` or `no_payment_method`; auto top-up is paused. */
  'top_up.failed': ToldTopUp & { reason: string };
  'top_up.canceled': ToldTopUp & { reason: 'turned_off' | 'too_late' | 'not_needed' | 'canceled_at_stripe' };
  'top_up.refused': { pack: string; reason: 'limit'; at_most: string; account: Account };
}

export type EventType = keyof EventData;

/** One event of the signed-in user. */
export type CreditEvent = {
  [Type in EventType]: {
    id: string;
    type: Type;
    /** When it happened: RFC 3339 in UTC. */
    timestamp: string;
    user_id: string;
    data: EventData[Type];
    /** Where to go on after it. */
    lastEventId: string;
  };
}[EventType];

export interface EventOptions {
  /** Ends the stream. */
  signal?: AbortSignal;
  /** The last event that was seen, so that what came after it comes first. */
  lastEventId?: string;
  /** Called each time the stream is open. */
  onOpen?: () => void;
}

/** One frame of a stream of Server-Sent Events. */
export interface Frame {
  id?: string;
  event?: string;
  data?: string;
  retry?: number;
}

/**
 * The user's events, without an end: a stream that breaks is opened again where it broke. Throws
 * {@link StripeCreditsError} where connecting again would not help: without a valid token, or if the shim has no
 * such route.
 */
export async function* streamEvents(
  connection: Connection,
  getToken: () => Promise<string | null>,
  { signal, lastEventId, onOpen }: EventOptions = {},
): AsyncGenerator<CreditEvent, void, undefined> {
  let last = lastEventId;
  let wait = RECONNECT_MS;
  let asked: number | undefined;
  while (!signal?.aborted) {
    const attempt = new AbortController();
    const end = () => attempt.abort();
    signal?.addEventListener('abort', end);
    try {
      const response = await open(connection, await getToken(), last, attempt.signal);
      wait = RECONNECT_MS;
      onOpen?.();
      for await (const frame of frames(response, end)) {
        asked = frame.retry ?? asked;
        last = frame.id ?? last;
        const event = eventOf(frame, last);
        if (event) yield event;
      }
    } catch (fault) {
      if (signal?.aborted) return;
      if (fault instanceof StripeCreditsError && isFinal(fault.status)) throw fault;
      if (fault instanceof StripeCreditsError) asked = fault.retryAfterMs || asked;
    } finally {
      signal?.removeEventListener('abort', end);
      // Also where the caller has stopped listening.
      end();
    }
    await sleep(Math.max(wait, asked ?? 0), signal);
    asked = undefined;
    wait = Math.min(2 * wait, MAX_RECONNECT_MS);
  }
}

/** Whether another attempt would be answered alike. */
function isFinal(status: number): boolean {
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}

async function open(
  { url, onStep, fetch: send = fetch }: Connection,
  token: string | null,
  lastEventId: string | undefined,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const started = performance.now();
  const failed = (answer: Answer) => {
    const fault = new StripeCreditsError('GET /events', answer);
    tell(onStep, 'GET /events', token, fault.status, fault.code, started);
    return fault;
  };
  if (token === null) throw failed({ status: 401, body: {}, waitMs: 0 });
  const headers: Record<string, string> = { Authorization: `Bearer ${token}`, Accept: 'text/event-stream' };
  if (lastEventId !== undefined) headers['Last-Event-ID'] = lastEventId;
  let response: Response;
  try {
    response = await send(`${url.replace(/\/+$/, '')}/events`, { headers, cache: 'no-store', signal });
  } catch {
    throw failed({ status: 0, body: {}, waitMs: 0 });
  }
  if (response.status !== 200 || !response.body) {
    const body = (await response.json().catch(() => ({}))) as Answer['body'];
    throw failed({ status: response.status, body, waitMs: 1_000 * (Number(response.headers.get('Retry-After')) || 0) });
  }
  tell(onStep, 'GET /events', token, 200, undefined, started);
  return response.body;
}

function eventOf({ data }: Frame, lastEventId: string | undefined): CreditEvent | undefined {
  if (data === undefined) return undefined;
  try {
    return { ...(JSON.parse(data) as CreditEvent), lastEventId: lastEventId ?? '' };
  } catch {
    // Whatever it is, it is no event of ours.
    return undefined;
  }
}

/** The frames of a stream, until it ends or is silent for too long. Comments, such as heartbeats, are no frames. */
export async function* frames(
  stream: ReadableStream<Uint8Array>,
  onSilence: () => void,
): AsyncGenerator<Frame, void, undefined> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let frame: Frame = {};
  try {
    for (;;) {
      const timer = setTimeout(onSilence, SILENCE_LIMIT_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      // A frame that has not ended with an empty line is not whole.
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      // A CR at the end may be half of a line break.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line !== '') {
          add(frame, line);
        } else {
          if (Object.keys(frame).length > 0) yield frame;
          frame = {};
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Adds one line of a frame. */
function add(frame: Frame, line: string): void {
  const colon = line.indexOf(':');
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
  if (field === 'data') frame.data = frame.data === undefined ? value : `${frame.data}\n${value}`;
  else if (field === 'event') frame.event = value;
  else if (field === 'id' && !value.includes('\0')) frame.id = value;
  else if (field === 'retry' && /^\d+$/.test(value)) frame.retry = Number(value);
}

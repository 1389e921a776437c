/** Requests to the shim, and what can go wrong with one. */

/** How long one request may take, in milliseconds; the shim itself waits 10 seconds for Stripe. */
export const REQUEST_LIMIT_MS = 20_000;

/** One request, as `onStep` is told of it. It holds no secret: neither token nor body. */
export interface Step {
  /** What was asked, such as `GET /credits`. */
  step: string;
  /** Whether there was a token to send. */
  hasToken: boolean;
  /** The status; 0 if there was no answer. */
  status: number;
  /** The outcome's reason or the error's code, if there is one. */
  reason?: string;
  /** How long it took, in milliseconds. */
  ms: number;
}

/** What every client needs to know of the shim. */
export interface Connection {
  /** Where the shim answers, such as `https://billing.example`. */
  url: string;
  /** Called after each request. */
  onStep?: (step: Step) => void;
  /** In place of the global `fetch`. */
  fetch?: typeof fetch;
}

/** An answer with its body, if that is JSON. */
export interface Answer {
  /** 0 if there was none in time. */
  status: number;
  body: Record<string, unknown>;
  /** What Retry-After asks for, in milliseconds. */
  waitMs: number;
}

/** An answer that is not what was asked for. */
export class StripeCreditsError extends Error {
  /** The status; 0 if there was no answer. */
  readonly status: number;
  /** The shim's word, such as `INVALID_PRICE`; `unreachable` without an answer. */
  readonly code: string;
  /** How long to wait before the same request again, in milliseconds; 0 if the shim does not say. */
  readonly retryAfterMs: number;
  readonly body: Record<string, unknown>;

  constructor(what: string, answer: Answer) {
    const code = reasonOf(answer) ?? `status_${answer.status}`;
    super(`${what}: ${answer.status} ${code}`);
    this.name = 'StripeCreditsError';
    this.status = answer.status;
    this.code = code;
    this.retryAfterMs = answer.waitMs;
    this.body = answer.body;
  }
}

/** A reason in an answer's body, in whichever of the shim's forms. */
export function reasonOf({ status, body }: Answer): string | undefined {
  if (status === 0) return 'unreachable';
  if (typeof body.reason === 'string') return body.reason;
  if (typeof body.error === 'string') return body.error;
  const { code } = (body.error ?? {}) as { code?: string };
  return code ?? (typeof body.message === 'string' ? body.message : undefined);
}

/** Asks the shim. No answer in time, and one that is not JSON, count as status 0; nothing is thrown. */
export async function ask(
  { url, onStep, fetch: send = fetch }: Connection,
  token: string | null,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const started = performance.now();
  let answer: Answer;
  try {
    const request: RequestInit = {
      method,
      headers: {
        ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      cache: 'no-store',
      signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
    };
    if (body !== undefined) request.body = JSON.stringify(body);
    const response = await send(url.replace(/\/+$/, '') + path, request);
    const waitMs = 1_000 * (Number(response.headers.get('Retry-After')) || 0);
    answer = { status: response.status, body: ((await response.json()) ?? {}) as Answer['body'], waitMs };
  } catch {
    answer = { status: 0, body: {}, waitMs: 0 };
  }
  tell(onStep, `${method} ${path}`, token, answer.status, reasonOf(answer), started);
  return answer;
}

/** Tells `onStep`. What it throws is its own affair. */
export function tell(
  onStep: Connection['onStep'],
  step: string,
  token: string | null,
  status: number,
  reason: string | undefined,
  started: number,
): void {
  const ms = Math.round(performance.now() - started);
  try {
    onStep?.({ step, hasToken: token !== null, status, ...(reason === undefined ? {} : { reason }), ms });
  } catch (fault) {
    console.error(fault);
  }
}

/** Waits, or until a signal ends it. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    }
    signal?.addEventListener('abort', done);
  });
}

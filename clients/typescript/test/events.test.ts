import { expect, test } from 'vitest';
import { BrowserClient } from '../src/browser.js';
import { frames, streamEvents, type CreditEvent, type Frame } from '../src/events.js';
import { ServiceClient } from '../src/server.js';
import { setting } from './setting.js';

/** A stream of these texts, as they arrive. */
function stream(...chunks: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk);
      controller.close();
    },
  });
}

async function read(...chunks: (string | Uint8Array)[]): Promise<Frame[]> {
  const found: Frame[] = [];
  for await (const frame of frames(stream(...chunks), () => {})) found.push(frame);
  return found;
}

test('frames are read however they are cut and whatever ends their lines', async () => {
  const text = ': heartbeat\n\nid: 7\nevent: credits.granted\ndata: {"type":"x"}\n\nretry: 500\ndata: a\ndata:b\n\nid: 8\ndata: not whole';
  const wanted = [
    { id: '7', event: 'credits.granted', data: '{"type":"x"}' },
    { retry: 500, data: 'a\nb' },
  ];
  for (const end of ['\n', '\r\n', '\r']) {
    const bytes = new TextEncoder().encode(text.replaceAll('\n', end));
    for (const size of [1, 2, 3, 7, bytes.length]) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) => bytes.slice(n * size, (n + 1) * size));
      // Comments are no frames.
      expect((await read(...chunks)).filter((frame) => Object.keys(frame).length > 0)).toEqual(wanted);
    }
  }
});

const frame = (id: number) => `id: ${id}\nevent: credits.granted\ndata: {"type":"credits.granted","data":{"credits":${id}}}\n\n`;

test('a stream that breaks goes on after the last event that was seen', async () => {
  const asked: (string | null)[] = [];
  const send: typeof fetch = async (_, init) => {
    asked.push(new Headers(init?.headers).get('Last-Event-ID'));
    if (asked.length === 2) throw new TypeError('connection refused');
    return new Response(stream(asked.length === 1 ? frame(1) + frame(2) : frame(3)), { status: 200 });
  };
  const ended = new AbortController();
  const seen: CreditEvent[] = [];
  const options = { lastEventId: '0', signal: ended.signal };
  for await (const event of streamEvents({ url: 'http://shim', fetch: send }, async () => 'token', options)) {
    seen.push(event);
    if (event.lastEventId === '3') ended.abort();
  }
  expect(seen.map((event) => [event.lastEventId, event.type, 'credits' in event.data && event.data.credits])).toEqual([
    ['1', 'credits.granted', 1],
    ['2', 'credits.granted', 2],
    ['3', 'credits.granted', 3],
  ]);
  expect(asked).toEqual(['0', '2', '2']);
});

test('where another attempt is of no use there is an error', async () => {
  for (const status of [401, 403, 404]) {
    const send: typeof fetch = async () => new Response('{"code":401,"message":"Invalid JWT"}', { status });
    const events = streamEvents({ url: 'http://shim', fetch: send }, async () => 'token');
    await expect(events.next()).rejects.toMatchObject({ status });
  }
  const nobody = streamEvents({ url: 'http://shim' }, async () => null);
  await expect(nobody.next()).rejects.toMatchObject({ status: 401 });
});

test('a grant is told to the page that listens, and the page resumes after it', async () => {
  const user = setting('USER_ID');
  const service = new ServiceClient({ url: setting('SHIM_URL'), token: setting('SERVICE_TOKEN') });
  const client = new BrowserClient({ url: setting('SHIM_URL'), getToken: async () => setting('USER_TOKEN') });
  const grant = (request_id: string, amount: number) => service.grant({ user, amount, request_id });

  /** The next events of a stream, once it is open and a grant was made. */
  async function listen(count: number, lastEventId?: string): Promise<CreditEvent[]> {
    const ended = new AbortController();
    const seen: CreditEvent[] = [];
    const onOpen = () => void grant(`ts-told-${lastEventId ?? 'first'}`, lastEventId === undefined ? 7 : 9);
    const options = { signal: ended.signal, onOpen, ...(lastEventId === undefined ? {} : { lastEventId }) };
    for await (const event of client.events(options)) {
      seen.push(event);
      if (seen.length === count) ended.abort();
    }
    return seen;
  }

  const [first] = await listen(1);
  expect(first).toMatchObject({ type: 'credits.granted', user_id: user, data: { credits: 7 } });
  await grant('ts-told-meanwhile', 8);
  const resumed = await listen(2, first?.lastEventId);
  expect(resumed.map((event) => event.type === 'credits.granted' && event.data.credits)).toEqual([8, 9]);
}, 30_000);

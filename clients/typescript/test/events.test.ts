import { expect, test } from 'vitest';
import { frames, streamEvents, type CreditEvent, type Frame } from '../src/events.js';

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

const frame = (id: number) => `id: ${id}\nevent: credits.granted\ndata: {"type":"credits.granted","n":${id}}\n\n`;

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
    if (event.id === '3') ended.abort();
  }
  expect(seen.map((event) => [event.id, event.type, event.data.n])).toEqual([
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

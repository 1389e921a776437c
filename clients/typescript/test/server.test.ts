import { expect, test } from 'vitest';
import { ServiceClient, StripeCreditsError, type Step } from '../src/server.js';
import { setting } from './setting.js';

const user = setting('USER_ID');
const connection = { url: setting('SHIM_URL'), token: setting('SERVICE_TOKEN') };
const service = new ServiceClient<'pro' | 'max' | 'roll'>(connection);

test('a spend is made once and answers its balances', async () => {
  const before = await service.credits(user);
  const spent = await service.spend({ user, amount: 20, request_id: 'ts-job', description: 'one picture', metadata: { a: [1] } });
  expect(spent).toMatchObject({ ok: true, outcome: 'applied', credits: -20, user_id: user });
  expect(spent.details?.postings?.[0]).toMatchObject({ pool: 'promotional', amount: -20 });
  const again = await service.spend({ user, amount: 20, request_id: 'ts-job' });
  expect(again).toMatchObject({ ok: true, outcome: 'already_applied' });
  const after = await service.credits(user);
  expect(after.credits_balance).toBe(before.credits_balance - 20);
  expect(await service.refund({ user, spend_request_id: 'ts-job', request_id: 'ts-back' })).toMatchObject({ credits: 20 });
});

test('a reservation is committed in part or released', async () => {
  const call = { user, request_id: 'ts-video' };
  expect((await service.reserve({ ...call, amount: 30, ttl_seconds: 60 })).outcome).toBe('applied');
  expect(await service.commit({ ...call, amount: 25 })).toMatchObject({ ok: true, credits: 5 });
  const other = { user, request_id: 'ts-song' };
  await service.reserve({ ...other, amount: 10 });
  expect(await service.release(other)).toMatchObject({ ok: true, credits: 10 });
  expect((await service.grant({ user, amount: 5, request_id: 'ts-gift', expires_at: '2990-01-01T00:00:00Z' })).ok).toBe(true);
});

test('too few credits is an outcome whose reason has a type', async () => {
  const outcome = await service.spend({ user, amount: 1_000_000, request_id: 'ts-too-much' });
  if (outcome.ok || outcome.outcome === 'needs_fetch') throw new Error('there are not so many');
  expect(outcome.reason).toBe('insufficient_credits');
  // @ts-expect-error no reason is called so
  expect(outcome.reason === 'too_few_credits').toBe(false);
});

test('auto top-up is turned on where the catalog has it, and off everywhere', async () => {
  const refused = await service.setAutoTopUp(user, true);
  expect(refused).toMatchObject({ ok: false, outcome: 'rejected', reason: 'no_auto_top_up' });
  expect(await service.setAutoTopUp(user, false)).toMatchObject({ ok: true, outcome: 'already_applied' });
});

test('a wrong call, a wrong token and no shim are errors, and no step tells a secret', async () => {
  const steps: Step[] = [];
  const told = new ServiceClient({ ...connection, onStep: (step) => steps.push(step) });
  const wrong = await told.spend({ user, amount: 0, request_id: 'ts-zero' }).catch((fault: StripeCreditsError) => fault);
  expect(wrong).toBeInstanceOf(StripeCreditsError);
  expect(wrong).toMatchObject({ status: 400, code: 'invalid_call' });
  const stranger = new ServiceClient({ ...connection, token: 'x'.repeat(40) });
  await expect(stranger.credits(user)).rejects.toMatchObject({ status: 401, code: 'Invalid service token' });
  expect(steps).toEqual([
    { step: 'POST /service/spend', hasToken: true, status: 400, reason: 'invalid_call', ms: expect.any(Number) },
  ]);
  expect(JSON.stringify(steps)).not.toContain(connection.token);
});

test('while the shim is unavailable the same call is sent again', async () => {
  const sent: unknown[] = [];
  const failing: typeof fetch = async (input, init) => {
    sent.push(init?.body);
    if (sent.length === 1) throw new TypeError('connection refused');
    if (sent.length === 2) return new Response('{"error":{"code":"database_locked"}}', { status: 503 });
    return fetch(input, init);
  };
  const patient = new ServiceClient({ ...connection, fetch: failing });
  expect((await patient.grant({ user, amount: 1, request_id: 'ts-again' })).outcome).toBe('applied');
  expect(sent).toHaveLength(3);
  expect(new Set(sent).size).toBe(1);
});

import { expect, test } from 'vitest';
import { BrowserClient, type Step } from '../src/browser.js';
import { setting } from './setting.js';

const url = setting('SHIM_URL');
const token = setting('USER_TOKEN');
const steps: Step[] = [];
const client = new BrowserClient<'pro' | 'max' | 'roll'>({ url, getToken: async () => token, onStep: (step) => steps.push(step) });

test('the catalog needs no user', async () => {
  const nobody = new BrowserClient({ url, getToken: async () => Promise.reject(new Error('not asked')) });
  const catalog = await nobody.catalog();
  expect(catalog.packs[0]).toMatchObject({ key: 'pack_500', credits: 500, prices: ['price_pack'] });
  expect(catalog.plans.map((plan) => plan.key)).toEqual(['roll', 'pro', 'max']);
});

test('a checkout opens once for one key, and its purchase is reconciled', async () => {
  const first = await client.checkout({ price_id: 'price_pack', quantity: 2 }, 'ts-click');
  const second = await client.checkout({ price_id: 'price_pack', quantity: 2 }, 'ts-click');
  expect(first).toEqual(second);
  expect(first.url).toMatch(/^https?:/);

  const before = await client.credits();
  const outcome = await client.reconcilePack('cs_1');
  expect(outcome).toMatchObject({ ok: true, outcome: 'applied', credits: 500 });
  expect((await client.credits()).purchased_credits_balance).toBe(before.purchased_credits_balance + 500);
  expect((await client.reconcilePack('cs_1')).outcome).toBe('already_applied');
});

test('what is refused is an error with its word', async () => {
  await expect(client.checkout({ price_id: 'price_unknown' })).rejects.toMatchObject({ status: 400, code: 'INVALID_PRICE' });
  await expect(client.reconcilePack('cs_2')).rejects.toMatchObject({ status: 403, code: 'not_owner' });
  await expect(client.previewChange({ price_id: 'price_pro' })).rejects.toMatchObject({ status: 409, code: 'no_subscription' });
  await expect(client.cancel()).rejects.toMatchObject({ status: 409 });
  await expect(client.portal()).rejects.toMatchObject({ status: 409, code: 'no_customer' });
  const signedOut = new BrowserClient({ url, getToken: async () => null });
  await expect(signedOut.credits()).rejects.toMatchObject({ status: 401, code: 'Missing Authorization header' });
  const away = new BrowserClient({ url: 'http://127.0.0.1:9', getToken: async () => token });
  await expect(away.credits()).rejects.toMatchObject({ status: 0, code: 'unreachable' });
});

test('each step tells what was asked and nothing that is secret', () => {
  expect(steps).toContainEqual({ step: 'GET /credits', hasToken: true, status: 200, ms: expect.any(Number) });
  expect(steps).toContainEqual(expect.objectContaining({ step: 'POST /checkout', status: 400, reason: 'INVALID_PRICE' }));
  expect(JSON.stringify(steps)).not.toContain(token);
});

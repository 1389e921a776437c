import { createClient } from '@supabase/supabase-js';
import { expect, test } from 'vitest';
import type { Database } from '../src/supabase.js';
import { setting } from './setting.js';

const user = setting('USER_ID');
const open = (key: string) =>
  createClient<Database<'pro' | 'max' | 'roll'>, 'billing'>(setting('SUPABASE_URL'), key, {
    db: { schema: 'billing' },
    auth: { persistSession: false, autoRefreshToken: false },
  });
const signedIn = open(setting('USER_TOKEN'));
const service = open(setting('SUPABASE_SERVICE_KEY'));

test('a signed-in user reads the balance, the ledger and the payments', async () => {
  const credits = await signedIn.rpc('my_credits').single();
  expect(credits.error).toBeNull();
  expect(credits.data?.user_id).toBe(user);
  const tier: 'free' | 'pro' | 'max' | 'roll' | undefined = credits.data?.subscription_tier;
  expect(tier).toBe('free');
  const ledger = await signedIn.rpc('my_transactions', { p_limit: 2 });
  expect(ledger.data?.length).toBeGreaterThan(0);
  expect(ledger.data?.[0]?.user_id).toBe(user);
  expect(['promotional', 'purchased']).toContain(ledger.data?.[0]?.pool);
  expect((await signedIn.rpc('my_payments')).error).toBeNull();
});

test('a server spends as the service role, once', async () => {
  const call = { p_user_id: user, p_amount: 3, p_request_id: 'ts-rpc', p_metadata: { model: 'x' } };
  const spent = await service.rpc('spend_credits', call);
  expect(spent.data).toMatchObject({ ok: true, outcome: 'applied', credits: -3 });
  expect((await service.rpc('spend_credits', call)).data?.outcome).toBe('already_applied');
  const much = await service.rpc('spend_credits', { ...call, p_amount: 1_000_000, p_request_id: 'ts-rpc-2' });
  expect(much.data).toMatchObject({ ok: false, reason: 'insufficient_credits' });
  // @ts-expect-error without the request id it would not be once
  const unnamed = await service.rpc('spend_credits', { p_user_id: user, p_amount: 3 });
  expect(unnamed.status).toBeGreaterThanOrEqual(400);
});

test('a user may not spend, and a wrong call is an error', async () => {
  const denied = await signedIn.rpc('spend_credits', { p_user_id: user, p_amount: 1, p_request_id: 'ts-denied' });
  expect([denied.status, denied.error?.code]).toEqual([403, '42501']);
  const wrong = await service.rpc('spend_credits', { p_user_id: user, p_amount: 0, p_request_id: 'ts-zero-rpc' });
  expect([wrong.status, wrong.error?.code]).toEqual([400, '22023']);
});

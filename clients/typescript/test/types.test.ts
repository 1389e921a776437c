import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { OUTCOMES, REASONS } from '../src/types.js';
import { setting } from './setting.js';

test('outcomes and reasons are those of openapi.yaml', () => {
  const document = readFileSync(setting('OPENAPI'), 'utf8');
  const reasons = /Why it was ignored, parked or rejected\.\n\s+enum:\n((?:\s+- \w+\n)+)/.exec(document)?.[1] ?? '';
  expect([...reasons.matchAll(/- (\w+)/g)].map(([, word]) => word).filter((word) => word !== 'null')).toEqual([...REASONS]);
  expect(/outcome: \{ enum: \[([^\]]*)\] \}/.exec(document)?.[1]?.split(', ')).toEqual([...OUTCOMES]);
});

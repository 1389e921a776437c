// Drives Chromium for tests/src/browser.rs: a command a line on stdin, such as ["open", 0, "http://…"] for the first
// tab, and its answer a line on stdout, {"value": …} or {"fault": "…"}. When stdin ends, so does the browser.
//
// The one argument is the folder in which playwright-core and axe-core are installed.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { env, argv, stdin, stdout } from 'node:process';

const require = createRequire(join(argv[2], 'package.json'));
const { chromium } = require('playwright-core');
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** How long a page may take to become what a command waits for, in milliseconds. */
const PATIENCE_MS = 30_000;
/** How many times the Tab key is pressed in search of an element. */
const MAX_TABS = 200;
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const browser = await chromium.launch({ executablePath: env.CHROMIUM, args: FLAGS });
const context = await browser.newContext();
context.setDefaultTimeout(PATIENCE_MS);
await context.clock.install();
const tabs = [];
const faults = [];

const COMMANDS = {
  open: (tab, url) => tab.goto(url, { waitUntil: 'commit' }),
  reload: (tab) => tab.reload({ waitUntil: 'commit' }),
  // By the page itself: `tab.goBack` counts back from the entry that the browser's process takes for the current one, and
  // on a busy machine that is the page before for some milliseconds after this one has been committed.
  back: (tab) => Promise.all([tab.waitForEvent('framenavigated'), tab.evaluate('history.back()')]),
  address: (tab) => tab.url(),
  isAt: (tab, start) => tab.waitForURL((url) => url.href.startsWith(start), { waitUntil: 'commit' }),
  says: (tab, text) => tab.getByRole('status').filter({ hasText: text }).waitFor(),
  text: (tab) => tab.getByRole('main').innerText(),
  fill: (tab, label, text) => tab.getByLabel(label).fill(text),
  click: (tab, name) => tab.getByRole('button', { name }).click(),
  /** Runs a script in every page that the tab opens from now on, before the page's own. */
  init: (tab, script) => tab.addInitScript(script),
  run: (tab, script) => tab.evaluate(script),
  press: (tab, key) => tab.keyboard.press(key),
  /** Types into the field that has the focus, once one has it: a page gives it some time after it has its address. */
  type: async (tab, text) => {
    await tab.locator(':is(input, textarea):focus').waitFor();
    await tab.keyboard.type(text);
  },
  /** Goes on with the Tab key until the element with this role and name has the focus. */
  tabTo: async (tab, role, name) => {
    for (let pressed = 0; pressed < MAX_TABS; pressed += 1) {
      await tab.keyboard.press('Tab');
      const hasFocus = (elements) => elements.includes(document.activeElement);
      if (await tab.getByRole(role, { name }).evaluateAll(hasFocus)) return;
    }
    throw new Error(`the Tab key leads to no ${role} "${name}"`);
  },
  /** What axe-core finds wrong for people who use a keyboard, a screen reader or large letters: a line each. */
  axe: async (tab) => {
    // By the debugger, which the page's Content-Security-Policy does not bind.
    await tab.evaluate(AXE);
    const { violations } = await tab.evaluate('axe.run()');
    return violations.flatMap(({ id, help, nodes }) => nodes.map(({ html }) => `${id}: ${help}: ${html}`));
  },
  /** A picture of the whole page, in a colour scheme and at a width in pixels. */
  look: async (tab, path, colorScheme, width) => {
    await tab.emulateMedia({ colorScheme });
    await tab.setViewportSize({ width, height: 800 });
    if (path) await tab.screenshot({ path, fullPage: true });
    return tab.evaluate('document.documentElement.scrollWidth');
  },
  /** The system asks for less motion. */
  calm: (tab) => tab.emulateMedia({ reducedMotion: 'reduce' }),
  advance: (tab, ms) => tab.clock.fastForward(ms),
  /** Requests for this path fail before they are sent. */
  cut: (tab, path) => tab.route(`**${path}`, (route) => route.abort('connectionrefused')),
  /** Requests for this path arrive, and their answers do not. */
  lose: (tab, path) =>
    tab.route(`**${path}`, async (route) => {
      await route.fetch();
      await route.abort('connectionreset');
    }),
  // By one more handler, which is asked first. `tab.unroute` would let a request go on that the handler it removes still
  // holds, and that handler's answer to it would then end this process.
  mend: (tab, path) => tab.route(`**${path}`, (route) => route.continue()),
};

async function tabOf(number) {
  if (!tabs[number]) {
    tabs[number] = await context.newPage();
    tabs[number].on('pageerror', (fault) => faults.push(`in the page: ${fault.stack}`));
  }
  return tabs[number];
}

async function answer(line) {
  const [command, number, ...words] = JSON.parse(line);
  try {
    const value = await COMMANDS[command](await tabOf(number), ...words);
    if (faults.length > 0) return { fault: faults.join('\n') };
    return { value: ['address', 'text', 'run', 'axe', 'look'].includes(command) ? value : null };
  } catch (fault) {
    const body = await tabs[number]?.evaluate('document.body?.innerText').catch(String);
    return { fault: `${line}: ${fault.message}\nat ${tabs[number]?.url()}: ${body}\n${faults.join('\n')}` };
  }
}

for await (const line of createInterface({ input: stdin })) stdout.write(`${JSON.stringify(await answer(line))}\n`);
await browser.close();

/**
 * Starts Chromium for the browser tests: headless, quiet on the network, with a profile of its own that is
 * gone afterwards.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const DESKTOP = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
/** Complaints kept of each kind. */
const MAX_COMPLAINTS = 50;

/**
 * Opens a browser with one page. `autoplay`: sound without a tap, which people's browsers mostly forbid.
 * `complaints` gathers what the console and the network said against the page.
 */
export async function openBrowser({ phone = false, autoplay = true } = {}) {
  const profile = await mkdtemp(join(tmpdir(), 'tidewater-e2e-'));
  const policy = autoplay ? 'no-user-gesture-required' : 'document-user-activation-required';
  const context = await chromium
    .launchPersistentContext(profile, {
      executablePath: BROWSER,
      headless: true,
      args: [...FLAGS, `--autoplay-policy=${policy}`],
      ...(phone ? PHONE : DESKTOP),
    })
    .catch(async (error) => {
      await rm(profile, { recursive: true, force: true });
      throw error;
    });
  const page = context.pages()[0] ?? (await context.newPage());
  const complaints = { console: [], requests: [] };
  const note = (list, text) => list.length < MAX_COMPLAINTS && list.push(text);
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) note(complaints.console, message.text());
  });
  page.on('pageerror', (error) => note(complaints.console, `uncaught: ${error.message}`));
  page.on('response', (response) => {
    if (response.status() >= 400) note(complaints.requests, `${response.status()} ${response.url()}`);
  });
  const close = async () => {
    await context.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { page, complaints, close };
}

/**
 * Walks the pages through everything that can happen to a viewer, against the stand-in server.
 *
 *   node e2e/states.mjs [--shots DIR] [--only NAME]
 *
 * Needs `npm run build`, Chromium and ffmpeg. Prints a line per scenario; exit status 1 if one failed.
 * It waits on conditions; nothing passes because some time went by.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openBrowser } from './browser.mjs';

const { values: options } = parseArgs({ options: { shots: { type: 'string' }, only: { type: 'string' } } });
const PATIENCE_MS = 25_000;
const here = dirname(fileURLToPath(import.meta.url));
let base;

const command = async (name) => assert.equal((await fetch(`${base}/fixture/${name}`, { method: 'POST' })).status, 200);
const stats = (page) => page.evaluate(() => window.tidewater.stats());
const until = (page, test, argument) => page.waitForFunction(test, argument, { timeout: PATIENCE_MS, polling: 50 });
const untilState = (page, state) => until(page, (wanted) => window.tidewater?.stats().state === wanted, state);
const untilMoving = async (page) => {
  await untilState(page, 'playing');
  const { currentTime } = await stats(page);
  await until(page, (from) => window.tidewater.stats().currentTime > from + 1, currentTime);
};
const shoot = async (page, name) => {
  if (!options.shots) return;
  await page.waitForTimeout(900); // for the eye only: let cards fade in
  await page.screenshot({ path: join(options.shots, `${name}.png`) });
};
const watchPage = (page, query = '') => page.goto(`${base}/watch/live/demo${query}`);

const scenarios = {
  async 'every protocol plays, one after the other in the same page'({ page, complaints }) {
    await watchPage(page);
    await untilMoving(page);
    assert.equal((await stats(page)).protocol, 'llhls');
    for (const protocol of ['hls', 'flv', 'wsflv', 'llhls']) {
      await page.locator('#stage').hover();
      await page.locator('#protocol').click();
      if (protocol === 'hls') await shoot(page, 'menu');
      await page.locator(`#protocol-menu input[value=${protocol}]`).check();
      await page.keyboard.press('Escape');
      await untilMoving(page);
      assert.equal((await stats(page)).protocol, protocol);
      assert.equal(new URL(page.url()).searchParams.get('protocol'), protocol);
    }
    assert.deepEqual(complaints, { console: [], requests: [] });
  },

  async 'LL-HLS is chased to its target'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    await until(page, () => {
      const { latency_s, edge_latency_s, target_latency_s } = window.tidewater.stats();
      return latency_s < 1 && edge_latency_s < target_latency_s + 0.1;
    });
    assert.equal((await stats(page)).stalls, 0);
  },

  async 'a silent publisher is waited for, without a reload'({ page }) {
    for (const protocol of ['llhls', 'flv']) {
      await watchPage(page, `?protocol=${protocol}`);
      await untilMoving(page);
      await command('silence');
      await untilState(page, 'waiting');
      if (protocol === 'llhls') await shoot(page, 'waiting');
      await command('resume');
      await untilMoving(page);
      assert.equal((await stats(page)).reconnects, 0, protocol);
    }
  },

  async 'an ended stream says so and starts again by itself'({ page }) {
    for (const protocol of ['llhls', 'wsflv']) {
      await watchPage(page, `?protocol=${protocol}`);
      await untilMoving(page);
      await command('end');
      await untilState(page, 'ended');
      if (protocol === 'llhls') await shoot(page, 'ended');
      await command('start');
      await untilMoving(page);
    }
  },

  async 'a late visitor of an ended stream is not shown its last seconds'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    await command('end');
    await page.reload();
    await untilState(page, 'ended');
    assert.equal((await stats(page)).frames, 0);
    await command('start');
    await untilMoving(page);
  },

  async 'an offline room starts by itself, by every protocol'({ page }) {
    for (const protocol of ['llhls', 'hls', 'flv', 'wsflv']) {
      await command('gone');
      await watchPage(page, `?protocol=${protocol}`);
      await untilState(page, 'offline');
      if (protocol === 'llhls') await shoot(page, 'offline');
      await command('start');
      await untilMoving(page);
    }
  },

  async 'a dead server is reconnected to'({ page, restart }) {
    await watchPage(page);
    await untilMoving(page);
    const back = await restart();
    await untilState(page, 'reconnecting');
    await shoot(page, 'reconnecting');
    await back();
    await untilMoving(page);
    assert.ok((await stats(page)).reconnects > 0);
  },

  async 'a frozen player is reloaded'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    // What the watchdog is for: the element stands still, no event tells of it, the stream goes on.
    await page.evaluate(() => Object.defineProperty(document.querySelector('video'), 'playbackRate', { set() {}, get: () => 1 }));
    await page.evaluate(() => {
      const video = document.querySelector('video');
      Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'playbackRate').set.call(video, 0);
    });
    await until(page, () => window.tidewater.stats().reconnects === 1);
    await page.evaluate(() => delete document.querySelector('video').playbackRate);
    await untilMoving(page);
  },

  async 'a pause lets go and comes back live'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    await page.keyboard.press(' ');
    await untilState(page, 'paused');
    await shoot(page, 'paused');
    await page.keyboard.press('k');
    await untilMoving(page);
    assert.equal((await stats(page)).reconnects, 0);
  },

  async 'keys work'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    await page.keyboard.press('ArrowDown');
    await until(page, () => window.tidewater.stats().volume < 1);
    await page.keyboard.press('m');
    await until(page, () => window.tidewater.stats().muted);
    await page.keyboard.press('i');
    assert.ok(await page.locator('#overlay').isVisible());
    await page.keyboard.press('?');
    assert.ok(await page.locator('#help').isVisible());
    await shoot(page, 'help');
    await page.keyboard.press('Escape');
    assert.ok(!(await page.locator('#help').isVisible()));
    await page.keyboard.press('f');
    await until(page, () => document.fullscreenElement?.id === 'stage');
  },

  async 'a name that is no room is refused'({ page }) {
    await page.goto(`${base}/watch/live/-bad-`);
    assert.ok(await page.getByText('This is not a room').isVisible());
    await shoot(page, 'bad-name');
  },

  async 'the room list shows, links and finds'({ page, complaints }) {
    await page.goto(`${base}/`);
    await page.locator('a.room').first().waitFor();
    await shoot(page, 'rooms');
    await command('end');
    await page.getByText('Nobody is live').waitFor({ timeout: PATIENCE_MS });
    await shoot(page, 'rooms-empty');
    await command('start');
    await page.locator('a.room').first().waitFor({ timeout: PATIENCE_MS });
    await page.locator('#goto-room').fill('live/demo');
    await page.keyboard.press('Enter');
    await untilMoving(page);
    assert.deepEqual(complaints.console, []);
  },
};

const phoneScenarios = {
  async 'phone: plays in its portrait layout'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    await shoot(page, 'phone');
    await page.locator('#video').tap(); // brings the controls
    await page.locator('#info').tap();
    await page.locator('#protocol').tap();
    await shoot(page, 'phone-overlay');
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.equal(width, 390);
    await page.goto(`${base}/`);
    await page.locator('a.room').first().waitFor();
    await shoot(page, 'phone-rooms');
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  },
  async 'phone: offline, and on its side'({ page }) {
    await page.goto(`${base}/watch/live/nobody`);
    await untilState(page, 'offline');
    await shoot(page, 'phone-offline');
    await page.setViewportSize({ width: 844, height: 390 });
    await watchPage(page);
    await untilMoving(page);
    await shoot(page, 'phone-landscape');
  },
};

const quietScenarios = {
  async 'sound that is not allowed is offered with a tap'({ page }) {
    await watchPage(page);
    await untilMoving(page);
    assert.equal((await stats(page)).muted, true);
    const button = page.locator('#sound');
    await shoot(page, 'tap-for-sound');
    await button.click();
    await until(page, () => !window.tidewater.stats().muted);
    assert.ok(!(await button.isVisible()));
    await untilMoving(page);
  },
};

/** The stand-in as a process; resolves once it listens. */
async function serve(port) {
  const child = spawn('node', [join(here, 'fixture/serve.mjs'), '--port', String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    base = /http:\/\/[^/]+/.exec(line)[0];
    break;
  }
  return child;
}

const stop = (child) =>
  new Promise((resolve) => {
    child.once('exit', resolve);
    child.kill('SIGTERM');
  });

let server = await serve(0);
/** Stops the server; the function it resolves to starts it again on the same port. */
const restart = async () => {
  const { port } = new URL(base);
  await stop(server);
  return async () => {
    server = await serve(port);
  };
};

if (options.shots) await mkdir(options.shots, { recursive: true });
let failures = 0;
const groups = [
  [scenarios, {}],
  [phoneScenarios, { phone: true }],
  [quietScenarios, { autoplay: false }],
];
for (const [group, settings] of groups) {
  for (const [name, scenario] of Object.entries(group)) {
    if (options.only && !name.includes(options.only)) continue;
    const browser = await openBrowser(settings);
    const began = Date.now();
    try {
      await command('start');
      await scenario({ ...browser, restart });
      console.log(`ok    ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failures += 1;
      console.log(`FAIL  ${name}\n      ${error.message.split('\n').slice(0, 12).join('\n      ')}`);
      const seen = await browser.page.evaluate(() => window.tidewater?.stats()).catch(() => null);
      if (seen) console.log(`      page: ${JSON.stringify(seen)}`);
    }
    await browser.close();
  }
}
await stop(server);
process.exit(failures === 0 ? 0 : 1);

/**
 * Opens the player page in headless Chromium, watches for a while, and prints what it saw as JSON.
 *
 *   node e2e/watch.mjs --base http://127.0.0.1:8080 --room live/demo [--protocol llhls] [--seconds 10]
 *                      [--expect playing] [--max-stalls N] [--shot out.png] [--phone] [--overlay]
 *
 * Exit status: 0 the page did what `--expect` says (playing: it plays at the end and time went by as it
 * should), 1 it did not, 2 wrong usage, 3 the browser or the page could not be opened.
 */
import { parseArgs } from 'node:util';
import { openBrowser } from './browser.mjs';

const STATES = ['playing', 'waiting', 'offline', 'ended', 'reconnecting', 'failed', 'paused', 'loading'];
/** Share of the watched time, counted from the first picture, that must have passed in the video. */
const MIN_PROGRESS = 0.8;
/** A page may need so long to its first picture; it is not part of `--seconds`. */
const START_LIMIT_MS = 20_000;
const SAMPLE_MS = 250;

const usage = (problem) => {
  console.error(`watch.mjs: ${problem}\nusage: node e2e/watch.mjs --base URL --room app/name [--protocol P] [--seconds N]`);
  process.exit(2);
};

let options;
try {
  options = parseArgs({
    options: {
      base: { type: 'string' },
      room: { type: 'string' },
      protocol: { type: 'string', default: 'llhls' },
      seconds: { type: 'string', default: '10' },
      expect: { type: 'string', default: 'playing' },
      'max-stalls': { type: 'string' },
      shot: { type: 'string' },
      phone: { type: 'boolean', default: false },
      overlay: { type: 'boolean', default: false },
    },
  }).values;
} catch (error) {
  usage(error.message);
}
if (!options.base || !options.room) usage('--base and --room are needed');
if (!STATES.includes(options.expect)) usage(`--expect is one of ${STATES.join(' ')}`);
const seconds = Number(options.seconds);
if (!(seconds > 0)) usage('--seconds is a positive number');

let browser;
let status = 3;
try {
  browser = await openBrowser({ phone: options.phone });
  const { page, complaints } = browser;
  await page.goto(new URL(`/watch/${options.room}?protocol=${options.protocol}`, options.base).href);
  await page.waitForFunction(() => window.tidewater !== undefined, undefined, { timeout: 10_000 });
  if (options.overlay) await page.keyboard.press('i');
  const report = await observe(page);
  if (options.shot) await page.screenshot({ path: options.shot });
  console.log(JSON.stringify({ ...report, complaints }, null, 2));
  status = report.ok ? 0 : 1;
} catch (error) {
  console.error(`watch.mjs: ${error.message}`);
} finally {
  await browser?.close();
}
process.exit(status);

/** Samples the page until its time is over. */
async function observe(page) {
  const read = () => page.evaluate(() => ({ at: performance.now(), ...window.tidewater.stats() }));
  const isThere = (sample) => sample.state === options.expect;
  const opened = Date.now();
  let first = await read();
  while (!isThere(first) && Date.now() - opened < START_LIMIT_MS) {
    await page.waitForTimeout(50);
    first = await read();
  }
  const samples = [first];
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    await page.waitForTimeout(SAMPLE_MS);
    samples.push(await read());
  }
  const last = samples.at(-1);
  const wallS = (last.at - first.at) / 1000;
  const progress = (last.currentTime - first.currentTime) / wallS;
  const problems = [];
  if (!isThere(last)) problems.push(`state is ${last.state}, not ${options.expect}`);
  if (options.expect === 'playing' && !(progress >= MIN_PROGRESS)) problems.push(`only ${progress.toFixed(2)} s of video per second`);
  const maxStalls = options['max-stalls'];
  if (maxStalls !== undefined && last.stalls > Number(maxStalls)) problems.push(`${last.stalls} stalls`);
  return {
    ok: problems.length === 0,
    problems,
    latency_median_s: median(samples.map((sample) => sample.latency_s)),
    edge_latency_median_s: median(samples.map((sample) => sample.edge_latency_s)),
    buffer_min_s: Math.min(...samples.map((sample) => sample.buffer_s)),
    progress,
    states: samples.map((sample) => sample.state).filter((state, i, all) => state !== all[i - 1]),
    stats: last,
  };
}

function median(values) {
  const known = values.filter((value) => typeof value === 'number').sort((a, b) => a - b);
  return known.length === 0 ? null : known[known.length >> 1];
}

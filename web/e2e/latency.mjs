/**
 * Glass to glass: pushes a picture of the clock and reads it back from the player's picture in headless
 * Chromium.
 *
 *   node e2e/latency.mjs --base http://127.0.0.1:8080 --rtmp rtmp://127.0.0.1:1935
 *                        [--room live/clock] [--protocols llhls,flv,hls] [--runs 3] [--seconds 20] [--gop 30]
 *
 * Every frame shows the milliseconds of the wall clock at which it was drawn, as black and white cells. ffmpeg
 * encodes them (x264, zerolatency) and pushes them with a tone. The page's video is drawn to a canvas whenever
 * the browser presents a frame; the difference to the clock then is the latency, encoder included. Prints a
 * JSON object for each run and one with the medians. Exit status: 0 everything played, 1 something did not,
 * 2 wrong usage. Needs ffmpeg and Chromium.
 */
import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import { openBrowser } from './browser.mjs';

const WIDTH = 640;
const HEIGHT = 360;
const FPS = 30;
/** The clock: 24 bits of milliseconds and 8 of their sum, in rows of eight cells. */
const COLUMNS = 8;
const ROWS = 4;
const MODULUS = 2 ** 24;
/** A player may take so long to its first frame, and then so long to reach its target latency. */
const START_LIMIT_MS = 30_000;
const SETTLE_MS = 8_000;
/** The home fixes its tracks and lists its first segments within this. */
const PUSH_LEAD_MS = 6_000;

const usage = (problem) => {
  console.error(`latency.mjs: ${problem}\nusage: node e2e/latency.mjs --base URL --rtmp URL [--room app/name] [--protocols P,…]`);
  process.exit(2);
};

let options;
try {
  options = parseArgs({
    options: {
      base: { type: 'string' },
      rtmp: { type: 'string' },
      room: { type: 'string', default: 'live/clock' },
      protocols: { type: 'string', default: 'llhls,flv,hls' },
      runs: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '20' },
      gop: { type: 'string', default: String(FPS) },
    },
  }).values;
} catch (error) {
  usage(error.message);
}
if (!options.base || !options.rtmp) usage('--base and --rtmp are needed');
const seconds = Number(options.seconds);
const runs = Number(options.runs);
if (!(seconds > 0) || !Number.isInteger(runs) || runs < 1) usage('--seconds and --runs are positive numbers');
const protocols = options.protocols.split(',');

const encoder = push(`${options.rtmp}/${options.room}`);
let failed = false;
try {
  await wait(PUSH_LEAD_MS);
  const results = new Map(protocols.map((protocol) => [protocol, []]));
  // Protocols alternate, so that a busy machine disturbs them alike.
  for (let run = 1; run <= runs; run += 1) {
    for (const protocol of protocols) {
      const result = await watch(protocol).catch((error) => ({ protocol, error: error.message }));
      console.log(JSON.stringify({ run, ...result }));
      failed ||= result.median_ms === undefined;
      if (result.median_ms !== undefined) results.get(protocol).push(result);
    }
  }
  const summary = {};
  for (const [protocol, all] of results) {
    const of = (name) => quantile(all.map((result) => result[name]), 0.5);
    const stalls = all.reduce((sum, result) => sum + result.stalls, 0);
    summary[protocol] = { runs: all.length, median_ms: of('median_ms'), p95_ms: of('p95_ms'), stalls };
  }
  console.log(JSON.stringify({ summary }));
} finally {
  encoder.stop();
}
process.exit(failed ? 1 : 0);

/** Watches for a while; the latency of every frame presented after the player has settled. */
async function watch(protocol) {
  const browser = await openBrowser();
  try {
    const { page, complaints } = browser;
    await page.goto(new URL(`/watch/${options.room}?protocol=${protocol}`, options.base).href);
    const playing = () => window.tidewater?.stats().state === 'playing';
    await page.waitForFunction(playing, undefined, { timeout: START_LIMIT_MS, polling: 50 });
    const shape = { columns: COLUMNS, rows: ROWS, modulus: MODULUS };
    await page.evaluate(readClock, shape);
    await page.waitForTimeout(SETTLE_MS);
    const before = await page.evaluate(() => {
      window.clockLatencies.length = 0;
      return window.tidewater.stats();
    });
    await page.waitForTimeout(seconds * 1000);
    const { latencies, unreadable, after } = await page.evaluate(() => ({
      latencies: window.clockLatencies,
      unreadable: window.clockUnreadable,
      after: window.tidewater.stats(),
    }));
    if (after.protocol !== undefined && after.protocol !== protocol) throw new Error(`the page fell back to ${after.protocol}`);
    if (latencies.length < (seconds * FPS) / 4) throw new Error(`only ${latencies.length} frames were read`);
    return {
      protocol,
      frames: latencies.length,
      unreadable,
      median_ms: quantile(latencies, 0.5),
      p95_ms: quantile(latencies, 0.95),
      max_ms: Math.max(...latencies),
      stalls: after.stalls - before.stalls,
      complaints: complaints.console.length + complaints.requests.length,
    };
  } finally {
    await browser.close();
  }
}

/** Runs in the page: reads the clock from every frame that is presented. */
function readClock({ columns, rows, modulus }) {
  const video = document.querySelector('video');
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext('2d', { willReadFrequently: true, alpha: false });
  context.imageSmoothingEnabled = false;
  window.clockLatencies = [];
  window.clockUnreadable = 0;
  const read = () => {
    const now = Date.now();
    video.requestVideoFrameCallback(read);
    // One pixel of each cell: nearest-neighbour scaling takes its middle.
    context.drawImage(video, 0, 0, columns, rows);
    const { data } = context.getImageData(0, 0, columns, rows);
    let bytes = [0, 0, 0, 0];
    for (let cell = 0; cell < columns * rows; cell += 1) {
      const byte = Math.floor(cell / 8);
      bytes[byte] = bytes[byte] * 2 + (data[cell * 4] > 127 ? 1 : 0);
    }
    if (((bytes[0] + bytes[1] + bytes[2]) & 0xff) !== (bytes[3] ^ 0xff)) {
      window.clockUnreadable += 1;
      return;
    }
    const shown = (bytes[0] << 16) | (bytes[1] << 8) | bytes[2];
    window.clockLatencies.push((now - shown + modulus) % modulus);
  };
  video.requestVideoFrameCallback(read);
}

/** Pushes the clock until stopped. */
function push(url) {
  const size = `${WIDTH}x${HEIGHT}`;
  const input = ['-f', 'rawvideo', '-pix_fmt', 'gray', '-s', size, '-r', String(FPS), '-i', 'pipe:0'];
  // Made on demand: a tone with a pace of its own would hold the pictures back until it caught up.
  const tone = ['-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000'];
  const video = ['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-pix_fmt', 'yuv420p'];
  const keys = ['-g', options.gop, '-keyint_min', options.gop, '-sc_threshold', '0', '-b:v', '1500k'];
  const audio = ['-c:a', 'aac', '-b:a', '96k'];
  const quick = ['-fflags', 'nobuffer', '-flush_packets', '1', '-max_interleave_delta', '0'];
  const args = ['-v', 'error', ...input, ...tone, ...video, ...keys, ...audio, ...quick, '-f', 'flv', url];
  const ffmpeg = spawn('ffmpeg', args, { stdio: ['pipe', 'inherit', 'inherit'] });
  let stopped = false;
  ffmpeg.on('exit', (code) => {
    if (!stopped) {
      console.error(`latency.mjs: ffmpeg ended with ${code}`);
      process.exit(1);
    }
  });
  ffmpeg.stdin.on('error', () => {});
  const began = performance.now();
  let sent = 0;
  // Frames that are due and not drawn yet are left out: a late picture shows the time it is drawn.
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) * FPS) / 1000);
    if (due <= sent) return;
    sent += 1;
    ffmpeg.stdin.write(draw(Date.now()));
  }, 2);
  return {
    stop() {
      stopped = true;
      clearInterval(timer);
      ffmpeg.stdin.end();
      ffmpeg.kill();
    },
  };
}

/** A grey picture whose cells are the bits of the clock. */
function draw(now) {
  const clock = now % MODULUS;
  const bytes = [(clock >> 16) & 0xff, (clock >> 8) & 0xff, clock & 0xff];
  bytes.push(((bytes[0] + bytes[1] + bytes[2]) & 0xff) ^ 0xff);
  const picture = Buffer.allocUnsafe(WIDTH * HEIGHT);
  const [cellWidth, cellHeight] = [WIDTH / COLUMNS, HEIGHT / ROWS];
  for (let row = 0; row < ROWS; row += 1) {
    const line = Buffer.alloc(WIDTH);
    for (let column = 0; column < COLUMNS; column += 1) {
      const bit = (bytes[row] >> (7 - column)) & 1;
      line.fill(bit ? 235 : 16, column * cellWidth, (column + 1) * cellWidth);
    }
    for (let y = row * cellHeight; y < (row + 1) * cellHeight; y += 1) line.copy(picture, y * WIDTH);
  }
  return picture;
}

function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length === 0 ? null : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

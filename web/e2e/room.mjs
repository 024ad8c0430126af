/**
 * The room on the player page, in real browsers: two pages of one room read each other, over the video and
 * beside it, and what somebody writes is only ever text.
 *
 * In: `node e2e/room.mjs http://edge/watch/live/name [screenshot.png]`. Out: exit 0, or what was not so.
 */
import { openBrowser } from './browser.mjs';

const [url, picture] = process.argv.slice(2);
if (url === undefined) {
  console.error('usage: node e2e/room.mjs URL [screenshot.png]');
  process.exit(2);
}

const text = `<img src=x onerror="window.hurt=1"> hello ${Date.now() % 1000}`;
const [ann, bob] = [await openBrowser(), await openBrowser()];
try {
  for (const { page } of [ann, bob]) {
    await page.goto(url);
    await page.waitForSelector('#talk-text:not([disabled])', { timeout: 30_000 });
  }
  await ann.page.fill('#talk-text', text);
  await ann.page.press('#talk-text', 'Enter');
  for (const { page } of [ann, bob]) {
    await page.waitForFunction((said) => document.querySelector('#talk-list')?.textContent?.includes(said), text, { timeout: 20_000 });
  }
  await bob.page.waitForSelector('.danmaku-line', { state: 'attached', timeout: 10_000 });
  await ann.page.click('#talk-like');
  await bob.page.waitForFunction(() => document.querySelector('#talk-likes')?.textContent !== '0', null, { timeout: 20_000 });
  await bob.page.waitForFunction(() => /^2 /.test(document.querySelector('#talk-online')?.textContent ?? ''), null, { timeout: 20_000 });
  // The server's limits are shown, and the text stays to be sent again.
  for (const said of ['one', 'two']) {
    await ann.page.fill('#talk-text', said);
    await ann.page.press('#talk-text', 'Enter');
  }
  await ann.page.waitForFunction(() => document.querySelector('#talk-note')?.textContent === 'Not so fast.', null, { timeout: 20_000 });
  const hurt = await Promise.all([ann, bob].map(({ page }) => page.evaluate(() => window.hurt === 1 || document.querySelector('#talk-list img, #danmaku img') !== null)));
  if (hurt.includes(true)) throw new Error('what was written became markup');
  if (picture !== undefined) await bob.page.screenshot({ path: picture });
} finally {
  await ann.close();
  await bob.close();
}

/** The plain pages keep a strict policy: it names the very script and style that stand in them, and nothing else. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

describe.each(['watch.html', 'index.html'])('%s', (file) => {
  const html = readFileSync(new URL(file, import.meta.url), 'utf8');
  const inline = (tag: string): string => new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(html)?.[1] ?? '';
  const hash = (text: string): string => `sha256-${createHash('sha256').update(text).digest('base64')}`;

  test('has the hashes of its script and style in its policy', () => {
    const policy = /Content-Security-Policy" content="([^"]+)"/.exec(html)?.[1];
    expect(policy).toContain(`script-src '${hash(inline('script'))}'`);
    expect(policy).toContain(`style-src '${hash(inline('style'))}'`);
  });

  test('loads nothing and has no inline handlers or styles', () => {
    expect(html).not.toMatch(/\s(src|on[a-z]+|style)=/);
    expect(html).not.toMatch(/<link|https?:\/\//);
    expect(html).not.toMatch(/innerHTML/);
  });
});

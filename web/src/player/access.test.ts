import { expect, test } from 'vitest';

import { takeToken } from './access';
import { endpoints } from './room';

const room = { app: 'live', name: 'c' };

function page(href: string, kept = new Map<string, string>()) {
  const location = { href };
  return {
    location,
    history: { replaceState: (_: unknown, __: string, url?: string | URL | null) => void (location.href = String(url)) },
    sessionStorage: { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => void kept.set(key, value) },
  };
}

test('the token leaves the address and stays with the tab', () => {
  const kept = new Map<string, string>();
  const opened = page('https://e/watch/live/c?protocol=hls#token=a.b.c', kept);
  expect(takeToken(room, opened)).toBe('a.b.c');
  expect(opened.location.href).toBe('https://e/watch/live/c?protocol=hls');
  expect(takeToken(room, page('https://e/watch/live/c', kept))).toBe('a.b.c');
  expect(takeToken({ app: 'live', name: 'd' }, page('https://e/watch/live/d', kept))).toBeNull();
  expect(takeToken(room, page('https://e/watch/live/c?token=x', kept))).toBe('x');
});

test('streams are asked for with the token', () => {
  expect(endpoints(room, 'https://e', 'a.b')).toEqual({
    hls: 'https://e/live/c.m3u8?token=a.b',
    flv: 'https://e/live/c.flv?token=a.b',
    wsflv: 'wss://e/live/c.flv?token=a.b',
  });
});

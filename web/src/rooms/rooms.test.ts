/** What the room list makes of a server's answer. */
import { describe, expect, test } from 'vitest';
import { hueOf, viewersText } from './cards';
import { MAX_SHOWN, readRooms } from './directory';

describe('the list', () => {
  test('is read, most watched first', () => {
    const entries = readRooms({
      rooms: [
        { room: 'live/b', state: 'grace', viewers: 1, url: '/watch/live/b' },
        { room: 'live/a', state: 'live', viewers: 1, url: '/watch/live/a' },
        { room: 'live/c', state: 'live', viewers: 9, url: '/watch/live/c' },
      ],
    });
    expect(entries.map((entry) => entry.label)).toEqual(['live/c', 'live/a', 'live/b']);
    expect(entries[2]).toMatchObject({ state: 'grace', viewers: 1, url: '/watch/live/b' });
  });

  test('links nowhere else, whatever the answer says', () => {
    const entries = readRooms({ rooms: [{ room: 'live/a', url: 'javascript:alert(1)' }, { room: 'live/b', url: '//evil.example' }] });
    expect(entries.map((entry) => entry.url)).toEqual(['/watch/live/a', '/watch/live/b']);
  });

  test('leaves out what makes no sense', () => {
    expect(readRooms({ rooms: [null, 1, {}, { room: '../x' }, { room: 'live/ok', viewers: 'many', state: 7 }] })).toEqual([
      { room: { app: 'live', name: 'ok' }, label: 'live/ok', state: 'live', viewers: null, url: '/watch/live/ok' },
    ]);
    for (const answer of [null, [], {}, { rooms: 'x' }]) expect(() => readRooms(answer)).toThrow(/no list of rooms/);
  });

  test('is bounded', () => {
    const rooms = Array.from({ length: MAX_SHOWN + 10 }, (_, i) => ({ room: `live/r${i}` }));
    expect(readRooms({ rooms })).toHaveLength(MAX_SHOWN);
  });
});

test('viewers are counted in words', () => {
  expect([null, 0, 1, 1_234].map(viewersText)).toEqual(['', '0 viewers', '1 viewer', '1.2K viewers']);
});

test('a room keeps its colour', () => {
  expect(hueOf('live/demo')).toBe(hueOf('live/demo'));
  expect(hueOf('live/demo')).not.toBe(hueOf('live/other'));
});

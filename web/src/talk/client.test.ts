import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { RoomClient, retryDelayMs, type Answer, type Item, type Socket, type SocketEvents } from './client';

class FakeSocket implements Socket {
  readonly sent: Record<string, unknown>[] = [];
  constructor(
    readonly url: string,
    readonly events: SocketEvents,
  ) {}
  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }
  close(): void {}
  say(frame: object): void {
    this.events.text(JSON.stringify(frame));
  }
}

let sockets: FakeSocket[];
let items: Item[];
let lost: [number | null, number][];
let client: RoomClient;

beforeEach(() => {
  vi.useFakeTimers();
  [sockets, items, lost] = [[], [], []];
  client = new RoomClient({
    edges: ['https://e1.example', 'https://e2.example'],
    room: 'live/a',
    guest: 'a secret of sixteen',
    random: () => 0.5,
    open: (url, events) => {
      const socket = new FakeSocket(url, events);
      sockets.push(socket);
      return socket;
    },
    events: { items: (news) => items.push(...news), lost: (delay, code) => lost.push([delay, code]) },
  });
  client.start();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

function last(): FakeSocket {
  return sockets[sockets.length - 1]!;
}

function welcome(extra: object = {}): void {
  last().events.opened();
  last().say({ t: 'welcome', uid: 'u', hb: 25000, pos: { e: 'k', o: 5 }, recovered: false, ...extra });
}

const chat = (o: number): object => ({ t: 'chat', id: `k-${o}`, o, ts: 0, x: 'hi' });

test('it resumes where it left off, on another edge, and tells nothing twice', () => {
  welcome();
  expect(last().url).toBe('wss://e1.example/ws');
  last().say({ t: 'b', o: 7, m: [chat(6), chat(7)] });
  last().events.closed(1006);
  expect(lost).toEqual([[250, 1006]]);
  vi.advanceTimersByTime(250);
  expect(last().url).toBe('wss://e2.example/ws');
  last().events.opened();
  expect(last().sent[0]).toMatchObject({ t: 'hello', room: 'live/a', pos: { e: 'k', o: 7 } });
  last().say({ t: 'welcome', uid: 'u', pos: { e: 'k', o: 9 }, recovered: true, m: [chat(7), chat(8), chat(9)] });
  expect(items.map((item) => item.o)).toEqual([6, 7, 8, 9]);
  last().say({ t: 'b', o: 12, e: 'm', m: [] });
  last().events.closed(1006);
  vi.advanceTimersByTime(30_000);
  last().events.opened();
  expect(last().sent[0]).toMatchObject({ pos: { e: 'm', o: 12 } });
});

test('what was not answered is sent again under the same id', async () => {
  welcome();
  const answer = client.chat('hello');
  const first = last().sent[1]!;
  last().events.closed(1006);
  vi.advanceTimersByTime(1000);
  welcome();
  expect(last().sent[1]).toEqual(first);
  last().say({ t: 'ok', c: first['c'], id: 'k-6', o: 6, f: 'full' });
  expect(await answer).toEqual<Answer>({ ok: true, id: 'k-6', fanout: 'full' });
});

test('likes of a second go together', () => {
  welcome();
  client.like();
  for (let n = 0; n < 80; n += 1) client.like();
  expect(last().sent.filter((frame) => frame['t'] === 'like')).toEqual([{ t: 'like', n: 1 }]);
  vi.advanceTimersByTime(1000);
  expect(last().sent.filter((frame) => frame['t'] === 'like')).toEqual([
    { t: 'like', n: 1 },
    { t: 'like', n: 50 },
  ]);
});

test('a bye says when and where to come again; some codes are final', () => {
  welcome();
  last().say({ t: 'bye', code: 4012, after_ms: 7314, edges: ['https://e5.example'] });
  last().events.closed(4012);
  expect(lost).toEqual([[7314, 4012]]);
  vi.advanceTimersByTime(7314);
  expect(last().url).toBe('wss://e5.example/ws');
  welcome();
  last().events.closed(4005);
  vi.advanceTimersByTime(100_000);
  expect(lost[1]).toEqual([null, 4005]);
  expect(sockets).toHaveLength(2);
});

test('a token is renewed before it ends, and after it did', async () => {
  client.close();
  const tokens = ['two', 'three'];
  client = new RoomClient({
    edges: ['https://e1.example'],
    room: 'live/a',
    token: 'one',
    renew: () => Promise.resolve(tokens.shift() ?? null),
    random: () => 0.5,
    open: (url, events) => {
      const socket = new FakeSocket(url, events);
      sockets.push(socket);
      return socket;
    },
    events: { lost: (delay, code) => lost.push([delay, code]) },
  });
  client.start();
  welcome({ sid: 's1', until: Date.now() + 90_000 });
  expect(last().sent[0]).toMatchObject({ t: 'hello', token: 'one' });
  await vi.advanceTimersByTimeAsync(20_000);
  last().say({ t: 'ping' });
  await vi.advanceTimersByTimeAsync(10_000);
  expect(last().sent.at(-1)).toMatchObject({ t: 'token', token: 'two' });
  last().events.closed(4003);
  expect(lost).toEqual([[250, 4003]]);
  await vi.advanceTimersByTimeAsync(250);
  last().events.opened();
  expect(last().sent[0]).toMatchObject({ token: 'three', sid: 's1' });
});

test('a moderator acts, and is told what became of it', async () => {
  welcome({ may: ['chat', 'moderate'] });
  const done = client.moderate({ a: 'mute', uid: 'u9', s: 60 });
  const sent = last().sent[1]!;
  expect(sent).toMatchObject({ t: 'mod', a: 'mute', uid: 'u9', s: 60 });
  last().say({ t: 'ok', c: sent['c'] });
  expect(await done).toEqual<Answer>({ ok: true, id: '', fanout: '' });
});

test('a connection that says nothing is given up', () => {
  welcome();
  vi.advanceTimersByTime(40_000);
  expect(lost).toEqual([[250, 4009]]);
  last().events.closed(1006);
  expect(lost).toHaveLength(1);
});

test('pauses are fully jittered and bounded', () => {
  expect([0, 1, 4].map((attempt) => retryDelayMs(attempt, 0.999))).toEqual([499.5, 999, 7992]);
  expect(retryDelayMs(100, 1)).toBe(30_000);
  expect(retryDelayMs(3, 0)).toBe(0);
});

/** The words and keys of the player page. */
import { describe, expect, test } from 'vitest';
import type { Stats } from '../player/stats';
import type { State } from '../player/supervisor';
import { messageOf } from './card';
import { commandOf } from './keys';
import { overlayRows } from './overlay';
import { recallSound, rememberSound } from './sound';

const fault = { kind: 'network', detail: 'x' } as const;

describe('messages', () => {
  test('a picture that plays or is paused needs no words', () => {
    expect(messageOf({ name: 'playing' })).toBeNull();
    expect(messageOf({ name: 'paused' })).toBeNull();
  });

  test('every other state says something; those that wait for the viewer have a button', () => {
    const states: State[] = [
      { name: 'loading' },
      { name: 'waiting' },
      { name: 'offline' },
      { name: 'ended' },
      { name: 'reconnecting', fault, attempt: 1 },
      { name: 'failed', fault: { kind: 'codec', detail: 'x' } },
    ];
    const buttons = states.map((state) => messageOf(state)?.button);
    expect(states.every((state) => messageOf(state)?.title !== '')).toBe(true);
    expect(buttons).toEqual([null, null, null, null, 'Try now', 'Try again']);
    expect(messageOf(states[5]!)?.text).toMatch(/cannot play the video or audio format/);
  });

  test('a long reconnect says that it goes on', () => {
    expect(messageOf({ name: 'reconnecting', fault, attempt: 5 })?.text).toMatch(/Still trying/);
  });
});

describe('keys', () => {
  const press = (key: string, more = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, ...more });
  /** A focused element that answers `closest` as the real one would for its own tag. */
  const focused = (tag: string): Element =>
    ({ closest: (selector: string) => (selector.split(/,\s*/).some((part) => part.split(':')[0] === tag) ? {} : null) }) as unknown as Element;

  test('run commands, in either case', () => {
    expect(['m', 'M', 'f', 'l', 'i', '?', ' ', 'ArrowUp', 'x'].map((key) => commandOf(press(key), null))).toEqual([
      'toggle-mute',
      'toggle-mute',
      'toggle-fullscreen',
      'go-live',
      'toggle-overlay',
      'help',
      'toggle-play',
      'volume-up',
      null,
    ]);
  });

  test('with a modifier are the browser’s', () => {
    expect(commandOf(press('f', { ctrlKey: true }), null)).toBeNull();
    expect(commandOf(press('l', { metaKey: true }), null)).toBeNull();
  });

  test('leave a focused button its space and a text field its letters', () => {
    expect(commandOf(press(' '), focused('button'))).toBeNull();
    expect(commandOf(press('m'), focused('button'))).toBe('toggle-mute');
    expect(commandOf(press('m'), focused('textarea'))).toBeNull();
  });
});

describe('overlay', () => {
  const stats: Stats = {
    room: 'live/demo',
    protocol: 'llhls',
    engine: 'hls.js',
    state: 'playing',
    fault: null,
    currentTime: 1,
    latency_s: 0.7,
    latency_basis: 'program-date-time',
    edge_latency_s: 0.61,
    target_latency_s: 0.6,
    playback_rate: 1.1,
    buffer_s: 0.5,
    bitrate_bps: 2_345_678,
    width: 1280,
    height: 720,
    fps: 29.97,
    codecs: 'avc1.42c01e',
    dropped: 2,
    frames: 300,
    stalls: 1,
    stalled_s: 0.4,
    reconnects: 0,
    startup_ms: 300,
    muted: false,
    volume: 1,
  };
  const row = (label: string, from = stats) => overlayRows(from).find(([name]) => name === label)?.slice(1);

  test('shows figures with their units and what they mean', () => {
    expect(row('Latency')).toEqual(['0.70 s', 'by the broadcast clock']);
    expect(row('Bitrate')).toEqual(['2.35 Mbit/s']);
    expect(row('Bitrate', { ...stats, bitrate_bps: 96_400 })).toEqual(['96 kbit/s']);
    expect(row('Picture')).toEqual(['1280 × 720', '30.0 fps']);
    expect(row('Dropped')).toEqual(['2', 'of 300 frames']);
  });

  test('says of FLV what its latency leaves out, and nothing it does not know', () => {
    const flv: Stats = { ...stats, protocol: 'flv', latency_basis: 'buffer', target_latency_s: null, width: 0, fps: null };
    expect(row('Latency', flv)?.[1]).toMatch(/network not counted/);
    expect(row('Live edge', flv)).toBeUndefined();
    expect(row('Target', flv)?.[0]).toBe('–');
    expect(row('Picture', flv)).toEqual(['none', '']);
  });
});

describe('sound', () => {
  test('without storage is left as it is', () => {
    const video = { volume: 0.4, muted: true };
    rememberSound(video);
    recallSound(video);
    expect(video).toEqual({ volume: 0.4, muted: true });
  });
});

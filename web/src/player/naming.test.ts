/** Room names, their URLs, and the choice of protocol and engine. */
import { describe, expect, test } from 'vitest';
import { faultKindOfStatus } from './fault';
import { engineFor, parseProtocol, PROTOCOLS, unavailable } from './protocol';
import { endpoints, parseRoom, RESERVED_APPS, roomFromPath } from './room';

describe('room names', () => {
  test('what the server takes', () => {
    expect(parseRoom('live/demo')).toEqual({ app: 'live', name: 'demo' });
    expect(parseRoom(' demo ')).toEqual({ app: 'live', name: 'demo' });
    expect(parseRoom(`a/${'x'.repeat(64)}`)).not.toBeNull();
    expect(parseRoom('Live.1/0_x')).toEqual({ app: 'Live.1', name: '0_x' });
  });

  test('what it refuses', () => {
    const bad = ['', '/', 'live/', '/demo', 'a/b/c', 'live/-x', 'live/.x', 'live/x.m3u8', 'live/x.flv', 'live/x y', 'live/ü', `a/${'x'.repeat(65)}`];
    for (const text of bad) expect(parseRoom(text), text).toBeNull();
    for (const app of RESERVED_APPS) expect(parseRoom(`${app}/x`), app).toBeNull();
  });

  test('are read from the address', () => {
    expect(roomFromPath('/watch/live/demo')).toEqual({ app: 'live', name: 'demo' });
    expect(roomFromPath('/watch/live/demo/')).toEqual({ app: 'live', name: 'demo' });
    expect(roomFromPath('/watch/live/d%65mo')).toEqual({ app: 'live', name: 'demo' });
    for (const path of ['/watch/live', '/watch/live/a/b', '/watch/live/%', '/watch/live/%2e%2e', '/other/live/demo']) {
      expect(roomFromPath(path), path).toBeNull();
    }
  });

  test('lead to URLs, WebSockets with the page’s security', () => {
    const room = { app: 'live', name: 'demo' };
    expect(endpoints(room, 'http://h:8080')).toEqual({
      hls: 'http://h:8080/live/demo.m3u8',
      flv: 'http://h:8080/live/demo.flv',
      wsflv: 'ws://h:8080/live/demo.flv',
    });
    expect(endpoints(room, 'https://h').wsflv).toBe('wss://h/live/demo.flv');
  });
});

describe('protocols', () => {
  const modern = { hlsJs: true, nativeHls: true, mpegtsJs: true };
  const oldPhone = { hlsJs: false, nativeHls: true, mpegtsJs: false };
  const nothing = { hlsJs: false, nativeHls: false, mpegtsJs: false };

  test('are named in several ways', () => {
    expect(['LLHLS', 'll-hls', 'http-flv', 'wsflv', 'hls'].map(parseProtocol)).toEqual(['llhls', 'llhls', 'flv', 'wsflv', 'hls']);
    expect([null, '', 'rtmp', 'constructor'].map(parseProtocol)).toEqual([null, null, null, null]);
  });

  test('hls.js goes before the browser’s own HLS', () => {
    expect(PROTOCOLS.map((protocol) => engineFor(protocol, modern))).toEqual(['hls.js', 'hls.js', 'mpegts.js', 'mpegts.js']);
    expect(PROTOCOLS.map((protocol) => engineFor(protocol, oldPhone))).toEqual(['native', 'native', null, null]);
  });

  test('say why they cannot be had', () => {
    for (const protocol of PROTOCOLS) {
      expect(unavailable(protocol, modern)).toBeNull();
      expect(unavailable(protocol, nothing)).toMatch(/cannot play/);
    }
  });
});

test('statuses have meanings', () => {
  expect([404, 410, 401, 403, 429, 503, 0, 500, 400].map(faultKindOfStatus)).toEqual(
    ['not-found', 'not-found', 'denied', 'denied', 'busy', 'busy', 'network', 'server', 'server'],
  );
});

/** What the playlists and statuses of a server are taken to mean. */
import { describe, expect, test } from 'vitest';
import { firstVariant, lookUp, MAX_RETRY_AFTER_MS, readMediaPlaylist } from './lookup';

const URL_OF_ROOM = 'https://edge.example/live/demo.m3u8';
const MULTIVARIANT = '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n\ndemo/main.m3u8\n';
const LIVE = '#EXTM3U\n#EXTINF:1,\nmain/s1.m4s\n#EXT-X-PART:DURATION=0.2,URI="main/p9.m4s"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="x"\n';

/** A server that answers by path. */
function server(answers: Record<string, Response | Error>): (url: string) => Promise<Response> {
  return async (url) => {
    const answer = answers[new URL(url).pathname];
    if (answer === undefined) return new Response('', { status: 404 });
    if (answer instanceof Error) throw answer;
    return answer;
  };
}

describe('playlists', () => {
  test('the head is the newest part, and moves with it', () => {
    const first = readMediaPlaylist(LIVE);
    expect(first).toEqual({ kind: 'live', head: '#EXT-X-PART:DURATION=0.2,URI="main/p9.m4s"' });
    expect(readMediaPlaylist(LIVE.replace('p9', 'p10'))).not.toEqual(first);
    expect(readMediaPlaylist('#EXTM3U\r\n#EXTINF:1,\r\ns1.ts\r\n')).toEqual({ kind: 'live', head: 's1.ts' });
  });

  test('ENDLIST is the end', () => {
    expect(readMediaPlaylist(`${LIVE}#EXT-X-ENDLIST\n`)).toEqual({ kind: 'ended' });
  });

  test('something else is no playlist', () => {
    expect(readMediaPlaylist('<html>')).toMatchObject({ kind: 'unreachable' });
  });

  test('the variant is resolved against its playlist', () => {
    expect(firstVariant(MULTIVARIANT, URL_OF_ROOM)).toBe('https://edge.example/live/demo/main.m3u8');
    expect(firstVariant('#EXTM3U\n', URL_OF_ROOM)).toBeNull();
  });
});

describe('a look-up', () => {
  const ask = (answers: Record<string, Response | Error>) => lookUp(URL_OF_ROOM, server(answers));
  const multivariant = () => new Response(MULTIVARIANT);

  test('follows the variant', async () => {
    expect(await ask({ '/live/demo.m3u8': multivariant(), '/live/demo/main.m3u8': new Response(LIVE) })).toMatchObject({ kind: 'live' });
  });

  test('tells absent, denied, busy and broken apart', async () => {
    const status = (code: number, headers = {}) => ({ '/live/demo.m3u8': new Response('', { status: code, headers }) });
    expect(await ask({})).toEqual({ kind: 'absent' });
    expect(await ask({ '/live/demo.m3u8': multivariant() })).toEqual({ kind: 'absent' });
    expect(await ask(status(403))).toEqual({ kind: 'denied' });
    expect(await ask(status(503, { 'Retry-After': '2' }))).toEqual({ kind: 'busy', retryAfterMs: 2_000 });
    expect(await ask(status(503, { 'Retry-After': '86400' }))).toEqual({ kind: 'busy', retryAfterMs: MAX_RETRY_AFTER_MS });
    expect(await ask(status(429, { 'Retry-After': 'soon' }))).toEqual({ kind: 'busy', retryAfterMs: 1_000 });
    expect(await ask(status(502))).toEqual({ kind: 'unreachable', detail: 'HTTP 502' });
    expect(await ask({ '/live/demo.m3u8': new TypeError('refused') })).toEqual({ kind: 'unreachable', detail: 'refused' });
  });
});

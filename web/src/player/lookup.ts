/**
 * Asks the server how a room is doing.
 *
 * In: the room's multivariant playlist URL. Out: a {@link Verdict}. It reads the same playlists as the
 * players, so it needs nothing from the server that a viewer does not get, and tells apart what players
 * cannot: a room that is gone, one that ended, one whose publisher is silent, one whose player froze.
 */
import { faultKindOfStatus } from './fault';

/** The server may hold a request for a room that is just starting for 10 s. */
export const LOOKUP_TIMEOUT_MS = 15_000;
/** Retry-After beyond this is not waited for. */
export const MAX_RETRY_AFTER_MS = 30_000;

export type Verdict =
  /** On air. `head` changes whenever the server has something new. */
  | { readonly kind: 'live'; readonly head: string }
  /** Over: the playlist is complete. */
  | { readonly kind: 'ended' }
  /** No such room. */
  | { readonly kind: 'absent' }
  /** Known, but not to be had right now. */
  | { readonly kind: 'busy'; readonly retryAfterMs: number }
  | { readonly kind: 'denied' }
  /** No answer, or one that makes no sense. */
  | { readonly kind: 'unreachable'; readonly detail: string };

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** Looks the room up; never throws. */
export async function lookUp(multivariantUrl: string, fetcher: Fetch = (url, init) => fetch(url, init)): Promise<Verdict> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), LOOKUP_TIMEOUT_MS);
  const init: RequestInit = { cache: 'no-store', signal: abort.signal };
  try {
    const multivariant = await fetcher(multivariantUrl, init);
    if (!multivariant.ok) return verdictOfStatus(multivariant);
    const mediaUrl = firstVariant(await multivariant.text(), multivariantUrl);
    if (mediaUrl === null) return { kind: 'unreachable', detail: 'no stream in the multivariant playlist' };
    const media = await fetcher(mediaUrl, init);
    if (!media.ok) return verdictOfStatus(media);
    return readMediaPlaylist(await media.text());
  } catch (error) {
    return { kind: 'unreachable', detail: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
  }
}

/** The first variant of a multivariant playlist, absolute; null if there is none. */
export function firstVariant(text: string, baseUrl: string): string | null {
  const lines = text.split(/\r?\n/);
  const tag = lines.findIndex((line) => line.startsWith('#EXT-X-STREAM-INF'));
  if (tag < 0) return null;
  const uri = lines.slice(tag + 1).find((line) => line.trim() !== '' && !line.startsWith('#'));
  return uri === undefined ? null : new URL(uri.trim(), baseUrl).href;
}

/** Reads a media playlist: over, or live with its newest part or segment as head. */
export function readMediaPlaylist(text: string): Verdict {
  if (!text.startsWith('#EXTM3U')) return { kind: 'unreachable', detail: 'not a playlist' };
  const lines = text.split(/\r?\n/);
  if (lines.includes('#EXT-X-ENDLIST')) return { kind: 'ended' };
  const newest = lines.filter((line) => line.startsWith('#EXT-X-PART:') || (line !== '' && !line.startsWith('#'))).at(-1);
  return { kind: 'live', head: newest ?? '' };
}

function verdictOfStatus(response: Response): Verdict {
  switch (faultKindOfStatus(response.status)) {
    case 'not-found':
      return { kind: 'absent' };
    case 'denied':
      return { kind: 'denied' };
    case 'busy':
      return { kind: 'busy', retryAfterMs: retryAfterMs(response.headers.get('Retry-After')) };
    default:
      return { kind: 'unreachable', detail: `HTTP ${response.status}` };
  }
}

function retryAfterMs(header: string | null): number {
  const seconds = Number(header ?? '1');
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : 1_000;
}

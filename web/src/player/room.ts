/**
 * Room names and the URLs of a room's streams.
 *
 * In: a page's address or what somebody typed. Out: a checked {@link Room} and its endpoints. The rules
 * are those of the server (a name it would refuse never reaches it); nothing here touches the network.
 */

/** A room: `app/name`, as in every RTMP server. */
export interface Room {
  readonly app: string;
  readonly name: string;
}

/** Where the streams of a room are, absolute. */
export interface Endpoints {
  /** Multivariant playlist; LL-HLS and classic HLS alike. */
  readonly hls: string;
  /** HTTP-FLV. */
  readonly flv: string;
  /** The same path over WebSocket. */
  readonly wsflv: string;
}

/** The app of a name typed without one. */
export const DEFAULT_APP = 'live';

/** First path parts that the server keeps for itself. */
export const RESERVED_APPS: ReadonlySet<string> = new Set([
  'api',
  'assets',
  'console',
  'healthz',
  'metrics',
  'readyz',
  'route',
  'sse',
  'watch',
  'ws',
]);

const PART = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const RESERVED_ENDING = /\.(m3u8|flv)$/;

/** Reads `app/name` or a bare `name`; null if the server would not take it. */
export function parseRoom(text: string): Room | null {
  const parts = text.trim().split('/');
  const [app, name] = parts.length === 1 ? [DEFAULT_APP, parts[0]] : [parts[0], parts[1]];
  if (parts.length > 2 || !isPart(app) || !isPart(name) || RESERVED_APPS.has(app)) return null;
  return { app, name };
}

/** Reads the room out of `/watch/{app}/{name}`; null if there is none. */
export function roomFromPath(pathname: string): Room | null {
  const match = /^\/watch\/([^/]+)\/([^/]+)\/?$/.exec(pathname);
  if (!match?.[1] || !match[2]) return null;
  try {
    return parseRoom(`${decodeURIComponent(match[1])}/${decodeURIComponent(match[2])}`);
  } catch {
    return null; // a stray '%'
  }
}

/** `app/name`. */
export function roomLabel(room: Room): string {
  return `${room.app}/${room.name}`;
}

/** The path of the room's player page. */
export function watchPath(room: Room): string {
  return `/watch/${room.app}/${room.name}`;
}

/** The room's streams on the server that `origin` (`https://host:port`) names, for the holder of a token. */
export function endpoints(room: Room, origin: string, token: string | null = null): Endpoints {
  const path = `/${room.app}/${room.name}`;
  const socketOrigin = origin.replace(/^http/, 'ws');
  const query = token === null ? '' : `?token=${encodeURIComponent(token)}`;
  return {
    hls: `${origin}${path}.m3u8${query}`,
    flv: `${origin}${path}.flv${query}`,
    wsflv: `${socketOrigin}${path}.flv${query}`,
  };
}

function isPart(part: string | undefined): part is string {
  return part !== undefined && PART.test(part) && !RESERVED_ENDING.test(part);
}

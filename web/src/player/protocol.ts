/**
 * The ways to receive a room, and which of them this browser can take.
 *
 * In: a query parameter, the browser's abilities. Out: a {@link Protocol} and the words for it.
 */

export const PROTOCOLS = ['llhls', 'hls', 'flv', 'wsflv'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

export const DEFAULT_PROTOCOL: Protocol = 'llhls';

/** What the browser brings along. */
export interface Abilities {
  /** hls.js can run: MediaSource, or ManagedMediaSource (iOS 17.1 and later). */
  readonly hlsJs: boolean;
  /** The browser plays HLS by itself. */
  readonly nativeHls: boolean;
  /** mpegts.js can run: MediaSource and streaming fetch. */
  readonly mpegtsJs: boolean;
}

interface Wording {
  readonly label: string;
  readonly detail: string;
}

const WORDING: Record<Protocol, Wording> = {
  llhls: { label: 'LL-HLS', detail: 'Low latency: under a second behind' },
  hls: { label: 'HLS', detail: 'Classic: steady, seconds behind' },
  flv: { label: 'HTTP-FLV', detail: 'Lowest latency: one long download' },
  wsflv: { label: 'WS-FLV', detail: 'Lowest latency: over a WebSocket' },
};

const ALIASES: ReadonlyMap<string, Protocol> = new Map([
  ['ll-hls', 'llhls'],
  ['httpflv', 'flv'],
  ['http-flv', 'flv'],
  ['ws-flv', 'wsflv'],
]);

/** The protocol that `text` names, null if none. */
export function parseProtocol(text: string | null): Protocol | null {
  const wanted = text?.toLowerCase() ?? '';
  return PROTOCOLS.find((protocol) => protocol === wanted) ?? ALIASES.get(wanted) ?? null;
}

export function protocolLabel(protocol: Protocol): string {
  return WORDING[protocol].label;
}

export function protocolDetail(protocol: Protocol): string {
  return WORDING[protocol].detail;
}

/** Why `protocol` cannot be played here; null if it can. */
export function unavailable(protocol: Protocol, abilities: Abilities): string | null {
  const isFlv = protocol === 'flv' || protocol === 'wsflv';
  if (isFlv) return abilities.mpegtsJs ? null : 'This browser cannot play FLV';
  return abilities.hlsJs || abilities.nativeHls ? null : 'This browser cannot play HLS';
}

/**
 * Which player takes a protocol. hls.js goes first wherever it runs: Chromium also claims HLS for
 * itself and then plays it seven seconds behind. Native HLS is for iPhones without ManagedMediaSource.
 */
export function engineFor(protocol: Protocol, abilities: Abilities): 'hls.js' | 'mpegts.js' | 'native' | null {
  if (unavailable(protocol, abilities) !== null) return null;
  if (protocol === 'flv' || protocol === 'wsflv') return 'mpegts.js';
  return abilities.hlsJs ? 'hls.js' : 'native';
}

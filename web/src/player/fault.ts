/**
 * What can go wrong while playing, in one closed set, and what to tell the viewer.
 *
 * In: whatever an engine or an HTTP status says. Out: a {@link Fault}; the supervisor decides by its
 * kind, the page shows its sentence. Wording only; no decisions are made here.
 */

export type FaultKind =
  | 'not-found' // nobody streams under this name
  | 'busy' // the server knows the room and has nothing to send yet, or asks to come back later
  | 'denied' // not allowed to watch
  | 'network' // connection refused, broken, or timed out
  | 'server' // an answer that is not what was asked for
  | 'frozen' // time stood still without any error
  | 'decode' // the browser's decoder or buffer gave up
  | 'codec' // this browser has no decoder for it
  | 'unsupported'; // this browser can play nothing of what we offer

export interface Fault {
  readonly kind: FaultKind;
  /** For the overlay and bug reports: what the library or the server said. */
  readonly detail: string;
}

const SENTENCES: Record<FaultKind, string> = {
  'not-found': 'Nobody is streaming here right now.',
  busy: 'The server is not ready to send this stream yet.',
  denied: 'You are not allowed to watch this stream. Ask whoever sent you the link for a new one.',
  network: 'The connection to the server was lost.',
  server: 'The server gave an answer that the player does not understand.',
  frozen: 'The picture froze.',
  decode: 'Your browser could not decode the stream. Another protocol may work better.',
  codec: 'Your browser cannot play the video or audio format of this stream.',
  unsupported: 'Your browser cannot play live streams on this page. Try the links below in VLC or another browser.',
};

/** A human sentence for `fault`. */
export function faultSentence(fault: Fault): string {
  return SENTENCES[fault.kind];
}

/** The kind that an HTTP status stands for; status 0 is a request that got no answer. */
export function faultKindOfStatus(status: number): FaultKind {
  if (status === 404 || status === 410) return 'not-found';
  if (status === 401 || status === 403) return 'denied';
  if (status === 429 || status === 503) return 'busy';
  if (status === 0) return 'network';
  return 'server';
}

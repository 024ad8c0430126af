/**
 * What the player asks of a playback library: the seam between our logic and hls.js, mpegts.js or the
 * browser's own HLS.
 *
 * An engine lives for one attempt. It is attached to the element by its constructor's caller, reports at
 * most one fault or end, and never retries by itself beyond what its library does inside one request.
 */
import type { Fault } from './fault';

/** What a latency was measured against. */
export type LatencyBasis =
  /** The clock of the broadcast (EXT-X-PROGRAM-DATE-TIME) against this device's. */
  | 'program-date-time'
  /** The newest media that the playlist offers. */
  | 'live-edge'
  /** The newest media that has arrived: network and server delay are not in it. */
  | 'buffer';

export interface Latency {
  readonly seconds: number;
  readonly basis: LatencyBasis;
}

/** What an engine knows at a moment. */
export interface Figures {
  readonly latency: Latency | null;
  /** Seconds behind the newest media, the figure that is chased. */
  readonly edgeLatencyS: number | null;
  readonly targetS: number | null;
  readonly bitrateBps: number | null;
  /** RFC 6381, as far as known. */
  readonly codecs: string | null;
}

export const NO_FIGURES: Figures = { latency: null, edgeLatencyS: null, targetS: null, bitrateBps: null, codecs: null };

export interface EngineEvents {
  fault(fault: Fault): void;
  /** `certain`: the playlist said so; otherwise a connection was closed in good order. */
  ended(certain: boolean): void;
}

export interface Engine {
  readonly library: 'hls.js' | 'mpegts.js' | 'native';
  attach(): void;
  /** Every 100 ms while the page is visible and the viewer has not paused. */
  tick(nowMs: number): void;
  /** A stall began. */
  stalled(nowMs: number): void;
  /** Seeks to the live edge if it is not there already. */
  goLive(): void;
  figures(nowMs: number): Figures;
  destroy(): void;
}

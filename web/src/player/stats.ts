/**
 * The figures of a running player in one flat record: for the overlay, and as `window.tidewater.stats()`
 * for tests and bug reports. The names are a contract; units stand last in them.
 */
import type { LatencyBasis } from './engine';
import type { Protocol } from './protocol';
import type { State } from './supervisor';

export interface Stats {
  readonly room: string;
  readonly protocol: Protocol;
  /** The library that plays, null while none does. */
  readonly engine: 'hls.js' | 'mpegts.js' | 'native' | null;
  readonly state: State['name'];
  /** The kind and detail of the fault behind the state, null if there is none. */
  readonly fault: string | null;
  /** The playhead, in seconds of media time. */
  readonly currentTime: number;
  readonly latency_s: number | null;
  readonly latency_basis: LatencyBasis | null;
  /** Behind the newest media offered (HLS) or received (FLV). */
  readonly edge_latency_s: number | null;
  readonly target_latency_s: number | null;
  readonly playback_rate: number;
  readonly buffer_s: number;
  readonly bitrate_bps: number | null;
  readonly width: number;
  readonly height: number;
  readonly fps: number | null;
  readonly codecs: string | null;
  /** Frames decoded and not shown, and all frames, since the page opened. */
  readonly dropped: number;
  readonly frames: number;
  readonly stalls: number;
  readonly stalled_s: number;
  readonly reconnects: number;
  /** From asking for the stream to the first moving picture; null until then. */
  readonly startup_ms: number | null;
  readonly muted: boolean;
  readonly volume: number;
}

/**
 * LL-HLS and classic HLS by hls.js.
 *
 * In: a multivariant playlist URL and a video element. Out: pictures, figures, one fault or end. hls.js
 * loads and buffers; the distance to the live edge is ours (`chaser.ts`), because its own catch-up needs a
 * second in the buffer and so holds LL-HLS a second behind. Where MediaSource is missing it uses
 * ManagedMediaSource (iOS 17.1 and later).
 */
import Hls, { ErrorDetails, ErrorTypes, Events, type ErrorData, type HlsConfig, type RetryConfig } from 'hls.js/light';
import { chaseRate, LatencyTarget, shouldJump, StartSkip } from './chaser';
import { NO_FIGURES, type Engine, type EngineEvents, type Figures, type Latency } from './engine';
import { faultKindOfStatus, type Fault } from './fault';
import { SpanMeter } from './meter';
import { bufferedAheadS } from './playhead';

/** Seconds of media that the bitrate is averaged over. */
const BITRATE_WINDOW_S = 4;
/** Played media kept in the buffer; nobody rewinds here. */
const BACK_BUFFER_S = 10;
/** Media buffered ahead at most. */
const AHEAD_BUFFER_S = 30;
/**
 * A broadcast clock further from the playlist's edge than this is a clock set wrong, here or there; the
 * distance to the edge is shown then.
 */
const PLAUSIBLE_CLOCK_S = { earlier: 0.2, later: 10 };

/**
 * Inside one playlist or segment request hls.js retries by itself, so that an edge replaced under the same
 * URL is not seen at all: a refused connection (status 0) and 5xx, but never a 4xx, which is an answer.
 */
const REQUEST_RETRY: RetryConfig = {
  maxNumRetry: 4,
  retryDelayMs: 250,
  maxRetryDelayMs: 2_000,
  shouldRetry: (config, count, _isTimeout, response, retry) =>
    retry || (count < (config?.maxNumRetry ?? 0) && (response?.code ?? 0) === 0),
};
const TIMEOUT_RETRY: RetryConfig = { maxNumRetry: 1, retryDelayMs: 0, maxRetryDelayMs: 0 };
/** A blocking playlist request is held for up to three target durations, which are at most 10 s. */
const PLAYLIST_FIRST_BYTE_MS = 32_000;
const SEGMENT_FIRST_BYTE_MS = 10_000;

const CODEC_ERRORS: ReadonlySet<string> = new Set([
  ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR,
  ErrorDetails.BUFFER_ADD_CODEC_ERROR,
  ErrorDetails.BUFFER_INCOMPATIBLE_CODECS_ERROR,
]);
const PLAYLIST_ERRORS: ReadonlySet<string> = new Set([
  ErrorDetails.MANIFEST_LOAD_ERROR,
  ErrorDetails.LEVEL_LOAD_ERROR,
]);

export class HlsEngine implements Engine {
  readonly library = 'hls.js';
  private readonly hls: Hls;
  private readonly target = new LatencyTarget();
  private readonly bitrate = new SpanMeter(BITRATE_WINDOW_S);
  private readonly startSkip = new StartSkip();
  private over = false;

  /** Whether hls.js can run in this browser. */
  static isSupported(): boolean {
    return Hls.isSupported();
  }

  constructor(
    private readonly video: HTMLVideoElement,
    private readonly url: string,
    private readonly lowLatency: boolean,
    private readonly events: EngineEvents,
  ) {
    this.hls = new Hls(config(lowLatency));
    this.hls.on(Events.ERROR, (_event, data) => this.onError(data));
    this.hls.on(Events.FRAG_LOADED, (_event, data) => {
      this.bitrate.add(data.payload.byteLength * 8, (data.part ?? data.frag).duration);
    });
    this.hls.on(Events.LEVEL_LOADED, (_event, data) => {
      // A list that was complete before we came has nothing live to show; one that completes is played out.
      if (!data.details.live && !this.started()) this.finish(true);
    });
    this.video.addEventListener('ended', this.onEnded);
  }

  attach(): void {
    this.hls.attachMedia(this.video);
    this.hls.loadSource(this.url);
  }

  tick(nowMs: number): void {
    const edgeLatencyS = this.edgeLatencyS();
    const targetS = this.targetS(nowMs);
    if (edgeLatencyS === null || targetS === null || !this.started() || this.video.seeking) return;
    if (shouldJump(edgeLatencyS, targetS)) this.goLive();
    if (!this.lowLatency) return;
    const aheadS = bufferedAheadS(this.video.buffered, this.video.currentTime);
    const chase = { latencyS: edgeLatencyS, targetS, aheadS };
    const skipS = this.startSkip.skipS(nowMs, chase);
    if (skipS > 0) this.video.currentTime += skipS;
    this.setRate(chaseRate(chase));
  }

  stalled(nowMs: number): void {
    this.target.stalled(nowMs);
  }

  goLive(): void {
    const edgeLatencyS = this.edgeLatencyS();
    const position = this.hls.liveSyncPosition;
    // Half a second is chased, not jumped: a seek is a visible hitch.
    if (position === null || edgeLatencyS === null || position < this.video.currentTime + 0.5) return;
    this.video.currentTime = position;
  }

  figures(nowMs: number): Figures {
    if (!this.started()) return NO_FIGURES;
    const edgeLatencyS = this.edgeLatencyS();
    const level = this.hls.levels[Math.max(0, this.hls.currentLevel)];
    const codecs = [level?.videoCodec, level?.audioCodec].filter((codec) => codec !== undefined).join(', ');
    return {
      latency: this.latency(edgeLatencyS),
      edgeLatencyS,
      targetS: this.targetS(nowMs),
      bitrateBps: this.bitrate.perSecond(),
      codecs: codecs === '' ? null : codecs,
    };
  }

  destroy(): void {
    this.over = true;
    this.video.removeEventListener('ended', this.onEnded);
    this.hls.destroy();
    this.setRate(1);
  }

  private readonly onEnded = (): void => this.finish(true);

  private started(): boolean {
    return this.video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
  }

  /** Computed anew rather than taken from hls.js, which refreshes its figure four times a second. */
  private edgeLatencyS(): number | null {
    const details = this.hls.latestLevelDetails;
    if (!details?.live) return null;
    return details.edge + details.age - this.video.currentTime;
  }

  private targetS(nowMs: number): number | null {
    const holdBackS = this.hls.targetLatency;
    if (holdBackS === null) return null;
    return this.lowLatency ? this.target.valueS(nowMs, holdBackS) : holdBackS;
  }

  private latency(edgeLatencyS: number | null): Latency | null {
    if (edgeLatencyS === null) return null;
    const playingDate = this.hls.playingDate;
    if (playingDate !== null) {
      const seconds = (Date.now() - playingDate.getTime()) / 1000;
      const isPlausible =
        seconds > edgeLatencyS - PLAUSIBLE_CLOCK_S.earlier && seconds < edgeLatencyS + PLAUSIBLE_CLOCK_S.later;
      if (isPlausible) return { seconds, basis: 'program-date-time' };
    }
    return { seconds: edgeLatencyS, basis: 'live-edge' };
  }

  private setRate(rate: number): void {
    if (this.video.playbackRate !== rate) this.video.playbackRate = rate;
  }

  private onError(data: ErrorData): void {
    if (!data.fatal || this.over) return;
    this.over = true;
    this.events.fault(faultOf(data));
  }

  private finish(certain: boolean): void {
    if (this.over) return;
    this.over = true;
    this.events.ended(certain);
  }
}

function config(lowLatency: boolean): Partial<HlsConfig> {
  return {
    lowLatencyMode: lowLatency,
    // fMP4 passes through untouched, so a worker would only cost a thread and a wider CSP.
    enableWorker: false,
    backBufferLength: BACK_BUFFER_S,
    maxBufferLength: AHEAD_BUFFER_S,
    maxLiveSyncPlaybackRate: 1,
    liveSyncOnStallIncrease: lowLatency ? 0 : 1,
    manifestLoadPolicy: {
      default: { maxTimeToFirstByteMs: Infinity, maxLoadTimeMs: 20_000, timeoutRetry: null, errorRetry: null },
    },
    playlistLoadPolicy: {
      default: {
        maxTimeToFirstByteMs: PLAYLIST_FIRST_BYTE_MS,
        maxLoadTimeMs: PLAYLIST_FIRST_BYTE_MS + 8_000,
        timeoutRetry: TIMEOUT_RETRY,
        errorRetry: REQUEST_RETRY,
      },
    },
    fragLoadPolicy: {
      default: {
        maxTimeToFirstByteMs: SEGMENT_FIRST_BYTE_MS,
        maxLoadTimeMs: 60_000,
        timeoutRetry: TIMEOUT_RETRY,
        errorRetry: REQUEST_RETRY,
      },
    },
  };
}

function faultOf(data: ErrorData): Fault {
  const status = data.response?.code;
  const detail = `${data.details}${status ? ` (HTTP ${status})` : ''}: ${data.error.message}`;
  if (CODEC_ERRORS.has(data.details)) return { kind: 'codec', detail };
  if (data.type === ErrorTypes.MEDIA_ERROR || data.type === ErrorTypes.MUX_ERROR) return { kind: 'decode', detail };
  // Only a playlist's 404 says that the room is gone; a segment's says that we were late.
  if (PLAYLIST_ERRORS.has(data.details)) return { kind: faultKindOfStatus(status ?? 0), detail };
  return { kind: 'network', detail };
}

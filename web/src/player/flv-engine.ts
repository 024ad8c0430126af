/**
 * HTTP-FLV and WS-FLV by mpegts.js.
 *
 * In: an http(s) or ws(s) URL and a video element. Out: pictures, figures, one fault or end. The stream
 * carries no clock, so its latency is what is buffered and not yet shown; mpegts.js keeps that near its
 * target by itself. Loaded on demand: most viewers never need it.
 */
import mpegts from 'mpegts.js';
import { shouldJump } from './chaser';
import { NO_FIGURES, type Engine, type EngineEvents, type Figures } from './engine';
import { faultKindOfStatus, type FaultKind } from './fault';
import { SpanMeter } from './meter';
import { bufferedAheadS, bufferedEndS } from './playhead';

/** Buffered and not yet shown: where mpegts.js steers to, and from where it begins to. */
const TARGET_LATENCY_S = 0.3;
const MAX_LATENCY_S = 0.6;
const CATCH_UP_RATE = 1.2;
/** mpegts.js reports its network speed this often. */
const REPORT_MS = 500;
const BITRATE_WINDOW_S = 4;
/** A format complaint counts only if there is no picture so long after it: some are about a tag one can do without. */
const FORMAT_PATIENCE_MS = 3_000;

mpegts.LoggingControl.applyConfig({
  enableVerbose: false,
  enableDebug: false,
  enableInfo: false,
  enableWarn: false,
});

type Player = ReturnType<typeof mpegts.createPlayer>;

export class FlvEngine implements Engine {
  readonly library = 'mpegts.js';
  private readonly player: Player;
  private readonly bitrate = new SpanMeter(BITRATE_WINDOW_S);
  private formatTimer: ReturnType<typeof setTimeout> | undefined;
  private over = false;

  constructor(
    private readonly video: HTMLVideoElement,
    url: string,
    private readonly events: EngineEvents,
  ) {
    this.player = mpegts.createPlayer(
      { type: 'flv', isLive: true, url },
      {
        enableStashBuffer: false,
        lazyLoad: false,
        liveSync: true,
        liveSyncTargetLatency: TARGET_LATENCY_S,
        liveSyncMaxLatency: MAX_LATENCY_S,
        liveSyncPlaybackRate: CATCH_UP_RATE,
        statisticsInfoReportInterval: REPORT_MS,
        autoCleanupSourceBuffer: true,
        autoCleanupMaxBackwardDuration: 30,
        autoCleanupMinBackwardDuration: 10,
      },
    );
    this.player.on(mpegts.Events.ERROR, (type: string, detail: string, info: { code?: number; msg?: string }) =>
      this.onError(type, detail, info),
    );
    this.player.on(mpegts.Events.LOADING_COMPLETE, () => this.finish());
    this.player.on(mpegts.Events.STATISTICS_INFO, (info: { speed?: number }) => {
      this.bitrate.add((info.speed ?? 0) * 1024 * 8 * (REPORT_MS / 1000), REPORT_MS / 1000);
    });
  }

  attach(): void {
    this.player.attachMediaElement(this.video);
    this.player.load();
  }

  tick(): void {
    const latencyS = this.behindS();
    if (latencyS !== null && shouldJump(latencyS, MAX_LATENCY_S)) this.goLive();
  }

  stalled(): void {}

  goLive(): void {
    const end = bufferedEndS(this.video.buffered);
    if (end !== null && end - this.video.currentTime > MAX_LATENCY_S) this.video.currentTime = end - TARGET_LATENCY_S;
  }

  figures(): Figures {
    const behindS = this.behindS();
    if (behindS === null) return NO_FIGURES;
    const media = this.player.mediaInfo as { videoCodec?: string; audioCodec?: string };
    const codecs = [media.videoCodec, media.audioCodec].filter((codec) => codec !== undefined).join(', ');
    return {
      latency: { seconds: behindS, basis: 'buffer' },
      edgeLatencyS: behindS,
      targetS: TARGET_LATENCY_S,
      bitrateBps: this.bitrate.perSecond(),
      codecs: codecs === '' ? null : codecs,
    };
  }

  destroy(): void {
    this.over = true;
    clearTimeout(this.formatTimer);
    this.player.destroy();
    this.video.playbackRate = 1;
  }

  private behindS(): number | null {
    if (this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return null;
    return bufferedAheadS(this.video.buffered, this.video.currentTime);
  }

  private onError(type: string, detail: string, info: { code?: number; msg?: string }): void {
    const text = `${detail}: ${info.msg ?? ''} ${info.code ?? ''}`.trim();
    if (type === mpegts.ErrorTypes.NETWORK_ERROR) {
      const refused = detail === mpegts.ErrorDetails.NETWORK_STATUS_CODE_INVALID;
      this.fail(refused ? faultKindOfStatus(info.code ?? 0) : 'network', text);
    } else if (detail === mpegts.ErrorDetails.MEDIA_MSE_ERROR) {
      this.fail('decode', text);
    } else if (this.formatTimer === undefined) {
      this.formatTimer = setTimeout(() => {
        if (this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) this.fail('codec', text);
      }, FORMAT_PATIENCE_MS);
    }
  }

  private fail(kind: FaultKind, detail: string): void {
    if (this.over) return;
    this.over = true;
    this.events.fault({ kind, detail });
  }

  private finish(): void {
    if (this.over) return;
    this.over = true;
    this.events.ended(false);
  }
}

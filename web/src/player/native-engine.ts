/**
 * HLS by the browser itself, where hls.js cannot run: iPhones without ManagedMediaSource.
 *
 * In: a playlist URL and a video element. Out: pictures, one fault or end. The browser tells next to
 * nothing, so figures are few and any error is left to the supervisor's look-up to explain.
 */
import { NO_FIGURES, type Engine, type EngineEvents, type Figures } from './engine';

/** Behind the end of what may be sought, where the browser itself likes to start. */
const LIVE_MARGIN_S = 3;

export class NativeEngine implements Engine {
  readonly library = 'native';

  static isSupported(video: HTMLVideoElement): boolean {
    return video.canPlayType('application/vnd.apple.mpegurl') !== '';
  }

  constructor(
    private readonly video: HTMLVideoElement,
    private readonly url: string,
    private readonly events: EngineEvents,
  ) {}

  attach(): void {
    this.video.addEventListener('error', this.onError);
    this.video.addEventListener('ended', this.onEnded);
    this.video.src = this.url;
  }

  tick(): void {}

  stalled(): void {}

  goLive(): void {
    const end = this.seekableEndS();
    if (end !== null && end - this.video.currentTime > LIVE_MARGIN_S + 1) this.video.currentTime = end - LIVE_MARGIN_S;
  }

  figures(): Figures {
    const end = this.seekableEndS();
    if (end === null) return NO_FIGURES;
    const seconds = Math.max(0, end - this.video.currentTime);
    return { ...NO_FIGURES, latency: { seconds, basis: 'live-edge' }, edgeLatencyS: seconds };
  }

  destroy(): void {
    this.video.removeEventListener('error', this.onError);
    this.video.removeEventListener('ended', this.onEnded);
    this.video.removeAttribute('src');
    this.video.load();
  }

  private readonly onError = (): void => {
    this.events.fault({ kind: 'network', detail: this.video.error?.message || `media error ${this.video.error?.code}` });
  };

  private readonly onEnded = (): void => this.events.ended(true);

  private seekableEndS(): number | null {
    const { seekable } = this.video;
    const end = seekable.length === 0 ? NaN : seekable.end(seekable.length - 1);
    return Number.isFinite(end) ? end : null;
  }
}

/**
 * The player: one video element, one room, one supervisor, and an engine at a time.
 *
 * In: the viewer's wishes from the page, events of element, document and network. Out: pictures, a change
 * notice whenever there is something else to show, {@link Stats}. It is the shell around the pure
 * supervisor: it owns the timer, runs the actions and hands in what comes of them. It knows no page.
 */
import { CHASE_PERIOD_MS } from './chaser';
import { NO_FIGURES, type Engine, type EngineEvents } from './engine';
import { HlsEngine } from './hls-engine';
import { lookUp } from './lookup';
import { CounterMeter } from './meter';
import { NativeEngine } from './native-engine';
import { bufferedAheadS } from './playhead';
import { engineFor, type Abilities, type Protocol } from './protocol';
import { endpoints, roomLabel, type Endpoints, type Room } from './room';
import type { Stats } from './stats';
import { Supervisor, type Action, type State } from './supervisor';

const FPS_WINDOW_MS = 2_000;

/** What the page wants to hear. */
export interface PlayerEvents {
  /** State, volume or muting changed. */
  changed(): void;
  /** The picture is about to go: the engine is being dropped. */
  leaving(): void;
}

export class Player {
  private readonly supervisor = new Supervisor();
  private readonly urls: Endpoints;
  private readonly fps = new CounterMeter(FPS_WINDOW_MS);
  private readonly lifetime = new AbortController();
  private timer: ReturnType<typeof setInterval> | undefined;
  private engine: Engine | null = null;
  /** Tells an engine that is still being loaded that it is no longer wanted. */
  private attachment = 0;
  private lookUps = 0;
  private attachedMs = 0;
  private startupMs: number | null = null;
  private soundWasBlocked = false;
  private resumeWhenShown = false;
  private droppedBefore = { dropped: 0, frames: 0 };

  constructor(
    readonly video: HTMLVideoElement,
    readonly room: Room,
    origin: string,
    private readonly abilities: Abilities,
    private chosen: Protocol,
    private readonly events: PlayerEvents,
    token: string | null = null,
  ) {
    this.urls = endpoints(room, origin, token);
  }

  get state(): State {
    return this.supervisor.state;
  }
  get protocol(): Protocol {
    return this.chosen;
  }
  /** Playing muted only because the browser would not allow sound without a tap. */
  get soundBlocked(): boolean {
    return this.soundWasBlocked && this.video.muted;
  }

  start(): void {
    this.listen();
    this.timer = setInterval(() => this.tick(), CHASE_PERIOD_MS);
    this.run(this.supervisor.start(performance.now()));
  }

  destroy(): void {
    clearInterval(this.timer);
    this.lifetime.abort();
    this.detach();
  }

  setProtocol(protocol: Protocol): void {
    if (protocol === this.chosen) return;
    this.chosen = protocol;
    this.startupMs = null;
    this.run(this.supervisor.start(performance.now()));
  }

  /** Tries at once whatever is being waited for, or starts over if nothing is. */
  retry(): void {
    const actions = this.supervisor.hurry();
    this.run(actions.length > 0 ? actions : this.supervisor.start(performance.now()));
  }

  togglePlay(): void {
    const name = this.state.name;
    if (name === 'paused') this.run(this.supervisor.resume(performance.now()));
    else if (name === 'failed') this.retry();
    else this.pause();
  }

  pause(): void {
    this.run(this.supervisor.pause(performance.now()));
    if (this.state.name === 'paused') this.video.pause();
  }

  goLive(): void {
    if (this.state.name === 'paused') this.run(this.supervisor.resume(performance.now()));
    else this.engine?.goLive();
  }

  setMuted(muted: boolean): void {
    this.video.muted = muted;
    if (!muted) {
      this.soundWasBlocked = false;
      if (this.video.volume === 0) this.video.volume = 0.5;
    }
  }

  /** `volume` from 0 to 1; sets and unsets muting as people expect it to. */
  setVolume(volume: number): void {
    this.video.volume = Math.min(1, Math.max(0, volume));
    this.setMuted(this.video.volume === 0);
  }

  stats(): Stats {
    const now = performance.now();
    const { video, supervisor } = this;
    const figures = this.engine?.figures(now) ?? NO_FIGURES;
    const state = supervisor.state;
    const fault = 'fault' in state ? state.fault : null;
    const quality = this.quality();
    return {
      room: roomLabel(this.room),
      protocol: this.chosen,
      engine: this.engine?.library ?? null,
      state: state.name,
      fault: fault === null ? null : `${fault.kind}: ${fault.detail}`,
      currentTime: video.currentTime,
      latency_s: figures.latency?.seconds ?? null,
      latency_basis: figures.latency?.basis ?? null,
      edge_latency_s: figures.edgeLatencyS,
      target_latency_s: figures.targetS,
      playback_rate: video.playbackRate,
      buffer_s: bufferedAheadS(video.buffered, video.currentTime),
      bitrate_bps: figures.bitrateBps,
      width: video.videoWidth,
      height: video.videoHeight,
      fps: state.name === 'playing' ? this.fps.perSecond() : null,
      codecs: figures.codecs,
      dropped: this.droppedBefore.dropped + quality.dropped,
      frames: this.droppedBefore.frames + quality.frames,
      stalls: supervisor.stalls,
      stalled_s: supervisor.stalledMs / 1000,
      reconnects: supervisor.reconnectCount,
      startup_ms: this.startupMs,
      muted: video.muted,
      volume: video.volume,
    };
  }

  private listen(): void {
    const { signal } = this.lifetime;
    const { video, supervisor } = this;
    const on = (target: EventTarget, name: string, listener: () => void): void =>
      target.addEventListener(name, listener, { signal });
    on(video, 'pause', () => this.onPause());
    on(video, 'play', () => {
      if (this.state.name === 'paused') this.run(supervisor.resume(performance.now()));
    });
    on(video, 'volumechange', () => this.events.changed());
    on(video, 'error', () => this.onMediaError());
    on(document, 'visibilitychange', () => this.onVisibility());
    on(window, 'online', () => this.run(supervisor.hurry()));
  }

  /** A pause that nobody here asked for: media keys, picture-in-picture, a phone going to sleep. */
  private onPause(): void {
    if (!this.video.paused || this.video.ended || this.engine === null) return;
    if (this.state.name !== 'playing' && this.state.name !== 'waiting') return;
    this.resumeWhenShown = document.hidden;
    this.run(this.supervisor.pause(performance.now()));
  }

  private onMediaError(): void {
    const error = this.video.error;
    // The native engine reports by itself; an element being emptied reports an error that is gone by now.
    if (error === null || this.engine === null || this.engine.library === 'native') return;
    const kind = error.code === MediaError.MEDIA_ERR_NETWORK ? 'network' : 'decode';
    this.run(this.supervisor.fault(performance.now(), { kind, detail: error.message || `media error ${error.code}` }));
  }

  private onVisibility(): void {
    this.run(this.supervisor.visibility(performance.now(), !document.hidden));
    if (!document.hidden && this.resumeWhenShown) {
      this.resumeWhenShown = false;
      this.run(this.supervisor.resume(performance.now()));
    }
  }

  private tick(): void {
    const now = performance.now();
    const { video, supervisor } = this;
    const before = supervisor.stalls;
    this.run(supervisor.tick(now, {
      timeS: video.currentTime,
      expected: !video.paused && !video.ended,
      seeking: video.seeking,
    }));
    if (this.state.name === 'playing') this.fps.read(now, this.quality().frames);
    if (this.engine === null || document.hidden || video.paused) return;
    if (supervisor.stalls > before) this.engine.stalled(now);
    this.engine.tick(now);
  }

  /** Runs what the supervisor decided and tells the page if that changed its state. */
  private run(actions: readonly Action[]): void {
    for (const action of actions) this.perform(action);
    this.notice();
  }

  private shown: State | null = null;

  private notice(): void {
    const state = this.supervisor.state;
    if (state === this.shown) return;
    this.shown = state;
    if (state.name === 'playing') this.startupMs ??= performance.now() - this.attachedMs;
    this.events.changed();
  }

  private perform(action: Action): void {
    switch (action) {
      case 'attach':
        void this.attach();
        break;
      case 'detach':
        this.detach();
        break;
      case 'look-up':
        void this.askServer();
        break;
      case 'go-live':
        this.engine?.goLive();
        break;
      case 'play':
        void this.play();
        break;
    }
  }

  private async attach(): Promise<void> {
    const attachment = ++this.attachment;
    if (this.startupMs === null) this.attachedMs = performance.now();
    const isCurrent = (): boolean => attachment === this.attachment;
    const events: EngineEvents = {
      // Engines may report from inside their constructor or attach(); the supervisor must be done first.
      fault: (fault) => queueMicrotask(() => isCurrent() && this.run(this.supervisor.fault(performance.now(), fault))),
      ended: (certain) =>
        queueMicrotask(() => isCurrent() && this.run(this.supervisor.streamEnded(performance.now(), certain))),
    };
    try {
      const engine = await this.createEngine(events);
      if (engine === null || !isCurrent()) return;
      this.engine = engine;
      engine.attach();
      await this.play();
    } catch (error) {
      if (isCurrent()) events.fault({ kind: 'network', detail: `the player could not be loaded: ${String(error)}` });
    }
  }

  /** Throws if the code of an engine that is loaded on demand cannot be had. */
  private async createEngine(events: EngineEvents): Promise<Engine | null> {
    switch (engineFor(this.chosen, this.abilities)) {
      case 'hls.js':
        return new HlsEngine(this.video, this.urls.hls, this.chosen === 'llhls', events);
      case 'native':
        return new NativeEngine(this.video, this.urls.hls, events);
      case 'mpegts.js': {
        const { FlvEngine } = await import('./flv-engine');
        return new FlvEngine(this.video, this.chosen === 'flv' ? this.urls.flv : this.urls.wsflv, events);
      }
      case null:
        events.fault({ kind: 'unsupported', detail: `no player for ${this.chosen} in this browser` });
        return null;
    }
  }

  private detach(): void {
    this.attachment += 1;
    if (this.engine === null) return;
    const quality = this.quality();
    this.droppedBefore.dropped += quality.dropped;
    this.droppedBefore.frames += quality.frames;
    this.events.leaving();
    this.engine.destroy();
    this.engine = null;
  }

  private async askServer(): Promise<void> {
    const question = ++this.lookUps;
    const verdict = await lookUp(this.urls.hls);
    if (question === this.lookUps) this.run(this.supervisor.verdict(performance.now(), verdict));
  }

  /** Plays; muted if the browser wants that, not at all if it wants a tap for that too. */
  private async play(): Promise<void> {
    if (await this.tryToPlay()) return;
    if (!this.video.muted) {
      this.video.muted = true;
      this.soundWasBlocked = true;
      if (await this.tryToPlay()) return;
    }
    this.run(this.supervisor.pause(performance.now()));
  }

  /** False if the browser forbids it; any other failure shows by itself. */
  private async tryToPlay(): Promise<boolean> {
    try {
      await this.video.play();
      return true;
    } catch (error) {
      return !(error instanceof DOMException && error.name === 'NotAllowedError');
    }
  }

  private quality(): { dropped: number; frames: number } {
    const quality = this.video.getVideoPlaybackQuality?.();
    return { dropped: quality?.droppedVideoFrames ?? 0, frames: quality?.totalVideoFrames ?? 0 };
  }
}

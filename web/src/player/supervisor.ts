/**
 * Decides what the player does next: load, wait, reconnect, rest, give up.
 *
 * In: the clock, readings of the playhead, faults of the engine, verdicts of look-ups, the viewer's wishes.
 * Out: {@link Action}s for the shell, and the {@link State} to show. Pure: no timer, element or request in
 * here, so every path can be replayed in a test. It is the one owner of retries; engines only report.
 *
 * A playhead that stands still has two causes that look alike: the player froze, or the publisher went
 * silent. Reloading cures the first and, in the second, would replay the last second for ever. So a stall is
 * settled by two look-ups: if the playlist's head moved between them, the player is at fault.
 */
import { retryDelayMs } from './backoff';
import type { Fault } from './fault';
import type { Verdict } from './lookup';
import { StallWatch, type PlaybackSample } from './stall';

/** Into a stall, when the server is first asked how the room is. */
export const SUSPECT_AFTER_MS = 1_500;
/** Into a stall, when it is asked again and the player reloaded if it is to blame. */
export const FROZEN_AFTER_MS = 3_000;
/** Into a stall, when the player is reloaded whatever the server says, or does not say. */
export const HUNG_AFTER_MS = 6_000;
/** A new engine must show something within this time: the server holds a starting room's requests 10 s. */
export const LOADING_LIMIT_MS = 12_000;
/** Playing for so long without a fault makes the next one the first again. */
export const HEALTHY_AFTER_MS = 10_000;
/** Reloads in a row after which a decoder that fails is believed. */
export const MAX_DECODE_RETRIES = 3;
/** Between look-ups while the publisher is silent. */
export const WAITING_POLL_MS = 1_000;
/** Between look-ups of a room that is offline or over: at first, after {@link PATIENT_AFTER_MS}, and unseen. */
export const OFFLINE_POLL_MS = 2_000;
export const PATIENT_POLL_MS = 5_000;
export const PATIENT_AFTER_MS = 60_000;
export const HIDDEN_POLL_MS = 15_000;
/** A pause longer than this lets go of the stream. */
export const PAUSE_KEEPS_MS = 30_000;

export type State =
  /** A player is starting; nothing to see yet. */
  | { readonly name: 'loading' }
  | { readonly name: 'playing' }
  /** By the viewer, or by a browser that wants a tap first. */
  | { readonly name: 'paused' }
  /** The room is there, its publisher silent. */
  | { readonly name: 'waiting' }
  | { readonly name: 'reconnecting'; readonly fault: Fault; readonly attempt: number }
  /** Nobody streams here. */
  | { readonly name: 'offline' }
  /** The stream is over. */
  | { readonly name: 'ended' }
  /** Nothing more will be tried without the viewer. */
  | { readonly name: 'failed'; readonly fault: Fault };

export type Action =
  /** Start an engine. */
  | 'attach'
  /** Drop the engine. */
  | 'detach'
  /** Ask the server about the room, answer with {@link Supervisor.verdict}. */
  | 'look-up'
  /** Go to the live edge. */
  | 'go-live'
  /** Let the element play. */
  | 'play';

export class Supervisor {
  private current: State = { name: 'loading' };
  private readonly watch = new StallWatch();
  private actions: Action[] = [];
  private attached = false;
  private everPlayed = false;
  private visible = true;
  private enteredMs = 0;
  private attachedMs = 0;
  private attempt = 0;
  private reconnects = 0;
  /** A look-up is under way whose answer this state waits for. */
  private lookingUp = false;
  /** When the next look-up is due; null if none is. */
  private lookUpAtMs: number | null = null;
  /** The playlist's head as first seen in this stall. */
  private suspectHead: string | null = null;
  private headMovedMs: number | null = null;

  constructor(private readonly random: () => number = Math.random) {}

  get state(): State {
    return this.current;
  }
  get stalls(): number {
    return this.watch.stalls;
  }
  get stalledMs(): number {
    return this.watch.stalledMs;
  }
  /** How often the engine was dropped because of a fault. */
  get reconnectCount(): number {
    return this.reconnects;
  }

  /** Starts, or starts over because the viewer asked: retry, another protocol. */
  start(nowMs: number): Action[] {
    this.attempt = 0;
    this.lookUpAtMs = null;
    this.detach();
    this.load(nowMs);
    return this.take();
  }

  /** A reading of the playhead; also drives everything that is due by time. */
  tick(nowMs: number, sample: PlaybackSample): Action[] {
    const stallable = this.current.name === 'playing';
    const movement = this.watch.observe(nowMs, { ...sample, expected: sample.expected && this.visible }, stallable);
    if (this.attached && movement.advanced) this.advanced(nowMs);
    switch (this.current.name) {
      case 'playing':
        this.judgeStall(movement.stillMs, nowMs);
        if (nowMs - this.enteredMs >= HEALTHY_AFTER_MS && movement.advanced) this.attempt = 0;
        break;
      case 'loading':
      case 'reconnecting':
        if (this.attached && this.visible && nowMs - this.attachedMs >= LOADING_LIMIT_MS) {
          this.reconnect(nowMs, { kind: 'network', detail: 'no picture in time' });
        }
        break;
      case 'waiting':
        if (this.headMovedMs !== null && nowMs - this.headMovedMs >= FROZEN_AFTER_MS) {
          this.reconnect(nowMs, { kind: 'frozen', detail: 'did not go on with its publisher' });
        }
        break;
      case 'paused':
        if (this.attached && nowMs - this.enteredMs >= PAUSE_KEEPS_MS) this.detach();
        break;
      default:
        break;
    }
    if (this.lookUpAtMs !== null && nowMs >= this.lookUpAtMs) this.lookUp();
    return this.take();
  }

  /** The engine gave up. */
  fault(nowMs: number, fault: Fault): Action[] {
    if (!this.attached) return [];
    if (this.current.name === 'paused') {
      this.detach(); // found out again on resume
      return this.take();
    }
    switch (fault.kind) {
      case 'not-found':
        this.rest(nowMs, this.everPlayed ? 'ended' : 'offline');
        break;
      case 'busy':
        this.waitFor(nowMs, WAITING_POLL_MS);
        break;
      case 'denied':
      case 'codec':
      case 'unsupported':
        this.fail(nowMs, fault);
        break;
      case 'decode':
        if (this.attempt >= MAX_DECODE_RETRIES) this.fail(nowMs, fault);
        else this.reconnect(nowMs, fault);
        break;
      default:
        this.reconnect(nowMs, fault);
    }
    return this.take();
  }

  /** The engine reached the end. `certain`: by an ENDLIST; otherwise a connection closed and the server decides. */
  streamEnded(nowMs: number, certain: boolean): Action[] {
    if (!this.attached) return [];
    if (certain) this.rest(nowMs, 'ended');
    else this.reconnect(nowMs, { kind: 'network', detail: 'the server closed the stream' });
    return this.take();
  }

  /** The answer to a look-up; one that comes after the state it was asked in is ignored. */
  verdict(nowMs: number, verdict: Verdict): Action[] {
    if (!this.lookingUp) return [];
    this.lookingUp = false;
    switch (this.current.name) {
      case 'playing':
        this.verdictOnStall(nowMs, verdict);
        break;
      case 'waiting':
        this.verdictWhileWaiting(nowMs, verdict);
        break;
      case 'reconnecting':
        if (!this.attached) this.verdictBeforeAttach(nowMs, verdict);
        break;
      case 'offline':
      case 'ended':
        this.verdictWhileResting(nowMs, verdict);
        break;
      default:
        break;
    }
    return this.take();
  }

  /** The viewer, or the browser, paused. */
  pause(nowMs: number): Action[] {
    const name = this.current.name;
    if (name === 'playing' || name === 'loading' || (this.attached && name === 'waiting')) this.enter(nowMs, { name: 'paused' });
    return this.take();
  }

  /** The viewer wants to see it. */
  resume(nowMs: number): Action[] {
    if (this.current.name !== 'paused') return [];
    if (this.attached) {
      this.enter(nowMs, { name: 'loading' });
      this.attachedMs = nowMs;
      this.actions.push('go-live', 'play');
    } else {
      this.load(nowMs);
    }
    return this.take();
  }

  /** The page came into view or left it. */
  visibility(nowMs: number, visible: boolean): Action[] {
    if (visible === this.visible) return [];
    this.visible = visible;
    this.watch.rest();
    if (!visible) return [];
    this.attachedMs = nowMs; // timers slept; a fresh limit for what was loading
    if (this.current.name === 'playing') this.actions.push('go-live');
    return this.hurry();
  }

  /** The viewer is tired of waiting, or the network came back: whatever is due later is due now. */
  hurry(): Action[] {
    if (this.lookUpAtMs !== null) this.lookUp();
    return this.take();
  }

  private take(): Action[] {
    const actions = this.actions;
    this.actions = [];
    return actions;
  }

  private enter(nowMs: number, state: State): void {
    this.current = state;
    this.enteredMs = nowMs;
    this.lookingUp = false;
    this.suspectHead = null;
    this.headMovedMs = null;
    this.lookUpAtMs = null;
  }

  private attach(nowMs: number): void {
    this.attached = true;
    this.attachedMs = nowMs;
    this.lookUpAtMs = null;
    this.watch.rest();
    this.actions.push('attach');
  }

  private detach(): void {
    if (!this.attached) return;
    this.attached = false;
    this.watch.rest();
    this.actions.push('detach');
  }

  private lookUp(): void {
    this.lookUpAtMs = null;
    if (this.lookingUp) return;
    this.lookingUp = true;
    this.actions.push('look-up');
  }

  private load(nowMs: number): void {
    this.enter(nowMs, { name: 'loading' });
    this.attach(nowMs);
  }

  private advanced(nowMs: number): void {
    this.everPlayed = true;
    const name = this.current.name;
    if (name === 'loading' || name === 'reconnecting' || name === 'waiting') this.enter(nowMs, { name: 'playing' });
  }

  private judgeStall(stillMs: number, nowMs: number): void {
    if (stillMs === 0) {
      this.suspectHead = null;
      return;
    }
    if (stillMs >= HUNG_AFTER_MS) {
      this.reconnect(nowMs, { kind: 'network', detail: 'the server does not answer' });
      return;
    }
    const due = this.suspectHead === null ? SUSPECT_AFTER_MS : FROZEN_AFTER_MS;
    if (stillMs >= due && this.lookUpAtMs === null) this.lookUpAtMs = nowMs;
  }

  private verdictOnStall(nowMs: number, verdict: Verdict): void {
    if (!this.watch.isStill) return; // it went on by itself
    if (verdict.kind === 'live' && this.suspectHead === null) {
      this.suspectHead = verdict.head;
    } else if (verdict.kind === 'live' && verdict.head === this.suspectHead) {
      const head = verdict.head;
      this.enter(nowMs, { name: 'waiting' });
      this.suspectHead = head;
      this.lookUpAtMs = nowMs + WAITING_POLL_MS;
    } else if (verdict.kind === 'live') {
      this.reconnect(nowMs, { kind: 'frozen', detail: 'time stood still while the stream went on' });
    } else {
      this.elsewise(nowMs, verdict);
    }
  }

  private verdictWhileWaiting(nowMs: number, verdict: Verdict): void {
    if (verdict.kind === 'busy') {
      this.lookUpAtMs = nowMs + verdict.retryAfterMs;
      return;
    }
    if (verdict.kind !== 'live') {
      this.elsewise(nowMs, verdict);
      return;
    }
    if (!this.attached) {
      this.load(nowMs);
      return;
    }
    if (this.suspectHead === null) this.suspectHead = verdict.head;
    else if (verdict.head !== this.suspectHead) this.headMovedMs ??= nowMs;
    this.lookUpAtMs = nowMs + WAITING_POLL_MS;
  }

  private verdictBeforeAttach(nowMs: number, verdict: Verdict): void {
    if (verdict.kind === 'live') this.attach(nowMs);
    else this.elsewise(nowMs, verdict);
  }

  private verdictWhileResting(nowMs: number, verdict: Verdict): void {
    switch (verdict.kind) {
      case 'live':
        this.attempt = 0;
        this.load(nowMs);
        break;
      case 'busy':
        this.lookUpAtMs = nowMs + Math.max(verdict.retryAfterMs, WAITING_POLL_MS);
        break;
      case 'denied':
        this.elsewise(nowMs, verdict);
        break;
      case 'ended':
        if (this.current.name === 'offline') this.enter(nowMs, { name: 'ended' });
        this.lookUpAtMs = nowMs + this.restPollMs(nowMs);
        break;
      default:
        this.lookUpAtMs = nowMs + this.restPollMs(nowMs);
    }
  }

  /** What every verdict but "live" means, wherever it comes. */
  private elsewise(nowMs: number, verdict: Exclude<Verdict, { kind: 'live' }>): void {
    switch (verdict.kind) {
      case 'ended':
        this.rest(nowMs, 'ended');
        break;
      case 'absent':
        this.rest(nowMs, this.everPlayed ? 'ended' : 'offline');
        break;
      case 'busy':
        this.waitFor(nowMs, verdict.retryAfterMs);
        break;
      case 'denied':
        this.fail(nowMs, { kind: 'denied', detail: 'the server refused' });
        break;
      case 'unreachable':
        this.reconnect(nowMs, { kind: 'network', detail: verdict.detail });
        break;
    }
  }

  private reconnect(nowMs: number, fault: Fault): void {
    this.detach();
    this.enter(nowMs, { name: 'reconnecting', fault, attempt: this.attempt + 1 });
    this.lookUpAtMs = nowMs + retryDelayMs(this.attempt, this.random());
    this.attempt += 1;
    this.reconnects += 1;
  }

  private waitFor(nowMs: number, pollMs: number): void {
    this.detach();
    this.enter(nowMs, { name: 'waiting' });
    this.lookUpAtMs = nowMs + pollMs;
  }

  private rest(nowMs: number, name: 'offline' | 'ended'): void {
    this.detach();
    this.enter(nowMs, { name });
    this.lookUpAtMs = nowMs + this.restPollMs(nowMs);
  }

  private fail(nowMs: number, fault: Fault): void {
    this.detach();
    this.enter(nowMs, { name: 'failed', fault });
  }

  private restPollMs(nowMs: number): number {
    if (!this.visible) return HIDDEN_POLL_MS;
    const base = nowMs - this.enteredMs < PATIENT_AFTER_MS ? OFFLINE_POLL_MS : PATIENT_POLL_MS;
    return base * (0.9 + this.random() * 0.2);
  }
}

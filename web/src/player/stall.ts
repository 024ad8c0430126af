/**
 * Watches whether time passes in the video.
 *
 * In: the playhead, every 100 ms. Out: whether it moved, for how long it has stood still, how often that
 * happened. Both players can freeze without an error event, so this, not events, is what the watchdog
 * trusts. Pure; what to do about a freeze is the supervisor's business.
 */

/** Standing still for less is not a stall: the playhead is only read every 100 ms. */
export const STALL_AFTER_MS = 300;
/** A longer pause between readings means the machine slept: nothing can be said about that time. */
export const BLIND_MS = 1_500;
/** A smaller step is no movement. */
const MIN_STEP_S = 0.001;

export interface PlaybackSample {
  /** The playhead, in seconds of media time. */
  readonly timeS: number;
  /** Whether it should be moving: not paused, not ended, page visible. */
  readonly expected: boolean;
  /** A seek is under way: the playhead is where it was put, and nothing has been shown of it yet. */
  readonly seeking: boolean;
}

export interface Movement {
  /** The playhead moved since the last reading. */
  readonly advanced: boolean;
  /** For how long it has stood still; 0 while it moves. */
  readonly stillMs: number;
  /** A stall began with this reading. */
  readonly stallBegan: boolean;
}

const AT_REST: Movement = { advanced: false, stillMs: 0, stallBegan: false };

export class StallWatch {
  private last: { nowMs: number; timeS: number } | null = null;
  private stillSinceMs = 0;
  private inStall = false;
  private count = 0;
  private finishedMs = 0;
  private currentMs = 0;

  /** Whether the playhead stands still where it should move. */
  get isStill(): boolean {
    return this.last !== null && this.last.nowMs > this.stillSinceMs;
  }

  /** Stalls seen since the start. */
  get stalls(): number {
    return this.count;
  }

  /** Time spent in them. */
  get stalledMs(): number {
    return this.finishedMs + this.currentMs;
  }

  /**
   * Takes one reading. `countable` says whether standing still counts as a stall of the viewer's: before
   * the first picture it is start-up time.
   */
  observe(nowMs: number, sample: PlaybackSample, countable: boolean): Movement {
    const last = this.last;
    if (!sample.expected || last === null || nowMs - last.nowMs > BLIND_MS) {
      this.rest();
      if (sample.expected) this.last = { nowMs, timeS: sample.timeS };
      this.stillSinceMs = nowMs;
      return AT_REST;
    }
    this.last = { nowMs, timeS: sample.timeS };
    if (!sample.seeking && Math.abs(sample.timeS - last.timeS) > MIN_STEP_S) {
      this.endStall();
      this.stillSinceMs = nowMs;
      return { advanced: sample.timeS > last.timeS, stillMs: 0, stallBegan: false };
    }
    const stillMs = nowMs - this.stillSinceMs;
    const stallBegan = countable && !this.inStall && stillMs >= STALL_AFTER_MS;
    if (stallBegan) {
      this.inStall = true;
      this.count += 1;
    }
    if (this.inStall) this.currentMs = stillMs;
    return { advanced: false, stillMs, stallBegan };
  }

  /** Forgets the last reading: a new engine starts at a new time. */
  rest(): void {
    this.endStall();
    this.last = null;
  }

  private endStall(): void {
    this.finishedMs += this.currentMs;
    this.currentMs = 0;
    this.inStall = false;
  }
}

/**
 * The latency chaser: keeps playback at its target distance from the live edge.
 *
 * In: latency, target and buffer, every {@link CHASE_PERIOD_MS}. Out: a playback rate, or the advice to
 * jump. Pure; the engine reads the figures and sets the rate. It replaces the chaser of hls.js, which
 * speeds up only with more than a second buffered and so never gets below that second.
 */

export const CHASE_PERIOD_MS = 100;
/** Faster than life while behind: 10 % is not heard as a change of pitch. */
export const CHASE_RATE = 1.1;
/** With less than this in the buffer, speeding up would buy a stall. */
export const MIN_AHEAD_S = 0.3;
/** So far behind its target that chasing would take longer than anyone waits: jump instead. */
export const JUMP_BEHIND_S = 5;

/** Right after the start, a skip to the target is looked for during this time. */
export const START_MS = 2_000;
/** It leaves so much in the buffer, */
export const START_BUFFER_S = 0.45;
/** and less than this is chased. */
export const MIN_SKIP_S = 0.15;

/** What a stall adds to the target. */
export const STALL_STEP_S = 0.2;
/** All that stalls may add. */
export const MAX_EXTRA_S = 2;
/** After so long without a stall the target comes down again, one step at a time. */
export const CALM_MS = 30_000;
/** How much each calm period takes off. */
export const CALM_STEP_S = 0.1;

export interface Chase {
  /** Seconds behind the live edge. */
  readonly latencyS: number;
  readonly targetS: number;
  /** Seconds buffered ahead of the playhead. */
  readonly aheadS: number;
}

/** The playback rate for this moment. */
export function chaseRate({ latencyS, targetS, aheadS }: Chase): number {
  return latencyS > targetS && aheadS > MIN_AHEAD_S ? CHASE_RATE : 1;
}

/** Whether to seek to the live edge rather than to chase it. */
export function shouldJump(latencyS: number, targetS: number): boolean {
  return latencyS > targetS + JUMP_BEHIND_S;
}

/**
 * One skip per start. hls.js starts at the beginning of a segment, up to a second before the target; inside
 * the buffer a skip is hardly seen in the first moments, while chasing would take ten times as long.
 */
export class StartSkip {
  private startedMs: number | null = null;
  private done = false;

  /** Seconds to go forward by now; 0 for none. */
  skipS(nowMs: number, { latencyS, targetS, aheadS }: Chase): number {
    this.startedMs ??= nowMs;
    if (this.done || nowMs - this.startedMs > START_MS) return 0;
    const behindS = latencyS - targetS;
    if (behindS < MIN_SKIP_S || aheadS - behindS < START_BUFFER_S) return 0;
    this.done = true;
    return behindS;
  }
}

/**
 * The target latency: what the playlist asks for (PART-HOLD-BACK), plus what this viewer's network has
 * shown to need. A viewer who stalled once at 0.6 s would stall there again.
 */
export class LatencyTarget {
  private extraS = 0;
  private changedMs = 0;

  /** Seconds, for a hold-back of `holdBackS`. */
  valueS(nowMs: number, holdBackS: number): number {
    while (this.extraS > 0 && nowMs - this.changedMs >= CALM_MS) {
      this.extraS = Math.max(0, this.extraS - CALM_STEP_S);
      this.changedMs += CALM_MS;
    }
    return holdBackS + this.extraS;
  }

  /** A stall began. */
  stalled(nowMs: number): void {
    this.extraS = Math.min(MAX_EXTRA_S, this.extraS + STALL_STEP_S);
    this.changedMs = nowMs;
  }
}

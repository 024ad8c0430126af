/**
 * How long to wait before trying again.
 *
 * The first retry comes almost at once (an edge that died has a neighbour under the same URL), later
 * ones double. All are jittered: the viewers of a dead edge must not arrive at the next one together.
 */

/** The first retry comes within this time. */
export const FIRST_RETRY_MS = 300;
/** What the second retry waits for at most; doubles from there. */
export const BASE_DELAY_MS = 500;
/** No wait is longer. */
export const MAX_DELAY_MS = 8_000;

/** Wait before retry number `attempt` (0 is the first); `random` in [0, 1). */
export function retryDelayMs(attempt: number, random: number): number {
  if (attempt <= 0) return random * FIRST_RETRY_MS;
  const ceiling = Math.min(MAX_DELAY_MS, BASE_DELAY_MS * 2 ** (attempt - 1));
  return ceiling * (0.5 + random / 2);
}

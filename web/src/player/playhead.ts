/**
 * Where the playhead is in what is buffered. Reads a media element's ranges; changes nothing.
 */

/** Ranges closer than this are one to a player, which steps over the gap. */
const GAP_S = 0.1;

type Ranges = Pick<TimeRanges, 'length' | 'start' | 'end'>;

/** Seconds buffered without a gap from `timeS` on. */
export function bufferedAheadS(ranges: Ranges, timeS: number): number {
  let endS: number | null = null;
  for (let i = 0; i < ranges.length; i++) {
    const reached: number = endS ?? timeS;
    if (ranges.start(i) <= reached + GAP_S && ranges.end(i) > reached) endS = ranges.end(i);
  }
  return endS === null ? 0 : endS - timeS;
}

/** The end of everything buffered; null if nothing is. */
export function bufferedEndS(ranges: Ranges): number | null {
  return ranges.length === 0 ? null : ranges.end(ranges.length - 1);
}

/**
 * Messages that fly over the video.
 *
 * In: texts. Out: elements that cross the picture once, each in a lane that is free; those that find none
 * are not shown, they stand in the list. The animation is the browser's.
 */
import { make } from '../page/element';

const LANES = 8;
/** How long a message takes to cross the picture. */
const CROSSING_MS = 8_000;
/** How long a lane is taken: until the message has left the edge it came from. */
const LANE_MS = 3_000;

export class Danmaku {
  private readonly free: number[] = Array.from({ length: LANES }, () => 0);

  constructor(private readonly layer: HTMLElement) {}

  show(text: string): void {
    if (document.hidden || matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    const now = performance.now();
    const lane = this.free.findIndex((at) => at <= now);
    if (lane < 0) return;
    this.free[lane] = now + LANE_MS;
    const line = make('span', 'danmaku-line', text);
    line.style.setProperty('--lane', String(lane));
    line.style.animationDuration = `${CROSSING_MS}ms`;
    line.addEventListener('animationend', () => line.remove());
    this.layer.append(line);
  }
}

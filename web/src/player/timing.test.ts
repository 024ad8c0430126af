/** The small clocks of the player: back-off, chaser, stall watch, meters. */
import { describe, expect, test } from 'vitest';
import { FIRST_RETRY_MS, MAX_DELAY_MS, retryDelayMs } from './backoff';
import { CALM_MS, chaseRate, LatencyTarget, MAX_EXTRA_S, shouldJump, STALL_STEP_S, START_MS, StartSkip } from './chaser';
import { CounterMeter, SpanMeter } from './meter';
import { bufferedAheadS, bufferedEndS } from './playhead';
import { BLIND_MS, STALL_AFTER_MS, StallWatch } from './stall';

describe('back-off', () => {
  test('the first retry comes almost at once, later ones double up to the limit', () => {
    expect(retryDelayMs(0, 0.999)).toBeLessThan(FIRST_RETRY_MS);
    const longest = [1, 2, 3, 4, 5, 6, 20].map((attempt) => retryDelayMs(attempt, 1));
    expect(longest).toEqual([500, 1000, 2000, 4000, 8000, MAX_DELAY_MS, MAX_DELAY_MS]);
  });

  test('no two viewers need come at the same time', () => {
    expect(retryDelayMs(3, 0)).toBe(1000);
    expect(retryDelayMs(3, 0.5)).toBe(1500);
    expect(retryDelayMs(0, 0)).toBe(0);
  });
});

describe('chaser', () => {
  test('speeds up only while behind and with something in the buffer', () => {
    expect(chaseRate({ latencyS: 0.9, targetS: 0.6, aheadS: 0.5 })).toBe(1.1);
    expect(chaseRate({ latencyS: 0.6, targetS: 0.6, aheadS: 0.5 })).toBe(1);
    expect(chaseRate({ latencyS: 0.9, targetS: 0.6, aheadS: 0.3 })).toBe(1);
  });

  test('jumps rather than chase for a minute', () => {
    expect(shouldJump(5.5, 0.6)).toBe(false);
    expect(shouldJump(6, 0.6)).toBe(true);
  });

  test('skips once at the start, as soon as the buffer allows it', () => {
    const skip = new StartSkip();
    expect(skip.skipS(0, { latencyS: 1.4, targetS: 0.6, aheadS: 0.9 })).toBe(0);
    expect(skip.skipS(100, { latencyS: 1.4, targetS: 0.6, aheadS: 1.3 })).toBeCloseTo(0.8);
    expect(skip.skipS(200, { latencyS: 1.4, targetS: 0.6, aheadS: 1.3 })).toBe(0);
    expect(new StartSkip().skipS(0, { latencyS: 0.7, targetS: 0.6, aheadS: 5 })).toBe(0);
    const late = new StartSkip();
    late.skipS(0, { latencyS: 1.4, targetS: 0.6, aheadS: 0.2 });
    expect(late.skipS(START_MS + 100, { latencyS: 1.4, targetS: 0.6, aheadS: 5 })).toBe(0);
  });

  test('a stall raises the target, calm brings it back, and both have limits', () => {
    const target = new LatencyTarget();
    expect(target.valueS(0, 0.6)).toBe(0.6);
    target.stalled(1_000);
    expect(target.valueS(1_000, 0.6)).toBeCloseTo(0.6 + STALL_STEP_S);
    expect(target.valueS(1_000 + CALM_MS, 0.6)).toBeCloseTo(0.7);
    expect(target.valueS(1_000 + 20 * CALM_MS, 0.6)).toBe(0.6);
    for (let i = 0; i < 100; i++) target.stalled(2_000);
    expect(target.valueS(2_000, 0.6)).toBeCloseTo(0.6 + MAX_EXTRA_S);
  });
});

describe('stall watch', () => {
  const still = { timeS: 5, expected: true, seeking: false };

  test('counts one stall however long it is, and its time', () => {
    const watch = new StallWatch();
    watch.observe(0, { ...still, timeS: 4.9 }, true);
    watch.observe(100, still, true);
    const began = [];
    for (let now = 200; now <= 2_100; now += 100) began.push(watch.observe(now, still, true).stallBegan);
    expect(began.filter(Boolean)).toHaveLength(1);
    expect(began.indexOf(true)).toBe((STALL_AFTER_MS + 100 - 200) / 100);
    expect(watch.observe(2_200, { ...still, timeS: 5.1 }, true).advanced).toBe(true);
    expect(watch.stalls).toBe(1);
    expect(watch.stalledMs).toBe(2_000);
    expect(watch.isStill).toBe(false);
  });

  test('standing still before the first picture is no stall, but is told', () => {
    const watch = new StallWatch();
    watch.observe(0, still, false);
    expect(watch.observe(1_000, still, false)).toMatchObject({ stillMs: 1_000, stallBegan: false });
    expect(watch.stalls).toBe(0);
  });

  test('a pause is no stall', () => {
    const watch = new StallWatch();
    watch.observe(0, still, true);
    watch.observe(100, { ...still, expected: false }, true);
    expect(watch.observe(1_000, still, true).stillMs).toBe(0);
    expect(watch.observe(1_200, still, true).stallBegan).toBe(false);
  });

  test('says nothing about time in which nobody looked', () => {
    const watch = new StallWatch();
    watch.observe(0, still, true);
    expect(watch.observe(BLIND_MS + 1, still, true).stillMs).toBe(0);
  });

  test('a seek is no progress until something is shown of it', () => {
    const watch = new StallWatch();
    watch.observe(0, still, false);
    expect(watch.observe(100, { ...still, timeS: 9, seeking: true }, false)).toMatchObject({ advanced: false, stillMs: 100 });
    expect(watch.observe(200, { ...still, timeS: 9 }, false)).toMatchObject({ advanced: false, stillMs: 200 });
    expect(watch.observe(300, { ...still, timeS: 9.1 }, false)).toMatchObject({ advanced: true, stillMs: 0 });
  });

  test('a jump back is movement, not progress', () => {
    const watch = new StallWatch();
    watch.observe(0, still, true);
    expect(watch.observe(100, { ...still, timeS: 3 }, true)).toMatchObject({ advanced: false, stillMs: 0 });
  });
});

describe('meters', () => {
  test('a span meter averages by duration and forgets what is past its window', () => {
    const meter = new SpanMeter(2);
    expect(meter.perSecond()).toBeNull();
    meter.add(9_000, 1);
    meter.add(1_000, 1);
    meter.add(1_000, 1);
    expect(meter.perSecond()).toBe(1_000);
    meter.add(500, 0);
    expect(meter.perSecond()).toBe(1_000);
  });

  test('a counter meter reads growth, and starts anew when the counter does', () => {
    const meter = new CounterMeter(2_000);
    for (let i = 0; i <= 30; i++) meter.read(i * 100, i * 3);
    expect(meter.perSecond()).toBeCloseTo(30);
    meter.read(3_100, 0);
    expect(meter.perSecond()).toBeNull();
  });
});

describe('playhead', () => {
  const ranges = (...pairs: [number, number][]): Pick<TimeRanges, 'length' | 'start' | 'end'> => ({
    length: pairs.length,
    start: (i) => pairs[i]![0],
    end: (i) => pairs[i]![1],
  });

  test('measures to the end of the range it is in, over small gaps only', () => {
    expect(bufferedAheadS(ranges([0, 10]), 8)).toBe(2);
    expect(bufferedAheadS(ranges([0, 10], [10.05, 12]), 8)).toBe(4);
    expect(bufferedAheadS(ranges([0, 10], [11, 12]), 8)).toBe(2);
    expect(bufferedAheadS(ranges([0, 10]), 12)).toBe(0);
    expect(bufferedAheadS(ranges(), 1)).toBe(0);
    expect(bufferedEndS(ranges([0, 10], [11, 12]))).toBe(12);
    expect(bufferedEndS(ranges())).toBeNull();
  });
});

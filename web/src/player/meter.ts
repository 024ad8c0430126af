/**
 * Rates over a short sliding window, for the overlay: bits per second of media, frames per second.
 *
 * In: amounts as they come. Out: an average over the last few seconds. Pure and bounded.
 */

/** Samples kept at most; at 5 parts a second it is about 12 s. */
const MAX_SAMPLES = 64;

/** Amount per second, over samples that each cover a span: bytes of a part over its duration. */
export class SpanMeter {
  private samples: { amount: number; spanS: number }[] = [];

  /** Averages over the newest `windowS` seconds of spans. */
  constructor(private readonly windowS: number) {}

  add(amount: number, spanS: number): void {
    if (!(spanS > 0) || !(amount >= 0)) return;
    this.samples.push({ amount, spanS });
    let total = this.samples.reduce((sum, sample) => sum + sample.spanS, 0);
    while (this.samples.length > 1 && (this.samples.length > MAX_SAMPLES || total - this.samples[0]!.spanS >= this.windowS)) {
      total -= this.samples.shift()!.spanS;
    }
  }

  /** Null until there is a sample. */
  perSecond(): number | null {
    const spanS = this.samples.reduce((sum, sample) => sum + sample.spanS, 0);
    if (spanS === 0) return null;
    return this.samples.reduce((sum, sample) => sum + sample.amount, 0) / spanS;
  }
}

/** Growth per second of a counter that is read now and then: frames shown. */
export class CounterMeter {
  private readings: { nowMs: number; count: number }[] = [];

  constructor(private readonly windowMs: number) {}

  read(nowMs: number, count: number): void {
    const last = this.readings.at(-1);
    if (last !== undefined && count < last.count) this.readings = []; // a new engine counts from zero
    this.readings.push({ nowMs, count });
    while (this.readings.length > 2 && (this.readings.length > MAX_SAMPLES || nowMs - this.readings[1]!.nowMs >= this.windowMs)) {
      this.readings.shift();
    }
  }

  perSecond(): number | null {
    const first = this.readings[0];
    const last = this.readings.at(-1);
    if (first === undefined || last === undefined || last.nowMs - first.nowMs < 500) return null;
    return ((last.count - first.count) * 1000) / (last.nowMs - first.nowMs);
  }
}

/** The supervisor, replayed: what it does about every way in which a stream can fail to play. */
import { describe, expect, test } from 'vitest';
import type { FaultKind } from './fault';
import type { Verdict } from './lookup';
import {
  FROZEN_AFTER_MS,
  HEALTHY_AFTER_MS,
  HIDDEN_POLL_MS,
  HUNG_AFTER_MS,
  LOADING_LIMIT_MS,
  MAX_DECODE_RETRIES,
  OFFLINE_POLL_MS,
  PATIENT_AFTER_MS,
  PATIENT_POLL_MS,
  PAUSE_KEEPS_MS,
  Supervisor,
  SUSPECT_AFTER_MS,
  type Action,
} from './supervisor';

/** A supervisor with a clock, a playhead and a memory of what it asked for. */
class Bench {
  readonly supervisor = new Supervisor(() => 0.5);
  now = 0;
  timeS = 10;
  paused = false;
  log: Action[] = [];

  constructor() {
    this.take(this.supervisor.start(0));
  }

  get state(): string {
    return this.supervisor.state.name;
  }

  take(actions: Action[]): Action[] {
    this.log.push(...actions);
    return actions;
  }

  /** Lets time pass in steps of 100 ms; the playhead moves along if `moving`. */
  pass(ms: number, moving: boolean): Action[] {
    const from = this.log.length;
    for (let i = 0; i < ms / 100; i++) {
      this.now += 100;
      if (moving && !this.paused) this.timeS += 0.1;
      this.take(this.supervisor.tick(this.now, { timeS: this.timeS, expected: !this.paused, seeking: false }));
    }
    return this.log.slice(from);
  }

  play(ms = 1_000): Action[] {
    return this.pass(ms, true);
  }

  stand(ms: number): Action[] {
    return this.pass(ms, false);
  }

  fault(kind: FaultKind): Action[] {
    return this.take(this.supervisor.fault(this.now, { kind, detail: 'test' }));
  }

  answer(verdict: Verdict): Action[] {
    return this.take(this.supervisor.verdict(this.now, verdict));
  }

  /** Passes time until the next action, and returns what came. */
  next(limitMs = 20_000): Action[] {
    for (let ms = 0; ms < limitMs; ms += 100) {
      const actions = this.stand(100);
      if (actions.length > 0) return actions;
    }
    return [];
  }
}

const live = (head = 'a'): Verdict => ({ kind: 'live', head });
const playing = (): Bench => {
  const bench = new Bench();
  bench.play();
  expect(bench.state).toBe('playing');
  return bench;
};

describe('starting', () => {
  test('attaches at once and plays when time moves', () => {
    const bench = new Bench();
    expect(bench.log).toEqual(['attach']);
    expect(bench.state).toBe('loading');
    bench.stand(1_000);
    expect(bench.state).toBe('loading');
    bench.play(200);
    expect(bench.state).toBe('playing');
    expect(bench.supervisor.stalls).toBe(0);
  });

  test('nothing to see within the limit is a reconnect', () => {
    const bench = new Bench();
    bench.stand(LOADING_LIMIT_MS - 100);
    expect(bench.state).toBe('loading');
    expect(bench.stand(100)).toContain('detach');
    expect(bench.state).toBe('reconnecting');
  });

  test('starting over drops what was there', () => {
    const bench = playing();
    expect(bench.take(bench.supervisor.start(bench.now))).toEqual(['detach', 'attach']);
    expect(bench.state).toBe('loading');
  });
});

describe('a stall', () => {
  test('is asked about once it is suspicious, and forgotten if time moves on', () => {
    const bench = playing();
    expect(bench.stand(SUSPECT_AFTER_MS - 100)).toEqual([]);
    expect(bench.stand(200)).toEqual(['look-up']);
    bench.answer(live('a'));
    bench.play(500);
    expect(bench.state).toBe('playing');
    expect(bench.stand(SUSPECT_AFTER_MS)).toEqual(['look-up']);
    expect(bench.supervisor.reconnectCount).toBe(0);
    expect(bench.supervisor.stalls).toBe(2);
  });

  test('with a stream that goes on is a frozen player: reload', () => {
    const bench = playing();
    bench.stand(SUSPECT_AFTER_MS + 100);
    bench.answer(live('a'));
    expect(bench.stand(FROZEN_AFTER_MS - SUSPECT_AFTER_MS)).toEqual(['look-up']);
    expect(bench.answer(live('b'))).toEqual(['detach']);
    expect(bench.supervisor.state).toMatchObject({ name: 'reconnecting', fault: { kind: 'frozen' } });
    expect(bench.next()).toEqual(['look-up']);
    expect(bench.answer(live('c'))).toEqual(['attach']);
    bench.play(300);
    expect(bench.state).toBe('playing');
    expect(bench.supervisor.reconnectCount).toBe(1);
  });

  test('with a stream that stands still is a silent publisher: keep the player and wait', () => {
    const bench = playing();
    bench.stand(SUSPECT_AFTER_MS + 100);
    bench.answer(live('a'));
    bench.stand(FROZEN_AFTER_MS - SUSPECT_AFTER_MS);
    expect(bench.answer(live('a'))).toEqual([]);
    expect(bench.state).toBe('waiting');
    for (let i = 0; i < 20; i++) {
      expect(bench.next()).toEqual(['look-up']);
      bench.answer(live('a'));
    }
    expect(bench.state).toBe('waiting');
    bench.play(200);
    expect(bench.state).toBe('playing');
    expect(bench.log.filter((action) => action === 'detach')).toEqual([]);
  });

  test('a player that does not go on with its returned publisher is reloaded', () => {
    const bench = playing();
    bench.stand(SUSPECT_AFTER_MS + 100);
    bench.answer(live('a'));
    bench.stand(FROZEN_AFTER_MS - SUSPECT_AFTER_MS);
    bench.answer(live('a'));
    bench.next();
    bench.answer(live('b'));
    expect(bench.state).toBe('waiting');
    expect(bench.stand(FROZEN_AFTER_MS + 100)).toContain('detach');
    expect(bench.state).toBe('reconnecting');
  });

  test('is not left to a server that does not answer', () => {
    const bench = playing();
    expect(bench.stand(HUNG_AFTER_MS + 100)).toEqual(['look-up', 'detach']);
    expect(bench.state).toBe('reconnecting');
  });

  test('an answer that comes too late decides nothing', () => {
    const bench = playing();
    bench.stand(SUSPECT_AFTER_MS + 100);
    bench.fault('network');
    expect(bench.answer({ kind: 'absent' })).toEqual([]);
    expect(bench.state).toBe('reconnecting');
  });

  test('an ended or vanished stream is over, not broken', () => {
    for (const verdict of [{ kind: 'ended' }, { kind: 'absent' }] as const) {
      const bench = playing();
      bench.stand(SUSPECT_AFTER_MS + 100);
      expect(bench.answer(verdict)).toEqual(['detach']);
      expect(bench.state).toBe('ended');
    }
  });

  test('while the page is hidden is none', () => {
    const bench = playing();
    bench.take(bench.supervisor.visibility(bench.now, false));
    expect(bench.stand(60_000)).toEqual([]);
    expect(bench.supervisor.stalls).toBe(0);
    expect(bench.take(bench.supervisor.visibility(bench.now, true))).toEqual(['go-live']);
  });
});

describe('faults', () => {
  test('a lost connection is looked into before anything is attached again', () => {
    const bench = playing();
    expect(bench.fault('network')).toEqual(['detach']);
    expect(bench.next(1_000)).toEqual(['look-up']);
    bench.answer({ kind: 'unreachable', detail: 'refused' });
    expect(bench.supervisor.state).toMatchObject({ name: 'reconnecting', attempt: 2 });
    expect(bench.next()).toEqual(['look-up']);
    expect(bench.answer(live())).toEqual(['attach']);
  });

  test('retries are further and further apart, until it has played well for a while', () => {
    const bench = playing();
    bench.fault('network');
    const waits: number[] = [];
    for (let i = 0; i < 7; i++) {
      const from = bench.now;
      expect(bench.next()).toEqual(['look-up']);
      waits.push(bench.now - from);
      bench.answer({ kind: 'unreachable', detail: 'refused' });
    }
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
    expect(waits[0]).toBeLessThanOrEqual(300);
    expect(waits.at(-1)).toBeGreaterThan(4_000);
    bench.next();
    bench.answer(live());
    bench.play(HEALTHY_AFTER_MS + 500);
    bench.fault('network');
    expect(bench.supervisor.state).toMatchObject({ attempt: 1 });
  });

  test('404 at the start is offline, 404 later the end', () => {
    const bench = new Bench();
    expect(bench.fault('not-found')).toEqual(['detach']);
    expect(bench.state).toBe('offline');
    const later = playing();
    later.fault('not-found');
    expect(later.state).toBe('ended');
  });

  test('what cannot be mended is not retried', () => {
    for (const kind of ['denied', 'codec', 'unsupported'] as const) {
      const bench = new Bench();
      expect(bench.fault(kind)).toEqual(['detach']);
      expect(bench.stand(120_000)).toEqual([]);
      expect(bench.state).toBe('failed');
      expect(bench.take(bench.supervisor.start(bench.now))).toEqual(['attach']);
    }
  });

  test('a decoder that keeps failing is believed', () => {
    const bench = playing();
    for (let i = 0; i < MAX_DECODE_RETRIES; i++) {
      bench.fault('decode');
      expect(bench.state).toBe('reconnecting');
      bench.next();
      bench.answer(live());
      bench.play(1_000);
    }
    bench.fault('decode');
    expect(bench.state).toBe('failed');
  });

  test('a server that asks for patience gets it', () => {
    const bench = new Bench();
    bench.fault('busy');
    expect(bench.state).toBe('waiting');
    bench.next();
    bench.answer({ kind: 'busy', retryAfterMs: 5_000 });
    expect(bench.stand(4_900)).toEqual([]);
    expect(bench.stand(100)).toEqual(['look-up']);
    expect(bench.answer(live())).toEqual(['attach']);
  });

  test('of an engine that is gone count for nothing', () => {
    const bench = playing();
    bench.fault('network');
    expect(bench.fault('denied')).toEqual([]);
    expect(bench.state).toBe('reconnecting');
  });
});

describe('the end', () => {
  test('by ENDLIST is certain; by a closed connection the server is asked', () => {
    const hls = playing();
    hls.take(hls.supervisor.streamEnded(hls.now, true));
    expect(hls.state).toBe('ended');
    const flv = playing();
    flv.take(flv.supervisor.streamEnded(flv.now, false));
    expect(flv.next(1_000)).toEqual(['look-up']);
    flv.answer({ kind: 'ended' });
    expect(flv.state).toBe('ended');
  });

  test('and an offline room are polled gently, more gently with time and unseen', () => {
    const bench = new Bench();
    bench.fault('not-found');
    const gap = (): number => {
      const from = bench.now;
      expect(bench.next(30_000)).toEqual(['look-up']);
      bench.answer({ kind: 'absent' });
      return bench.now - from;
    };
    expect(gap()).toBe(OFFLINE_POLL_MS);
    while (bench.now < PATIENT_AFTER_MS) gap();
    expect(gap()).toBe(PATIENT_POLL_MS);
    bench.take(bench.supervisor.visibility(bench.now, false));
    gap();
    expect(gap()).toBe(HIDDEN_POLL_MS);
    expect(bench.take(bench.supervisor.visibility(bench.now, true))).toEqual(['look-up']);
  });

  test('is not final: a new stream starts by itself', () => {
    const bench = playing();
    bench.take(bench.supervisor.streamEnded(bench.now, true));
    bench.next();
    bench.answer({ kind: 'ended' });
    bench.next();
    expect(bench.answer(live())).toEqual(['attach']);
    bench.play();
    expect(bench.state).toBe('playing');
  });

  test('an offline room with a finished stream says that it ended', () => {
    const bench = new Bench();
    bench.fault('not-found');
    bench.next();
    bench.answer({ kind: 'ended' });
    expect(bench.state).toBe('ended');
    expect(bench.next()).toEqual(['look-up']);
  });
});

describe('a pause', () => {
  const pause = (bench: Bench): void => {
    bench.paused = true;
    bench.take(bench.supervisor.pause(bench.now));
  };
  const resume = (bench: Bench): Action[] => {
    bench.paused = false;
    return bench.take(bench.supervisor.resume(bench.now));
  };

  test('short: goes on at the live edge with the same player', () => {
    const bench = playing();
    pause(bench);
    bench.stand(5_000);
    expect(bench.state).toBe('paused');
    expect(resume(bench)).toEqual(['go-live', 'play']);
    bench.play(300);
    expect(bench.state).toBe('playing');
  });

  test('long: lets go of the stream, and gets it again', () => {
    const bench = playing();
    pause(bench);
    expect(bench.stand(PAUSE_KEEPS_MS + 100)).toEqual(['detach']);
    expect(bench.stand(60_000)).toEqual([]);
    expect(resume(bench)).toEqual(['attach']);
  });

  test('a fault meanwhile is not shown; resuming finds out', () => {
    const bench = playing();
    pause(bench);
    expect(bench.fault('network')).toEqual(['detach']);
    expect(bench.state).toBe('paused');
    expect(resume(bench)).toEqual(['attach']);
  });
});

test('an impatient viewer gets the next look-up at once', () => {
  const bench = playing();
  bench.fault('network');
  bench.next();
  bench.answer({ kind: 'unreachable', detail: 'refused' });
  expect(bench.take(bench.supervisor.hurry())).toEqual(['look-up']);
  expect(bench.take(bench.supervisor.hurry())).toEqual([]);
});

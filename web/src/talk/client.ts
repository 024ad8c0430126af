/**
 * A client of a room: chat, likes, gifts and presence over one WebSocket (docs/rooms.md).
 *
 * In: what the application says, frames of the server. Out: events. It resumes where it left off, comes
 * again with full jitter, sends what was not answered again under the same id, drops what it has seen,
 * sends likes at most once a second, and brings a newer token before the old one ends. It has no dependency and names no global but `setTimeout`: in a mini
 * program `open` wraps `wx.connectSocket`.
 */

/** A user as others see them. */
export interface User {
  readonly id: string;
  readonly n?: string;
  readonly r?: 'guest' | 'member' | 'mod' | 'host';
  readonly lv?: number;
}

/** Something that happened in the room; `t` says what. */
export interface Item {
  readonly t: 'chat' | 'gift' | 'join' | 'del' | 'clear' | 'set' | 'stream';
  readonly id: string;
  readonly o?: number;
  readonly ts: number;
  readonly u?: User;
  readonly x?: string;
  readonly n?: number;
  readonly pts?: number;
  readonly g?: string;
  readonly combo?: string;
  readonly ids?: readonly string[];
  readonly uid?: string;
  readonly k?: string;
  readonly v?: string;
  readonly s?: string;
}

export interface Counters {
  readonly on: number;
  readonly like: number;
  readonly lps: number;
  readonly v: number;
}

export interface Position {
  readonly e: string;
  readonly o: number;
}

export interface Welcome {
  readonly sid?: string;
  readonly uid: string;
  /** What this member may do. */
  readonly may?: readonly ('chat' | 'gift' | 'moderate')[];
  /** When its token ends, in milliseconds since 1970. */
  readonly until?: number;
  readonly recovered: boolean;
  readonly lim: { readonly chat_ms: number; readonly len: number; readonly rate: number };
  readonly state?: { readonly live: boolean; readonly pin?: string; readonly chat: readonly Item[]; readonly paid: readonly Item[] };
}

/** What became of something sent. */
export type Answer =
  | { readonly ok: true; readonly id: string; readonly fanout: string }
  | { readonly ok: false; readonly code: string; readonly retryMs?: number };

/** Who may say what; each restricts when it is set. */
export interface Mode {
  readonly slow_s?: number;
  readonly followers?: boolean;
  readonly members?: boolean;
  readonly emotes?: boolean;
  readonly links?: boolean;
}

/** What a moderator does. */
export type Act =
  | { readonly a: 'delete'; readonly ids: readonly string[] }
  | { readonly a: 'clear' | 'pardon' | 'kick'; readonly uid: string }
  /** For `s` seconds, or until a pardon; with `net` the address the user spoke from, too. */
  | { readonly a: 'mute' | 'ban'; readonly uid: string; readonly s?: number; readonly net?: boolean }
  | { readonly a: 'mode'; readonly mode: Mode }
  /** An empty text unpins. */
  | { readonly a: 'pin'; readonly v: string }
  | { readonly a: 'set'; readonly k: string; readonly v: string };

/** What the client tells the application. */
export interface Events {
  /** In the room: `state` unless all that was missed has been told as items. */
  welcome?(welcome: Welcome): void;
  /** Items not told before, oldest first. */
  items?(items: readonly Item[], leftOut: number): void;
  counters?(counters: Counters): void;
  /** The connection is lost; it is tried again in so many milliseconds, or never. */
  lost?(retryInMs: number | null, code: number): void;
}

/** A socket as a browser has it, or as it is made of another. */
export interface Socket {
  send(text: string): void;
  close(): void;
}

/** What a socket reports. */
export interface SocketEvents {
  opened(): void;
  text(text: string): void;
  closed(code: number): void;
}

export interface Options {
  /** Edges to go to, best first: `https://e1.example.org`. */
  readonly edges: readonly string[];
  readonly room: string;
  /** A guest's secret of 16 bytes or more; the same one is the same guest. */
  readonly guest?: string;
  readonly name?: string;
  readonly token?: string;
  /** Asks the application for a newer token: a while before the one in use ends, and after it did. */
  readonly renew?: () => Promise<string | null>;
  readonly events: Events;
  /** Opens a socket; a browser's own by default. */
  readonly open?: (url: string, events: SocketEvents) => Socket;
  /** In [0, 1). */
  readonly random?: () => number;
}

const PROTOCOL = 'tidewater.v1.json';
const BASE_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
/** Likes are sent at most so often, and at most so many. */
const LIKES_EVERY_MS = 1_000;
const MAX_LIKES = 50;
/** Ids remembered, so that nothing is told twice. */
const MAX_SEEN = 1_000;
/** Answers waited for; beyond, sending is refused here. */
const MAX_PENDING = 64;
/** Without a frame for so long beyond a ping, the connection is dead. */
const PONG_GRACE_MS = 15_000;
/** A newer token is asked for so long before the one in use ends. */
const RENEW_AHEAD_MS = 60_000;
/** A timer's longest time: 2^31 - 1. */
const MAX_TIMER_MS = 2_147_483_647;
/** Newer tokens asked for in a row, without having been let in. */
const MAX_RENEWALS = 8;
/** The token is over. */
const TOKEN_CODE = 4003;
/** Codes after which coming again is of no use. */
const FINAL_CODES: readonly number[] = [4001, 4002, 4003, 4004, 4005, 4014];

interface Pending {
  readonly frame: { readonly c: string };
  readonly done: (answer: Answer) => void;
}

interface Frame {
  readonly t: string;
  readonly [key: string]: unknown;
}

/** See the module. */
export class RoomClient {
  private socket: Socket | null = null;
  private position: Position | null = null;
  private attempt = 0;
  private edge = 0;
  private byeAfterMs: number | null = null;
  private edges: readonly string[];
  private closedForGood = false;
  private inRoom = false;
  private likes = 0;
  private likesTimer: ReturnType<typeof setTimeout> | undefined;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private silence: ReturnType<typeof setTimeout> | undefined;
  private renewal: ReturnType<typeof setTimeout> | undefined;
  private token: string | undefined;
  private sid: string | undefined;
  private heartbeatMs = 25_000;
  private readonly seen = new Set<string>();
  private readonly pending = new Map<string, Pending>();
  private counters: Counters | null = null;
  private readonly random: () => number;
  private readonly openSocket: (url: string, events: SocketEvents) => Socket;

  constructor(private readonly options: Options) {
    this.edges = options.edges;
    this.token = options.token;
    this.random = options.random ?? Math.random;
    this.openSocket = options.open ?? openBrowserSocket;
  }

  /** Connects, and stays connected until `close`. */
  start(): void {
    this.connect();
  }

  /** Leaves for good. */
  close(): void {
    this.closedForGood = true;
    clearTimeout(this.retryTimer);
    clearTimeout(this.likesTimer);
    clearTimeout(this.silence);
    clearTimeout(this.renewal);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  /** Moderates, if the member may. */
  moderate(act: Act): Promise<Answer> {
    return this.send({ t: 'mod', c: this.newId(), ...act });
  }

  /** Says something; resolves with what became of it, after a reconnect if need be. */
  chat(text: string, pts?: number): Promise<Answer> {
    return this.send({ t: 'chat', c: this.newId(), x: text, ...(pts === undefined ? {} : { pts }) });
  }

  /** Gives something. */
  gift(gift: string, count: number, order?: string): Promise<Answer> {
    return this.send({ t: 'gift', c: this.newId(), g: gift, n: count, ...(order === undefined ? {} : { auth: order }) });
  }

  /** Counts a like; likes of a second go together. */
  like(): void {
    this.likes = Math.min(this.likes + 1, MAX_LIKES);
    if (this.likesTimer !== undefined) return;
    this.sendLikes();
  }

  private sendLikes(): void {
    if (this.likes > 0 && this.inRoom) {
      this.socket?.send(JSON.stringify({ t: 'like', n: this.likes }));
      this.likes = 0;
    }
    this.likesTimer = setTimeout(() => {
      this.likesTimer = undefined;
      if (this.likes > 0) this.sendLikes();
    }, LIKES_EVERY_MS);
  }

  private send(frame: { readonly c: string } & Record<string, unknown>): Promise<Answer> {
    if (this.closedForGood || this.pending.size >= MAX_PENDING) {
      return Promise.resolve({ ok: false, code: 'unavailable' });
    }
    return new Promise((done) => {
      this.pending.set(frame.c, { frame, done });
      if (this.inRoom) this.socket?.send(JSON.stringify(frame));
    });
  }

  private connect(): void {
    const base = this.edges[this.edge % this.edges.length] ?? '';
    const url = `${base.replace(/^http/, 'ws').replace(/\/$/, '')}/ws`;
    let own: Socket | null = null;
    // Events of a socket that was given up mean nothing.
    const isCurrent = (): boolean => own !== null && this.socket === own;
    own = this.openSocket(url, {
      opened: () => {
        if (isCurrent()) this.sayHello();
      },
      text: (text) => {
        if (isCurrent()) this.receive(text);
      },
      closed: (code) => {
        if (isCurrent()) this.lost(code);
      },
    });
    this.socket = own;
    this.listen(10_000);
  }

  private sayHello(): void {
    const { room, guest, name } = this.options;
    const { token, sid } = this;
    const hello = { t: 'hello', v: 1, room, guest, n: name, token, cap: ['combo', 'pts'], pos: this.position ?? undefined, sid };
    this.socket?.send(JSON.stringify(hello));
  }

  /** Has a newer token ready before the one in use ends. */
  private renewBefore(until: number | undefined): void {
    clearTimeout(this.renewal);
    const { renew } = this.options;
    if (until === undefined || renew === undefined) return;
    const delay = Math.max(0, until - Date.now() - RENEW_AHEAD_MS);
    this.renewal = setTimeout(() => {
      void renew().then(
        (token) => {
          if (token === null || this.closedForGood) return;
          this.token = token;
          if (this.inRoom) void this.send({ t: 'token', c: this.newId(), token });
        },
        () => undefined, // the connection ends with its token, and is asked for again then
      );
    }, Math.min(delay, MAX_TIMER_MS));
  }

  /** The connection is dead if nothing comes for so long. */
  private listen(ms: number): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      const socket = this.socket;
      this.lost(4009);
      socket?.close();
    }, ms);
  }

  private receive(text: string): void {
    this.listen(this.heartbeatMs + PONG_GRACE_MS);
    let frame: Frame;
    try {
      frame = JSON.parse(text) as Frame;
    } catch {
      return;
    }
    switch (frame.t) {
      case 'welcome':
        this.welcomed(frame);
        break;
      case 'b':
        this.batch(frame);
        break;
      case 'ok':
        this.answered(frame['c'], { ok: true, id: String(frame['id'] ?? ''), fanout: String(frame['f'] ?? '') });
        break;
      case 'held':
        this.answered(frame['c'], { ok: false, code: 'held' });
        break;
      case 'err': {
        const retryMs = frame['retry_ms'];
        const retry = typeof retryMs === 'number' ? { retryMs } : {};
        this.answered(frame['c'], { ok: false, code: String(frame['code']), ...retry });
        break;
      }
      case 'ping':
        this.socket?.send('{"t":"pong"}');
        break;
      case 'bye':
        this.bidden(frame);
        break;
    }
  }

  private welcomed(frame: Frame): void {
    const welcome = frame as unknown as Welcome & { pos?: Position; hb?: number; m?: Item[]; d?: object; edges?: string[]; s?: Counters };
    this.attempt = 0;
    this.inRoom = true;
    this.position = welcome.pos ?? null;
    this.heartbeatMs = welcome.hb ?? this.heartbeatMs;
    this.sid = welcome.sid;
    this.renewBefore(welcome.until);
    if (welcome.edges !== undefined && welcome.edges.length > 0) {
      this.edges = [this.edges[this.edge % this.edges.length] ?? '', ...welcome.edges];
      this.edge = 0;
    }
    // A newcomer's snapshot is told as state; what it has is not told again.
    for (const item of [...(welcome.state?.chat ?? []), ...(welcome.state?.paid ?? [])]) this.remember(item.id);
    this.options.events.welcome?.(welcome);
    this.tell(welcome.m ?? [], welcome.d);
    this.count(welcome.s);
    // What was not answered is sent again: under the same id it is the same.
    for (const { frame } of this.pending.values()) this.socket?.send(JSON.stringify(frame));
  }

  private batch(frame: Frame): void {
    const { o, e, m, d, s } = frame as unknown as { o: number; e?: string; m?: Item[]; d?: object; s?: Counters };
    this.position = { e: e ?? this.position?.e ?? '', o };
    this.tell(m ?? [], d);
    this.count(s);
  }

  private tell(items: readonly Item[], leftOut: object | undefined): void {
    const news = items.filter((item) => this.remember(item.id) || item.combo !== undefined);
    const over = Object.values(leftOut ?? {}).reduce((sum: number, count: unknown) => sum + Number(count), 0);
    if (news.length > 0 || over > 0) this.options.events.items?.(news, over);
  }

  /** Whether it is news. */
  private remember(id: string): boolean {
    if (this.seen.has(id)) return false;
    this.seen.add(id);
    if (this.seen.size > MAX_SEEN) {
      const oldest = this.seen.values().next();
      if (oldest.done !== true) this.seen.delete(oldest.value);
    }
    return true;
  }

  private count(counters: Counters | undefined): void {
    if (counters === undefined || (this.counters !== null && counters.v < this.counters.v)) return;
    this.counters = counters;
    this.options.events.counters?.(counters);
  }

  private answered(c: unknown, answer: Answer): void {
    if (typeof c !== 'string') return;
    const pending = this.pending.get(c);
    this.pending.delete(c);
    pending?.done(answer);
  }

  private bidden(frame: Frame): void {
    const { after_ms: afterMs, edges } = frame as unknown as { after_ms?: number; edges?: string[] };
    this.byeAfterMs = afterMs ?? null;
    if (edges !== undefined && edges.length > 0) {
      this.edges = edges;
      this.edge = -1; // the next try goes to the first of them
    }
  }

  private lost(code: number): void {
    clearTimeout(this.silence);
    this.socket = null;
    this.inRoom = false;
    clearTimeout(this.renewal);
    if (this.closedForGood) return;
    if (code === TOKEN_CODE && this.options.renew !== undefined && this.attempt < MAX_RENEWALS) {
      this.comeAgainWithNewToken(code, this.options.renew);
      return;
    }
    if (FINAL_CODES.includes(code)) {
      this.closedForGood = true;
      for (const { done } of this.pending.values()) done({ ok: false, code: 'unavailable' });
      this.pending.clear();
      this.options.events.lost?.(null, code);
      return;
    }
    const delay = this.byeAfterMs ?? retryDelayMs(this.attempt, this.random());
    this.byeAfterMs = null;
    this.attempt += 1;
    this.edge += 1;
    this.options.events.lost?.(delay, code);
    this.retryTimer = setTimeout(() => this.connect(), delay);
  }

  private comeAgainWithNewToken(code: number, renew: () => Promise<string | null>): void {
    const delay = retryDelayMs(this.attempt, this.random());
    this.attempt += 1;
    this.options.events.lost?.(delay, code);
    this.retryTimer = setTimeout(() => {
      void renew().then(
        (token) => {
          if (this.closedForGood) return;
          if (token !== null) this.token = token;
          this.connect();
        },
        () => this.lost(code),
      );
    }, delay);
  }

  private newId(): string {
    const part = (): string => Math.floor(this.random() * 0x1_0000_0000).toString(36);
    return `${Date.now().toString(36)}-${part()}${part()}`;
  }
}

/** Full jitter: anything up to a ceiling that doubles. */
export function retryDelayMs(attempt: number, random: number): number {
  return Math.min(MAX_DELAY_MS, BASE_DELAY_MS * 2 ** Math.min(attempt, 10)) * random;
}

function openBrowserSocket(url: string, events: SocketEvents): Socket {
  const socket = new WebSocket(url, PROTOCOL);
  socket.onopen = () => events.opened();
  socket.onmessage = (message) => {
    if (typeof message.data === 'string') events.text(message.data);
  };
  socket.onclose = (close) => events.closed(close.code);
  return { send: (text) => socket.send(text), close: () => socket.close(1000) };
}

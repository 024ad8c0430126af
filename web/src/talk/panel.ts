/**
 * The room beside the video: messages, a box to write into, likes, how many are here; and danmaku over it.
 *
 * In: what the room's client tells. Out: elements of the page, in which what people wrote is only ever
 * text. Only so many messages are kept: a page that is open for a day does not grow. Who may moderate
 * finds the acts beside each message (`moderation.ts`).
 */
import './talk.css';
import { byId, make } from '../page/element';
import type { Room } from '../player/room';
import { RoomClient, type Answer, type Item } from './client';
import { Danmaku } from './danmaku';
import { Moderation } from './moderation';

/** Messages kept in the list. */
const MAX_LINES = 200;
/** Hearts in the air at once. */
const MAX_HEARTS = 20;
const SECRET_KEY = 'tidewater-guest';
const NAME_KEY = 'tidewater-name';

const WHY: Readonly<Record<string, string>> = {
  rate_limited: 'Not so fast.',
  slow_mode: 'Slow mode is on.',
  duplicate: 'You said that already.',
  too_long: 'That is too long.',
  filtered: 'That cannot be said here.',
  mode_refused: 'Not in this mode of the room.',
  muted: 'You are muted.',
  forbidden: 'You are banned from this room.',
  unauthorised: 'You may not do that here.',
  held: 'A moderator will look at that.',
  unavailable: 'The room cannot be reached. Try again.',
};

/** Opens the panel of a room. */
export function openPanel(room: Room, origin: string, token: string | null): RoomClient {
  const panel = new Panel();
  const client = new RoomClient({
    edges: [origin],
    room: `${room.app}/${room.name}`,
    guest: secret(),
    ...(token === null ? {} : { token }),
    ...(stored(NAME_KEY) === '' ? {} : { name: stored(NAME_KEY) }),
    events: {
      welcome: (welcome) => {
        if (welcome.state !== undefined) panel.begin([...welcome.state.chat, ...welcome.state.paid], welcome.state.pin);
        panel.connected(welcome.lim.len, welcome.may ?? []);
      },
      items: (items, leftOut) => panel.add(items, leftOut),
      counters: (counters) => panel.count(counters.on, counters.like),
      lost: (retryInMs) => panel.lost(retryInMs === null),
    },
  });
  panel.connect(client);
  client.start();
  return client;
}

class Panel {
  private readonly list = byId('talk-list', HTMLOListElement);
  private readonly box = byId('talk-text', HTMLInputElement);
  private readonly note = byId('talk-note', HTMLElement);
  private readonly online = byId('talk-online', HTMLElement);
  private readonly likes = byId('talk-likes', HTMLElement);
  private readonly heart = byId('talk-like', HTMLButtonElement);
  private readonly pin = byId('talk-pin', HTMLElement);
  private readonly danmaku = new Danmaku(byId('danmaku', HTMLElement));
  private readonly moderation = new Moderation(this.list, this.pin, (why) => {
    this.note.textContent = WHY[why] ?? 'That was refused.';
  });
  private liked = 0;

  connect(client: RoomClient): void {
    this.moderation.connect(client);
    byId('talk-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      const text = this.box.value.trim();
      if (text === '') return;
      this.box.value = '';
      void client.chat(text).then((answer) => this.answered(answer, text));
    });
    this.heart.addEventListener('click', () => {
      client.like();
      this.fly();
    });
  }

  begin(items: readonly Item[], pin: string | undefined): void {
    this.list.replaceChildren();
    const inOrder = [...items].sort((a, b) => (a.o ?? 0) - (b.o ?? 0));
    for (const item of inOrder) this.line(item);
    this.showPin(pin ?? '');
    this.list.scrollTop = this.list.scrollHeight;
  }

  connected(length: number, may: readonly string[]): void {
    const talks = may.includes('chat');
    this.box.maxLength = length;
    this.box.disabled = !talks;
    this.box.placeholder = talks ? 'Say something' : 'You may read along here';
    this.heart.disabled = !talks;
    this.note.textContent = '';
    this.moderation.allow(may.includes('moderate'));
  }

  lost(forGood: boolean): void {
    this.box.disabled = true;
    this.box.placeholder = forGood ? 'This room is closed to you' : 'Connecting again…';
  }

  count(online: number, likes: number): void {
    this.online.textContent = `${online.toLocaleString()} here`;
    this.likes.textContent = likes.toLocaleString();
    const more = Math.min(likes - this.liked, 5);
    if (this.liked > 0) for (let n = 0; n < more; n += 1) this.fly();
    this.liked = likes;
  }

  add(items: readonly Item[], leftOut: number): void {
    const atEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    for (const item of items) {
      if (item.t === 'del') for (const id of item.ids ?? []) this.remove((line) => line.dataset['id'] === id);
      else if (item.t === 'clear') this.remove((line) => line.dataset['uid'] === item.uid);
      else if (item.t === 'set') {
        if (item.k === 'pin') this.showPin(item.v ?? '');
      } else {
        this.line(item);
        if (item.t === 'chat') this.danmaku.show(item.x ?? '');
      }
    }
    if (leftOut > 0) this.note.textContent = `${leftOut} more than fit`;
    if (atEnd) this.list.scrollTop = this.list.scrollHeight;
  }

  private line(item: Item): void {
    const who = item.u?.n ?? item.u?.id ?? '';
    const line = make('li', `talk-line ${item.t}`);
    line.dataset['id'] = item.id;
    line.dataset['uid'] = item.u?.id ?? '';
    switch (item.t) {
      case 'chat':
        line.append(make('b', `talk-who ${item.u?.r ?? ''}`, who), ' ', make('span', 'talk-what', item.x ?? ''));
        if (item.n !== undefined) line.append(' ', make('i', 'talk-times', `×${item.n}`));
        break;
      case 'gift': {
        if (item.combo !== undefined) this.remove((old) => old.dataset['combo'] === item.combo);
        line.dataset['combo'] = item.combo ?? '';
        line.append(make('b', 'talk-who', who), ` sent ${item.g ?? ''} ×${item.n ?? 1}`);
        break;
      }
      case 'join':
        line.textContent = item.u === undefined ? `${item.n ?? 0} came` : `${who} came`;
        break;
      default:
        return;
    }
    this.list.append(line);
    while (this.list.childElementCount > MAX_LINES) this.list.firstElementChild?.remove();
  }

  private remove(isMeant: (line: HTMLElement) => boolean): void {
    for (const line of [...this.list.children]) if (line instanceof HTMLElement && isMeant(line)) line.remove();
  }

  private showPin(text: string): void {
    this.pin.replaceChildren(make('span', '', text));
    this.pin.hidden = text === '';
  }

  private answered(answer: Answer, text: string): void {
    this.note.textContent = answer.ok ? '' : (WHY[answer.code] ?? 'That was refused.');
    // What was refused can be changed and sent again.
    if (!answer.ok && this.box.value === '') this.box.value = text;
  }

  private fly(): void {
    if (this.heart.querySelectorAll('.talk-heart').length >= MAX_HEARTS) return;
    const heart = make('span', 'talk-heart', '♥');
    heart.style.setProperty('--drift', `${Math.round(Math.random() * 40 - 20)}px`);
    heart.addEventListener('animationend', () => heart.remove());
    this.heart.append(heart);
  }
}

/** The guest's secret, made once in a browser. */
function secret(): string {
  const known = stored(SECRET_KEY);
  if (known.length >= 16) return known;
  const made = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  try {
    localStorage.setItem(SECRET_KEY, made);
  } catch {
    // Without storage a guest is somebody else after each load.
  }
  return made;
}

function stored(key: string): string {
  try {
    return localStorage.getItem(key) ?? '';
  } catch {
    return '';
  }
}

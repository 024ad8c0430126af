/**
 * What a moderator may do beside each message: take it back, silence or ban who wrote it, pin it.
 *
 * In: the list of messages, clicks. Out: acts of the room's client. The server decides: what is hidden
 * here to others would be refused to them. Shown only to whom the server says that it may.
 */
import { make } from '../page/element';
import type { Act, RoomClient } from './client';

/** How long a mute by one click lasts, in seconds. */
const MUTE_S = 600;

export class Moderation {
  private client: RoomClient | null = null;
  private readonly bar = make('span', 'talk-acts');
  private line: HTMLElement | null = null;
  private allowed = false;

  constructor(
    private readonly list: HTMLElement,
    pin: HTMLElement,
    private readonly refused: (code: string) => void,
  ) {
    this.bar.append(
      this.button('Delete', (line) => ({ a: 'delete', ids: [line.dataset['id'] ?? ''] })),
      this.button('Mute', (line) => ({ a: 'mute', uid: line.dataset['uid'] ?? '', s: MUTE_S })),
      this.button('Ban', (line) => ({ a: 'ban', uid: line.dataset['uid'] ?? '' })),
      this.button('Pin', (line) => ({ a: 'pin', v: line.querySelector('.talk-what')?.textContent ?? '' })),
    );
    list.addEventListener('pointerover', (event) => this.show(event.target));
    list.addEventListener('click', (event) => this.show(event.target));
    list.addEventListener('focusin', (event) => this.show(event.target));
    pin.addEventListener('click', () => {
      if (this.allowed) this.act({ a: 'pin', v: '' });
    });
  }

  connect(client: RoomClient): void {
    this.client = client;
  }

  allow(allowed: boolean): void {
    this.allowed = allowed;
    this.list.classList.toggle('moderated', allowed);
    if (!allowed) this.bar.remove();
  }

  /** Puts the acts beside the message under the pointer. */
  private show(target: EventTarget | null): void {
    const line = target instanceof Element ? target.closest<HTMLElement>('.talk-line.chat') : null;
    if (!this.allowed || line === null || line === this.bar.parentElement) return;
    this.line = line;
    line.append(this.bar);
  }

  private button(name: string, act: (line: HTMLElement) => Act): HTMLButtonElement {
    const button = make('button', 'quiet small', name);
    button.type = 'button';
    button.addEventListener('click', (event) => {
      event.stopPropagation();
      if (this.line !== null) this.act(act(this.line));
    });
    return button;
  }

  private act(act: Act): void {
    void this.client?.moderate(act).then((answer) => {
      if (!answer.ok) this.refused(answer.code);
    });
  }
}

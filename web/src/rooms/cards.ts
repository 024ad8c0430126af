/**
 * The rooms as cards. In: entries. Out: a list in the page that is changed, not rebuilt, so that focus and
 * pointer stay where they are while it refreshes.
 */
import { make } from '../page/element';
import type { Entry } from './directory';

const STATES: Record<Entry['state'], string> = { live: 'Live', grace: 'Paused', idle: 'Idle' };

interface Card {
  readonly item: HTMLLIElement;
  readonly pill: HTMLElement;
  readonly viewers: HTMLElement;
}

export class Cards {
  private readonly cards = new Map<string, Card>();

  constructor(private readonly list: HTMLElement) {}

  show(entries: readonly Entry[]): void {
    const wanted = new Set(entries.map((entry) => entry.label));
    for (const [label, card] of this.cards) {
      if (wanted.has(label)) continue;
      card.item.remove();
      this.cards.delete(label);
    }
    entries.forEach((entry, index) => {
      const card = this.cards.get(entry.label) ?? this.create(entry);
      card.pill.textContent = STATES[entry.state];
      card.pill.dataset['state'] = entry.state;
      card.viewers.textContent = viewersText(entry.viewers);
      if (this.list.children[index] !== card.item) this.list.insertBefore(card.item, this.list.children[index] ?? null);
    });
  }

  private create(entry: Entry): Card {
    const item = make('li');
    const link = make('a', 'room');
    link.href = entry.url;
    const art = make('span', 'art');
    art.setAttribute('aria-hidden', 'true');
    art.style.setProperty('--hue', String(hueOf(entry.label)));
    const pill = make('span', 'pill');
    const words = make('span', 'words');
    const viewers = make('span', 'viewers');
    words.append(make('b', '', entry.room.name), make('small', '', entry.room.app));
    art.append(make('span', 'initial', entry.room.name.slice(0, 1).toUpperCase()));
    link.append(art, pill, words, viewers);
    item.append(link);
    const card = { item, pill, viewers };
    this.cards.set(entry.label, card);
    return card;
  }
}

export function viewersText(viewers: number | null): string {
  if (viewers === null) return '';
  return viewers === 1 ? '1 viewer' : `${new Intl.NumberFormat('en', { notation: 'compact' }).format(viewers)} viewers`;
}

/** A hue for a name: the same on every visit, between green and violet so that it suits the page. */
export function hueOf(label: string): number {
  let hash = 0;
  for (const char of label) hash = (hash * 31 + (char.codePointAt(0) ?? 0)) >>> 0;
  return 150 + (hash % 130);
}

/**
 * What the middle of the picture says in each state, and the element that says it.
 *
 * In: the supervisor's state. Out: title, sentence, button. The words are decided by a pure function; the
 * class only puts them up. A state that lasts a blink is not announced (see `.card` in the style sheet).
 */
import { faultSentence } from '../player/fault';
import type { State } from '../player/supervisor';
import { byId } from '../page/element';

export interface Message {
  /** What to draw above the words. */
  readonly mark: 'busy' | 'calm' | 'over' | 'trouble';
  readonly title: string;
  readonly text: string;
  /** The button's words; null for no button. */
  readonly button: string | null;
}

/** Reconnecting for so many attempts deserves more words. */
const MANY_ATTEMPTS = 4;

/** The message for a state; null where the picture speaks for itself. */
export function messageOf(state: State): Message | null {
  switch (state.name) {
    case 'playing':
    case 'paused':
      return null;
    case 'loading':
      return { mark: 'busy', title: 'Loading', text: '', button: null };
    case 'waiting':
      return {
        mark: 'busy',
        title: 'Waiting for the streamer',
        text: 'The stream has paused. It goes on here by itself.',
        button: null,
      };
    case 'reconnecting':
      return {
        mark: 'busy',
        title: 'Reconnecting',
        text:
          state.attempt < MANY_ATTEMPTS
            ? faultSentence(state.fault)
            : `${faultSentence(state.fault)} Still trying; the stream comes back by itself as soon as it can.`,
        button: 'Try now',
      };
    case 'offline':
      return {
        mark: 'calm',
        title: 'Offline',
        text: 'Nobody is streaming here right now. The stream starts here by itself when it goes live.',
        button: null,
      };
    case 'ended':
      return {
        mark: 'over',
        title: 'The stream has ended',
        text: 'Thanks for watching. If it goes live again, it starts here by itself.',
        button: null,
      };
    case 'failed':
      return { mark: 'trouble', title: 'This does not play', text: faultSentence(state.fault), button: 'Try again' };
  }
}

/** The card over the picture. */
export class Card {
  private readonly card = byId('card', HTMLElement);
  private readonly title = byId('card-title', HTMLElement);
  private readonly text = byId('card-text', HTMLElement);
  private readonly button = byId('card-button', HTMLButtonElement);

  constructor(onButton: () => void) {
    this.button.addEventListener('click', onButton);
  }

  show(message: Message | null): void {
    this.card.hidden = message === null;
    if (message === null) return;
    this.card.dataset['mark'] = message.mark;
    setText(this.title, message.title);
    setText(this.text, message.text);
    this.button.hidden = message.button === null;
    if (message.button !== null) setText(this.button, message.button);
  }
}

/** Leaves equal text alone, so that screen readers do not repeat it. */
function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

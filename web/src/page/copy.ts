/**
 * Lines of text with a button that copies them: URLs, command lines.
 *
 * In: label and text. Out: a list item for the page. Without a clipboard (plain http off localhost) the
 * text is selected instead, ready for the keyboard.
 */
import { make } from './element';

const THANKS_MS = 1_600;

/** A labelled line that can be copied. */
export function copyRow(label: string, text: string): HTMLLIElement {
  const row = make('li', 'copy-row');
  const value = make('code', 'copy-text', text);
  const button = make('button', 'quiet small', 'Copy');
  button.type = 'button';
  button.setAttribute('aria-label', `Copy: ${label}`);
  button.addEventListener('click', () => void copyFrom(value, button));
  row.append(make('span', 'copy-label', label), value, button);
  return row;
}

/** Copies `text`; false if the browser does not let us. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Shows `thanks` on the button for a moment. */
export function thank(button: HTMLButtonElement, thanks: string): void {
  const before = button.dataset['label'] ?? button.textContent ?? '';
  button.dataset['label'] = before;
  button.textContent = thanks;
  setTimeout(() => (button.textContent = before), THANKS_MS);
}

async function copyFrom(value: HTMLElement, button: HTMLButtonElement): Promise<void> {
  if (await copyText(value.textContent ?? '')) {
    thank(button, 'Copied');
    return;
  }
  getSelection()?.selectAllChildren(value);
  thank(button, 'Selected');
}

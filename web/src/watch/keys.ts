/**
 * Which key does what on the player page. Pure: a key event in, a command out.
 */

export type Command =
  | 'toggle-play'
  | 'toggle-mute'
  | 'toggle-fullscreen'
  | 'volume-up'
  | 'volume-down'
  | 'go-live'
  | 'toggle-overlay'
  | 'help';

interface Pressed {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  ' ': 'toggle-play',
  k: 'toggle-play',
  m: 'toggle-mute',
  f: 'toggle-fullscreen',
  arrowup: 'volume-up',
  arrowdown: 'volume-down',
  l: 'go-live',
  i: 'toggle-overlay',
  '?': 'help',
};

/** The command of a key press; null for keys that are the browser's, or that `focus` needs itself. */
export function commandOf(pressed: Pressed, focus: Element | null): Command | null {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey) return null;
  const command = COMMANDS[pressed.key.toLowerCase()] ?? null;
  if (focus?.closest('textarea, select, [contenteditable], input:not([type=range]):not([type=radio])')) return null;
  if (focus?.closest('input') && (command === 'volume-up' || command === 'volume-down')) return null;
  if (command === 'toggle-play' && pressed.key === ' ' && focus?.closest('button, a, summary, input')) return null;
  return command;
}

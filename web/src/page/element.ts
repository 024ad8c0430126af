/**
 * Finding and making elements with checked types. Text goes in as text only, never as markup.
 */

/** The element `id` of the page's own markup; a missing one is a bug in the page. */
export function byId<T extends Element>(id: string, kind: abstract new (...args: never[]) => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return element;
}

/** A new element with class and text. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className = '', text = ''): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className !== '') element.className = className;
  if (text !== '') element.textContent = text;
  return element;
}

/** Points the icon in `holder` at another drawing of the page's sprite. */
export function setIcon(holder: Element, icon: string): void {
  holder.querySelector('use')?.setAttribute('href', `#i-${icon}`);
}

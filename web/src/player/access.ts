/**
 * The viewer's token for a room.
 *
 * In: the page's address, `#token=…` (which no server is sent) or `?token=…`. Out: the token, kept for this
 * tab under the room's name, and an address without it: a link that is copied must not hand it on.
 */
import { roomLabel, type Room } from './room';

interface Page {
  readonly location: Pick<Location, 'href'>;
  readonly history: Pick<History, 'replaceState'>;
  readonly sessionStorage: Pick<Storage, 'getItem' | 'setItem'>;
}

/** The token of this page for a room, if it has one. */
export function takeToken(room: Room, page: Page = window): string | null {
  const key = `tidewater-token ${roomLabel(room)}`;
  const address = new URL(page.location.href);
  const hash = new URLSearchParams(address.hash.slice(1));
  const token = hash.get('token') ?? address.searchParams.get('token');
  if (token === null || token === '') return kept(page, key);
  hash.delete('token');
  address.searchParams.delete('token');
  address.hash = hash.toString();
  page.history.replaceState(null, '', address.href);
  try {
    page.sessionStorage.setItem(key, token);
  } catch {
    // Without storage it is gone after a reload.
  }
  return token;
}

function kept(page: Page, key: string): string | null {
  try {
    return page.sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

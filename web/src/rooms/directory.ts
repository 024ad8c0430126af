/**
 * The list of rooms as the server tells it: fetched, checked, put in order.
 *
 * In: `GET /` with `Accept: application/json`, answered by
 * `{"rooms":[{"room":"live/demo","state":"live","viewers":3,"url":"/watch/live/demo"}]}`. Out: entries that
 * are safe to show and to link to. Entries that make no sense are left out, not believed.
 */
import { parseRoom, roomLabel, watchPath, type Room } from '../player/room';

/** More rooms than this are not shown; the form below the list still reaches them. */
export const MAX_SHOWN = 500;

export interface Entry {
  readonly room: Room;
  readonly label: string;
  readonly state: 'live' | 'grace' | 'idle';
  /** Viewers on the edge that was asked; null if it does not say. */
  readonly viewers: number | null;
  /** Path of the player page. */
  readonly url: string;
}

/** Asks the server; throws if there is no sensible answer. */
export async function fetchRooms(signal: AbortSignal): Promise<Entry[]> {
  const response = await fetch('/', { headers: { Accept: 'application/json' }, cache: 'no-store', signal });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return readRooms(await response.json());
}

/** Checks and orders an answer: most watched first, then by name. Throws if it is no list of rooms. */
export function readRooms(answer: unknown): Entry[] {
  if (!isRecord(answer) || !Array.isArray(answer['rooms'])) throw new Error('no list of rooms in the answer');
  const entries = answer['rooms'].map(readEntry).filter((entry) => entry !== null);
  entries.sort((a, b) => (b.viewers ?? 0) - (a.viewers ?? 0) || a.label.localeCompare(b.label));
  return entries.slice(0, MAX_SHOWN);
}

function readEntry(value: unknown): Entry | null {
  if (!isRecord(value) || typeof value['room'] !== 'string') return null;
  const room = parseRoom(value['room']);
  if (room === null) return null;
  const { state, viewers, url } = value;
  return {
    room,
    label: roomLabel(room),
    state: state === 'grace' || state === 'idle' ? state : 'live',
    viewers: typeof viewers === 'number' && Number.isFinite(viewers) && viewers >= 0 ? Math.floor(viewers) : null,
    url: typeof url === 'string' && url.startsWith('/watch/') ? url : watchPath(room),
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

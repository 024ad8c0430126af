/**
 * The room list, assembled: asks the server every few seconds while somebody looks, shows what is live, and
 * says how to go live when nothing is.
 *
 * In: the list of rooms, a name typed into the form. Out: cards, or the way to the player page.
 */
import './rooms.css';
import { parseRoom, watchPath } from '../player/room';
import { copyRow } from '../page/copy';
import { byId } from '../page/element';
import { Cards } from './cards';
import { fetchRooms, type Entry } from './directory';

const REFRESH_MS = 5_000;
const TIMEOUT_MS = 8_000;

const cards = new Cards(byId('rooms', HTMLElement));
let timer: ReturnType<typeof setTimeout> | undefined;

async function refresh(): Promise<void> {
  clearTimeout(timer);
  const abort = new AbortController();
  const limit = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    show(await fetchRooms(abort.signal));
    setTrouble('');
  } catch {
    setTrouble('The server cannot be reached right now. Trying again…');
  } finally {
    clearTimeout(limit);
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(() => void refresh(), REFRESH_MS);
  }
}

function show(entries: readonly Entry[]): void {
  cards.show(entries);
  byId('count', HTMLElement).textContent = entries.length === 0 ? '' : String(entries.length);
  byId('empty', HTMLElement).hidden = entries.length > 0;
  byId('loading', HTMLElement).hidden = true;
}

function setTrouble(text: string): void {
  const trouble = byId('trouble', HTMLElement);
  trouble.hidden = text === '';
  if (trouble.textContent !== text) trouble.textContent = text;
  if (text !== '') byId('loading', HTMLElement).hidden = true;
}

/** How to push here; an IPv6 address keeps its brackets in `location.hostname`. */
function describePush(): void {
  const server = `rtmp://${location.hostname}/live`;
  byId('push', HTMLElement).append(
    copyRow('OBS: server', server),
    copyRow('OBS: stream key', 'mine'),
    copyRow(
      'ffmpeg: a file',
      `ffmpeg -re -i film.mp4 -c:v libx264 -preset veryfast -tune zerolatency -g 60 -pix_fmt yuv420p -c:a aac -f flv ${server}/mine`,
    ),
    copyRow(
      'ffmpeg: test card',
      `ffmpeg -re -f lavfi -i testsrc2=s=1280x720:r=30 -f lavfi -i sine=440 -c:v libx264 -preset veryfast -tune zerolatency -g 60 -pix_fmt yuv420p -c:a aac -f flv ${server}/mine`,
    ),
  );
}

byId('goto', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  const field = byId('goto-room', HTMLInputElement);
  const room = parseRoom(field.value);
  if (room !== null) {
    location.assign(watchPath(room));
    return;
  }
  field.setCustomValidity('A room is called app/name, in letters, digits, dots, dashes and underscores.');
  field.reportValidity();
});
byId('goto-room', HTMLInputElement).addEventListener('input', (event) => {
  (event.target as HTMLInputElement).setCustomValidity('');
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void refresh();
});
describePush();
void refresh();

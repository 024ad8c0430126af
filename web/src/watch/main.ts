/**
 * The player page, assembled: finds the room in the address, builds the player and the parts of the page,
 * and connects the two.
 *
 * In: `/watch/{app}/{name}`, optionally `?protocol=llhls|hls|flv|wsflv` and `#token=…`. Out: the page, and
 * `window.tidewater.stats()`. The layout leaves a column for a side panel (`.side` in the style sheet).
 */
import './watch.css';
import { detectAbilities } from '../player/abilities';
import { takeToken } from '../player/access';
import { Player } from '../player/player';
import { DEFAULT_PROTOCOL, parseProtocol, type Protocol } from '../player/protocol';
import { endpoints, roomFromPath, roomLabel, type Room } from '../player/room';
import type { Stats } from '../player/stats';
import { copyText, thank } from '../page/copy';
import { byId } from '../page/element';
import { Card, messageOf } from './card';
import { Controls } from './controls';
import { elsewhereRows } from './elsewhere';
import { commandOf, type Command } from './keys';
import { Overlay } from './overlay';
import { ProtocolMenu } from './protocol-menu';
import { recallSound, rememberSound } from './sound';
import { Stage } from './stage';
import { openPanel } from '../talk/panel';
import { Still } from './still';

declare global {
  interface Window {
    /** For tests and for people with the console open. */
    tidewater?: { stats(): Stats };
  }
}

const VOLUME_STEP = 0.05;

const room = roomFromPath(location.pathname);
if (room === null) showBadName();
else watch(room);

function watch(room: Room): void {
  const token = takeToken(room);
  const video = byId('video', HTMLVideoElement);
  const abilities = detectAbilities(video);
  const wanted = parseProtocol(new URLSearchParams(location.search).get('protocol')) ?? DEFAULT_PROTOCOL;
  recallSound(video);

  // The parts below are built before the player first reports, so `refresh` may use them all.
  const player = new Player(video, room, location.origin, abilities, wanted, {
    changed: () => refresh(),
    leaving: () => still.capture(video),
  }, token);
  const still = new Still();
  const card = new Card(() => player.retry());
  const overlay = new Overlay(() => player.stats());
  const menu = new ProtocolMenu(abilities, (protocol) => choose(protocol));
  const stage = new Stage(byId('stage', HTMLElement), video, () => menu.isOpen || player.state.name !== 'playing', () =>
    player.togglePlay(),
  );
  const help = byId('help', HTMLDialogElement);
  const run = (command: Command): void => obey(command, { player, overlay, stage, help });
  const controls = new Controls(player, stage, run);

  function refresh(): void {
    const { state } = player;
    byId('stage', HTMLElement).dataset['state'] = state.name;
    card.show(messageOf(state));
    controls.refresh();
    menu.show(player.protocol);
    if (state.name === 'playing') still.clear();
    else stage.wake();
    if (!player.soundBlocked) rememberSound(video);
  }

  function choose(protocol: Protocol): void {
    const address = new URL(location.href);
    address.searchParams.set('protocol', protocol);
    history.replaceState(null, '', address);
    player.setProtocol(protocol);
    refresh();
  }

  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') menu.close();
    const command = help.open ? null : commandOf(event, document.activeElement);
    if (command === null) return;
    event.preventDefault();
    stage.wake();
    run(command);
  });
  describe(room);
  window.tidewater = { stats: () => player.stats() };
  player.start();
  openPanel(room, location.origin, token);
}

interface Parts {
  readonly player: Player;
  readonly overlay: Overlay;
  readonly stage: Stage;
  readonly help: HTMLDialogElement;
}

function obey(command: Command, { player, overlay, stage, help }: Parts): void {
  switch (command) {
    case 'toggle-play':
      player.togglePlay();
      break;
    case 'toggle-mute':
      player.setMuted(!player.video.muted);
      break;
    case 'toggle-fullscreen':
      stage.toggleFullscreen();
      break;
    case 'volume-up':
      player.setVolume(player.video.volume + VOLUME_STEP);
      break;
    case 'volume-down':
      player.setVolume(player.video.volume - VOLUME_STEP);
      break;
    case 'go-live':
      player.goLive();
      break;
    case 'toggle-overlay':
      overlay.toggle();
      byId('info', HTMLButtonElement).setAttribute('aria-pressed', String(overlay.shown));
      break;
    case 'help':
      help.showModal();
      break;
  }
}

/** Names the room on the page and to the system's media controls, and lists its URLs. */
function describe(room: Room): void {
  const label = roomLabel(room);
  document.title = `${label} · Tidewater`;
  byId('title', HTMLElement).textContent = label;
  byId('elsewhere', HTMLElement).append(...elsewhereRows(endpoints(room, location.origin)));
  const share = byId('share', HTMLButtonElement);
  share.addEventListener('click', () => {
    void copyText(location.href).then((copied) => thank(share, copied ? 'Link copied' : 'Copy it from the address bar'));
  });
  if ('mediaSession' in navigator) {
    navigator.mediaSession.metadata = new MediaMetadata({ title: label, artist: 'Tidewater' });
  }
}

function showBadName(): void {
  byId('stage', HTMLElement).dataset['state'] = 'failed';
  byId('title', HTMLElement).textContent = 'No such room';
  document.querySelector('.side')?.remove();
  for (const id of ['about', 'controls', 'pill', 'share']) byId(id, HTMLElement).hidden = true;
  new Card(() => location.assign('/')).show({
    mark: 'trouble',
    title: 'This is not a room',
    text: 'A room is called app/name, in letters, digits, dots, dashes and underscores.',
    button: 'See who is live',
  });
}

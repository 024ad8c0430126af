/**
 * The control bar: buttons that run commands and show what the player is at.
 *
 * In: clicks, the player's state. Out: commands. All keys have a button here and all buttons a key, but for
 * picture-in-picture.
 */
import type { Player } from '../player/player';
import type { State } from '../player/supervisor';
import { byId, setIcon } from '../page/element';
import type { Command } from './keys';
import type { Stage } from './stage';

/** Behind its target by more than this, the player is not live any more. */
const LIVE_TOLERANCE_S = 2.5;
/** How often the live mark is looked at. */
const LIVE_CHECK_MS = 1_000;

const PILLS: Record<State['name'], string> = {
  loading: 'Loading',
  playing: 'Live',
  paused: 'Paused',
  waiting: 'Waiting',
  reconnecting: 'Reconnecting',
  offline: 'Offline',
  ended: 'Ended',
  failed: 'Error',
};

/** States in which there is something to pause or to go on with. */
const PLAYABLE: ReadonlySet<State['name']> = new Set(['loading', 'playing', 'paused', 'waiting']);

export class Controls {
  private readonly play = byId('play', HTMLButtonElement);
  private readonly bigPlay = byId('big-play', HTMLButtonElement);
  private readonly mute = byId('mute', HTMLButtonElement);
  private readonly volume = byId('volume', HTMLInputElement);
  private readonly live = byId('live', HTMLButtonElement);
  private readonly sound = byId('sound', HTMLButtonElement);
  private readonly pill = byId('pill', HTMLElement);
  private readonly fullscreen = byId('fullscreen', HTMLButtonElement);

  constructor(
    private readonly player: Player,
    stage: Stage,
    run: (command: Command) => void,
  ) {
    const buttons: [HTMLElement, Command][] = [
      [this.play, 'toggle-play'],
      [this.bigPlay, 'toggle-play'],
      [this.mute, 'toggle-mute'],
      [this.live, 'go-live'],
      [byId('info', HTMLButtonElement), 'toggle-overlay'],
      [byId('help-button', HTMLButtonElement), 'help'],
      [this.fullscreen, 'toggle-fullscreen'],
    ];
    for (const [button, command] of buttons) button.addEventListener('click', () => run(command));
    this.sound.addEventListener('click', () => player.setMuted(false));
    this.volume.addEventListener('input', () => player.setVolume(Number(this.volume.value)));
    const pip = byId('pip', HTMLButtonElement);
    pip.hidden = !stage.canPictureInPicture;
    pip.addEventListener('click', () => stage.togglePictureInPicture());
    document.addEventListener('fullscreenchange', () => this.refresh());
    setInterval(() => this.refreshLive(), LIVE_CHECK_MS);
  }

  refresh(): void {
    const { state, video } = this.player;
    const resting = state.name === 'paused' || state.name === 'failed';
    relabel(this.play, resting ? 'play' : 'pause', resting ? 'Play' : 'Pause');
    this.play.hidden = !PLAYABLE.has(state.name);
    this.bigPlay.hidden = state.name !== 'paused';
    const silent = video.muted || video.volume === 0;
    relabel(this.mute, silent ? 'muted' : 'sound', silent ? 'Unmute' : 'Mute');
    this.volume.value = String(silent ? 0 : video.volume);
    this.sound.hidden = !this.player.soundBlocked || state.name !== 'playing';
    const full = document.fullscreenElement !== null;
    relabel(this.fullscreen, full ? 'shrink' : 'expand', full ? 'Leave full screen' : 'Full screen');
    this.pill.textContent = PILLS[state.name];
    this.pill.dataset['state'] = state.name;
    this.refreshLive();
  }

  private refreshLive(): void {
    const { state, edge_latency_s, target_latency_s } = this.player.stats();
    const behindS = edge_latency_s === null ? 0 : edge_latency_s - (target_latency_s ?? edge_latency_s);
    const isLive = state === 'playing' && behindS < LIVE_TOLERANCE_S;
    this.live.classList.toggle('on', isLive);
    this.live.hidden = state !== 'playing' && state !== 'paused';
    this.live.setAttribute('aria-label', isLive ? 'At the live edge' : 'Go to the live edge');
  }
}

function relabel(button: HTMLButtonElement, icon: string, label: string): void {
  setIcon(button, icon);
  button.setAttribute('aria-label', label);
  button.title = label;
}

/**
 * The picture's frame: full screen, picture-in-picture, the aspect of the stream, and controls that leave
 * when nobody needs them.
 *
 * In: pointer, focus and video events. Out: classes on the stage. Knows nothing of streams.
 */

/** Controls stay so long after the last move of the pointer. */
const IDLE_MS = 2_800;

/** A click waits so long for a second one. */
const DOUBLE_CLICK_MS = 220;

/** What older Safari has instead of the standard. */
interface SafariVideo extends HTMLVideoElement {
  webkitEnterFullscreen?: () => void;
}

export class Stage {
  private idle: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly stage: HTMLElement,
    private readonly video: SafariVideo,
    /** Whether the controls must stay: paused, a menu open, a message up. */
    private readonly mustStay: () => boolean,
    onTap: () => void,
  ) {
    for (const name of ['pointermove', 'pointerdown', 'focusin', 'keydown'] as const) {
      stage.addEventListener(name, () => this.wake());
    }
    stage.addEventListener('pointerleave', (event) => {
      if (event.pointerType === 'mouse') this.sleepIn(600);
    });
    video.addEventListener('resize', () => this.fit());
    this.listenForTaps(onTap);
    this.wake();
  }

  /** Shows the controls, for a while. */
  wake(): void {
    this.stage.classList.remove('idle');
    this.sleepIn(IDLE_MS);
  }

  toggleFullscreen(): void {
    if (document.fullscreenElement !== null) void document.exitFullscreen();
    else if (this.stage.requestFullscreen) void this.stage.requestFullscreen().catch(() => undefined);
    else this.video.webkitEnterFullscreen?.();
  }

  get canPictureInPicture(): boolean {
    return document.pictureInPictureEnabled === true;
  }

  togglePictureInPicture(): void {
    const leaving = document.pictureInPictureElement !== null;
    void (leaving ? document.exitPictureInPicture() : this.video.requestPictureInPicture()).catch(() => undefined);
  }

  private sleepIn(delayMs: number): void {
    clearTimeout(this.idle);
    this.idle = setTimeout(() => {
      if (!this.mustStay() && !this.stage.querySelector('.controls :focus-visible')) this.stage.classList.add('idle');
    }, delayMs);
  }

  /** A click of the mouse pauses, a double click fills the screen; a finger only brings the controls. */
  private listenForTaps(onTap: () => void): void {
    let pending: ReturnType<typeof setTimeout> | undefined;
    this.video.addEventListener('click', (event) => {
      if ((event as PointerEvent).pointerType !== 'mouse') return;
      clearTimeout(pending);
      pending = setTimeout(onTap, DOUBLE_CLICK_MS);
    });
    this.video.addEventListener('dblclick', () => {
      clearTimeout(pending);
      this.toggleFullscreen();
    });
  }

  /** Upright streams, as phones push them, get an upright frame. */
  private fit(): void {
    const { videoWidth, videoHeight } = this.video;
    if (videoWidth > 0) this.stage.style.setProperty('--aspect', `${videoWidth} / ${videoHeight}`);
  }
}

/**
 * The last picture, kept while there is no player: a reconnect, another protocol.
 *
 * In: the video element just before its player is dropped. Out: a canvas behind the message, so that a
 * short break looks like a pause and not like the end.
 */
import { byId } from '../page/element';

export class Still {
  private readonly canvas = byId('still', HTMLCanvasElement);

  /** Keeps what `video` shows now; if that is nothing, what was kept before stays. */
  capture(video: HTMLVideoElement): void {
    if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || video.videoWidth === 0) return;
    this.canvas.width = video.videoWidth;
    this.canvas.height = video.videoHeight;
    this.canvas.getContext('2d')?.drawImage(video, 0, 0);
    this.canvas.hidden = false;
  }

  clear(): void {
    this.canvas.hidden = true;
  }
}

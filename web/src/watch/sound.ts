/**
 * Remembers volume and mute from one visit to the next, where the browser allows storage.
 */

const KEY = 'tidewater.sound';

type Sound = Pick<HTMLVideoElement, 'volume' | 'muted'>;

/** Sets the element as it was left last time. */
export function recallSound(video: Sound): void {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? 'null');
    if (typeof kept !== 'object' || kept === null) return;
    const { volume, muted } = kept as Record<string, unknown>;
    if (typeof volume === 'number' && volume >= 0 && volume <= 1) video.volume = volume;
    if (typeof muted === 'boolean') video.muted = muted;
  } catch {
    // no storage, or not ours: start loud
  }
}

export function rememberSound(video: Sound): void {
  try {
    localStorage.setItem(KEY, JSON.stringify({ volume: video.volume, muted: video.muted }));
  } catch {
    // no storage: nothing is remembered
  }
}

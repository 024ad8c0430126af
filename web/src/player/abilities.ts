/**
 * What this browser can play. Reads the environment once; loads no library it might not need.
 */
import { HlsEngine } from './hls-engine';
import { NativeEngine } from './native-engine';
import type { Abilities } from './protocol';

/** What every H.264 + AAC stream needs. */
const BASELINE = 'video/mp4; codecs="avc1.42E01E,mp4a.40.2"';

interface MediaSourceKind {
  isTypeSupported(type: string): boolean;
}

export function detectAbilities(video: HTMLVideoElement): Abilities {
  const scope = globalThis as { MediaSource?: MediaSourceKind; ManagedMediaSource?: MediaSourceKind };
  const mediaSource = scope.MediaSource ?? scope.ManagedMediaSource;
  const canStream = typeof fetch === 'function' && typeof ReadableStream === 'function';
  return {
    hlsJs: HlsEngine.isSupported(),
    nativeHls: NativeEngine.isSupported(video),
    mpegtsJs: canStream && (mediaSource?.isTypeSupported(BASELINE) ?? false),
  };
}

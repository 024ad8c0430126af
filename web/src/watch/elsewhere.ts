/**
 * The stream's URLs for other players. In: the room's endpoints. Out: rows to copy.
 */
import type { Endpoints } from '../player/room';
import { copyRow } from '../page/copy';

export function elsewhereRows(urls: Endpoints): HTMLLIElement[] {
  return [
    copyRow('HLS and LL-HLS', urls.hls),
    copyRow('HTTP-FLV', urls.flv),
    copyRow('WS-FLV', urls.wsflv),
    copyRow('VLC', `vlc ${urls.hls}`),
    copyRow('ffplay, low delay', `ffplay -fflags nobuffer ${urls.flv}`),
  ];
}

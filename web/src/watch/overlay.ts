/**
 * The figures over the picture, for people who want to know.
 *
 * In: {@link Stats}, twice a second while shown. Out: labelled rows. Formatting is pure and tested.
 */
import type { LatencyBasis } from '../player/engine';
import { protocolLabel } from '../player/protocol';
import type { Stats } from '../player/stats';
import { byId, make } from '../page/element';

const REFRESH_MS = 500;

const BASIS: Record<LatencyBasis, string> = {
  'program-date-time': 'by the broadcast clock',
  'live-edge': 'behind the newest in the playlist',
  buffer: 'buffered; network not counted',
};

/** The rows to show. */
export function overlayRows(stats: Stats): readonly (readonly [label: string, value: string])[] {
  const { latency_s, latency_basis, edge_latency_s, target_latency_s } = stats;
  const rows: [string, string][] = [
    ['Protocol', `${protocolLabel(stats.protocol)}${stats.engine === null ? '' : ` · ${stats.engine}`}`],
    ['Latency', latency_s === null || latency_basis === null ? '–' : `${seconds(latency_s)} ${BASIS[latency_basis]}`],
  ];
  if (latency_basis === 'program-date-time') rows.push(['Live edge', `${seconds(edge_latency_s)} behind`]);
  rows.push(
    ['Target', `${seconds(target_latency_s)} · speed ${stats.playback_rate.toFixed(2)}×`],
    ['Buffer', seconds(stats.buffer_s)],
    ['Bitrate', bitrate(stats.bitrate_bps)],
    ['Picture', picture(stats)],
    ['Dropped', `${stats.dropped} of ${stats.frames} frames`],
    ['Stalls', `${stats.stalls} · ${seconds(stats.stalled_s)}`],
    ['Reconnects', String(stats.reconnects)],
  );
  if (stats.codecs !== null) rows.push(['Codecs', stats.codecs]);
  if (stats.fault !== null) rows.push(['Fault', stats.fault]);
  return rows;
}

function seconds(value: number | null): string {
  return value === null ? '–' : `${value.toFixed(2)} s`;
}

function bitrate(bps: number | null): string {
  if (bps === null) return '–';
  return bps >= 1_000_000 ? `${(bps / 1_000_000).toFixed(2)} Mbit/s` : `${Math.round(bps / 1000)} kbit/s`;
}

function picture({ width, height, fps }: Stats): string {
  if (width === 0) return 'no video';
  return `${width} × ${height}${fps === null ? '' : ` · ${fps.toFixed(1)} fps`}`;
}

export class Overlay {
  private readonly list = byId('overlay', HTMLElement);
  private timer: ReturnType<typeof setInterval> | undefined;

  constructor(private readonly read: () => Stats) {}

  get shown(): boolean {
    return !this.list.hidden;
  }

  toggle(): void {
    this.list.hidden = this.shown;
    clearInterval(this.timer);
    if (!this.shown) return;
    this.render();
    this.timer = setInterval(() => this.render(), REFRESH_MS);
  }

  private render(): void {
    const rows = overlayRows(this.read()).map(([label, value]) => {
      const row = make('div', 'overlay-row');
      row.append(make('dt', '', label), make('dd', '', value));
      return row;
    });
    this.list.replaceChildren(...rows);
  }
}

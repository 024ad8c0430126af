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

/** A label, its value, and what only a wide screen has room for. */
export type Row = readonly [label: string, value: string, note?: string];

/** The rows to show. */
export function overlayRows(stats: Stats): readonly Row[] {
  const { latency_basis } = stats;
  const rows: Row[] = [
    ['Protocol', protocolLabel(stats.protocol), stats.engine ?? ''],
    ['Latency', seconds(stats.latency_s), latency_basis === null ? '' : BASIS[latency_basis]],
  ];
  if (latency_basis === 'program-date-time') rows.push(['Live edge', seconds(stats.edge_latency_s), 'behind it']);
  rows.push(
    ['Target', seconds(stats.target_latency_s), `speed ${stats.playback_rate.toFixed(2)}×`],
    ['Buffer', seconds(stats.buffer_s)],
    ['Bitrate', bitrate(stats.bitrate_bps)],
    ['Picture', picture(stats), stats.fps === null ? '' : `${stats.fps.toFixed(1)} fps`],
    ['Dropped', String(stats.dropped), `of ${stats.frames} frames`],
    ['Stalls', String(stats.stalls), seconds(stats.stalled_s)],
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

function picture({ width, height }: Stats): string {
  return width === 0 ? 'none' : `${width} × ${height}`;
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
    const rows = overlayRows(this.read()).map(([label, value, note]) => {
      const row = make('div', 'overlay-row');
      const data = make('dd', '', value);
      if (note) data.append(make('span', 'note', ` ${note}`));
      row.append(make('dt', '', label), data);
      return row;
    });
    this.list.replaceChildren(...rows);
  }
}

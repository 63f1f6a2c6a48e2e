export interface Series {
  readonly name: string;
  /** Drawn with a broken line. */
  readonly dashed: boolean;
  readonly points: readonly Point[];
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Panel {
  readonly title: string;
  readonly xTitle: string;
  readonly series: readonly Series[];
}

const PANEL = { width: 420, height: 340, left: 56, top: 40, right: 12, bottom: 44 };
const LEGEND_WIDTH = 170;
const COLOURS = ['#1b6ca8', '#d1495b', '#2e933c', '#edae49', '#6a4c93', '#17becf', '#8d5524', '#7d8597', '#c2185b'];

/** Panels side by side with one legend, as SVG. Both axes are logarithmic: what matters is how many times. */
export function plot(panels: readonly Panel[]): string {
  const width = panels.length * PANEL.width + LEGEND_WIDTH;
  const names = [...new Map(panels.flatMap(({ series }) => series.map((one) => [one.name, one] as const))).values()];
  const colours = new Map(names.map(({ name }, index) => [name, COLOURS[index % COLOURS.length] ?? '#000']));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${PANEL.height}" font-family="sans-serif" font-size="11">`,
    `<title>${panels.map(({ title }) => title).join(', ')}</title>`,
    `<rect width="${width}" height="${PANEL.height}" fill="#fff"/>`,
    ...panels.map((panel, index) => `<g transform="translate(${index * PANEL.width})">${draw(panel, colours)}</g>`),
    `<g transform="translate(${panels.length * PANEL.width + 8} ${PANEL.top})">${legend(names, colours)}</g>`,
    '</svg>\n',
  ].join('\n');
}

function draw({ title, xTitle, series }: Panel, colours: ReadonlyMap<string, string>): string {
  const points = series.flatMap((one) => one.points);
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const toX = scale(xs, PANEL.left + 12, PANEL.width - PANEL.right - 12);
  const ticks = ticksFor(points.map(({ y }) => y));
  const bottom = PANEL.height - PANEL.bottom;
  const toY = scale(ticks, bottom, PANEL.top);
  const right = PANEL.width - PANEL.right;
  return [
    `<text x="${PANEL.left}" y="24" font-size="14" font-weight="bold">${escaped(title)}</text>`,
    ...ticks.map((tick) => {
      const y = toY(tick);
      return `<path d="M${PANEL.left} ${y}H${right}" stroke="#ddd"/><text x="${PANEL.left - 6}" y="${y + 4}" text-anchor="end">${short(tick)}</text>`;
    }),
    ...xs.map((x) => `<text x="${toX(x)}" y="${bottom + 16}" text-anchor="middle">${x}</text>`),
    `<text x="${(PANEL.left + right) / 2}" y="${bottom + 34}" text-anchor="middle">${escaped(xTitle)}</text>`,
    ...series.map((one) => line(one, colours.get(one.name) ?? '#000', toX, toY)),
  ].join('\n');
}

type Scale = (value: number) => number;

function line({ points, dashed }: Series, colour: string, toX: Scale, toY: Scale): string {
  const path = points.map(({ x, y }) => `${toX(x)} ${toY(y)}`).join('L');
  const dots = points.map(({ x, y }) => `<circle cx="${toX(x)}" cy="${toY(y)}" r="3" fill="${colour}"/>`).join('');
  return `<path d="M${path}" fill="none" stroke="${colour}" stroke-width="2"${broken(dashed)}/>${dots}`;
}

function legend(names: readonly Series[], colours: ReadonlyMap<string, string>): string {
  return names
    .map(({ name, dashed }, index) => {
      const y = index * 20;
      const sample = `<path d="M0 ${y}H22" stroke="${colours.get(name)}" stroke-width="2"${broken(dashed)}/>`;
      return `${sample}<text x="28" y="${y + 4}">${escaped(name)}</text>`;
    })
    .join('\n');
}

function broken(dashed: boolean): string {
  return dashed ? ' stroke-dasharray="5 4"' : '';
}

/** Logarithmic from the smallest of the values to the largest; with only one value, that one in the middle. */
function scale(values: readonly number[], from: number, to: number): Scale {
  const low = Math.log(Math.min(...values));
  const span = Math.log(Math.max(...values)) - low;
  return (value) => Math.round((from + (span > 0 ? (Math.log(value) - low) / span : 0.5) * (to - from)) * 10) / 10;
}

/** 1, 2 and 5 of every power of ten, from below the smallest value to above the largest. */
function ticksFor(values: readonly number[]): number[] {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.ceil(Math.log10(Math.max(...values)));
  const all = Array.from({ length: high - low + 1 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** (low + power)));
  const ticks = all.flat();
  const first = ticks.findLastIndex((tick) => tick <= Math.min(...values));
  const last = ticks.findIndex((tick) => tick >= Math.max(...values));
  return ticks.slice(first, last + 1);
}

function short(value: number): string {
  return value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(1)));
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

import { type Goal, standings } from './goals.ts'
import type { Row } from './results.ts'
import type { Ratio } from './statistics.ts'

const WIDTH = 880
const NAME_WIDTH = 270
const PLOT_WIDTH = 440
const LINE_HEIGHT = 20
const BAR_HEIGHT = 11
const TOP = 34
const GROUP_GAP = 30
const MOST = 3 // ratios: what is beyond ends at the edge, its number beside it tells
const TICK = 0.5

/** What can be read on any ground, and better colours where the reader's preference is known. */
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #6e7781 }
  .small { font-size: 11px }
  .heading { font-weight: 600 }
  .bar { fill: #8b949e }
  .met { fill: #2da44e }
  .missed { fill: #cf222e }
  .whisker { stroke: #57606a; stroke-width: 1.4 }
  .grid { stroke: #8b949e; stroke-width: 0.6; stroke-opacity: 0.4 }
  .one { stroke: #6e7781; stroke-width: 1.4 }
  .goal { stroke: #388bfd; stroke-width: 2.6 }
  @media (prefers-color-scheme: light) {
    text { fill: #24292f }
    .whisker, .one { stroke: #24292f }
  }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .whisker, .one { stroke: #e6edf3 }
  }
`

interface Bar {
  readonly label: string
  readonly ratio: Ratio
  /** undefined: without a goal. */
  readonly bound: Goal['bound'] | undefined
  readonly isMet: boolean
}

interface Group {
  readonly heading: string
  readonly bars: readonly Bar[]
}

/** Suites of the chart, each with what it divides. */
const COMPARED: Readonly<Record<string, string>> = {
  tcp: 'limpid ÷ haproxy',
  memory: 'limpid ÷ haproxy',
  workers: 'limpid-2 ÷ haproxy-2',
  bypass: 'limpid-bypass ÷ forwarding',
}

/** Bars of ratios with their spread, a line at 1, and marks where the goals are: an SVG that can be read on light and on dark. */
export function chartOf(rows: readonly Row[]): string {
  const groups = groupsOf(rows)
  const height = TOP + groups.reduce((sum, { bars }) => sum + GROUP_GAP + bars.length * LINE_HEIGHT, 0) + 12
  const parts: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Ratios of Limpid’s figures to HAProxy’s, by case">`,
    `<style>${STYLE}</style>`,
    text(0, 16, 'Limpid ÷ HAProxy', 'heading'),
    text(
      NAME_WIDTH,
      16,
      'bar: ratio of medians; line on it: smallest to largest ratio of a round; blue: the goal; bypass ÷ forwarding',
      'small',
    ),
  ]
  let y = TOP
  for (const { heading, bars } of groups) {
    const bottom = y + GROUP_GAP + bars.length * LINE_HEIGHT - 6
    parts.push(text(0, y + GROUP_GAP - 12, heading, 'heading'))
    for (let at = 0; at <= MOST; at += TICK) {
      parts.push(line(at, y + GROUP_GAP - 6, at, bottom, at === 1 ? 'one' : 'grid'))
      parts.push(text(scale(at), y + GROUP_GAP - 12, at.toFixed(1), 'small', 'middle'))
    }
    bars.forEach((bar, i) => {
      parts.push(...barParts(bar, y + GROUP_GAP + i * LINE_HEIGHT))
    })
    y = bottom + 6
  }
  return `${[...parts, '</svg>'].join('\n')}\n`
}

function groupsOf(rows: readonly Row[]): Group[] {
  const goals = standings(rows)
  const bars = (better: Row['better']): Bar[] =>
    rows.flatMap((row) => {
      const ratio = row.ratios[COMPARED[row.suite] ?? '']
      if (row.better !== better || ratio === undefined) return []
      const standing = goals.find(({ goal }) => goal.case === row.case && goal.unit === row.unit)
      const label = `${row.case}, ${row.unit}`
      return [{ label, ratio, bound: standing?.goal.bound, isMet: standing?.isMet ?? false }]
    })
  const groups = [
    { heading: 'More is better', bars: bars('more') },
    { heading: 'Less is better', bars: bars('less') },
  ]
  return groups.filter((group) => group.bars.length > 0)
}

function barParts({ label, ratio, bound, isMet }: Bar, y: number): string[] {
  const middle = y + LINE_HEIGHT / 2 - 3
  const top = middle - BAR_HEIGHT / 2
  const kind = bound === undefined ? 'bar' : isMet ? 'met' : 'missed'
  const figures = `${ratio.ofMedians.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`
  const parts = [
    text(NAME_WIDTH - 10, middle + 4, label, '', 'end'),
    `<rect class="${kind}" x="${NAME_WIDTH}" y="${top}" width="${round(scale(ratio.ofMedians) - NAME_WIDTH)}" height="${BAR_HEIGHT}"/>`,
    line(ratio.min, middle, ratio.max, middle, 'whisker'),
    line(ratio.min, middle - 3, ratio.min, middle + 3, 'whisker'),
    line(ratio.max, middle - 3, ratio.max, middle + 3, 'whisker'),
    text(NAME_WIDTH + PLOT_WIDTH + 12, middle + 4, figures, ''),
  ]
  if (bound === undefined) return parts
  const at = 'least' in bound ? bound.least : bound.most
  return [...parts, line(at, top - 3, at, top + BAR_HEIGHT + 3, 'goal')]
}

/** Where a ratio lies, at most at the right edge. */
function scale(ratio: number): number {
  return round(NAME_WIDTH + (Math.min(Math.max(ratio, 0), MOST) / MOST) * PLOT_WIDTH)
}

function line(from: number, y1: number, to: number, y2: number, kind: string): string {
  return `<line class="${kind}" x1="${scale(from)}" y1="${round(y1)}" x2="${scale(to)}" y2="${round(y2)}"/>`
}

function text(x: number, y: number, content: string, kind: string, anchor = 'start'): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x}" y="${round(y)}" class="${kind}" text-anchor="${anchor}">${escaped}</text>`
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}

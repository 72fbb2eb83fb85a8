import type { Colour } from '../colour.ts'

/** Colour on a terminal, unless NO_COLOR (no-color.org) or TERM=dumb says otherwise. */
export function colourOf(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): Colour {
  const on = stream.isTTY === true && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb'
  const wrap = (start: number, end: number) => (text: string) => (on ? `\x1b[${start}m${text}\x1b[${end}m` : text)
  return { bold: wrap(1, 22), dim: wrap(2, 22), green: wrap(32, 39), red: wrap(31, 39), yellow: wrap(33, 39) }
}

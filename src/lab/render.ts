import { basename } from 'node:path'
import { formatEndpoint, sameEndpoint } from '../net/address.ts'
import { hostName, X_ADDRESSES } from './owners.ts'
import type { LabReport, LabRun } from './report.ts'
import { hasForeignAddress, listensOn, roleOf } from './roles.ts'
import type { SocketRow } from './sockets.ts'
import { ADDRESSES, BRIDGE_ADDRESSES, type Topology } from './topology.ts'

export type Style = 'bold' | 'dim' | 'green' | 'red' | 'yellow' | 'cyan'

/** Puts text into a style, or returns it as it is where there is no colour. */
export type Paint = (style: Style, text: string) => string

/** A topology as a picture. */
export function renderTopology({ addresses }: Pick<Topology, 'addresses'>, paint: Paint): string[] {
  const rows = ([4, 6] as const).map((family) => addresses[family])
  const isBridge = rows.every(({ xy, xz }) => xy === xz)
  const boxes = [
    box(
      'Y  client',
      rows.map(({ y }) => y),
      paint,
    ),
    box(
      isBridge ? 'X  limpid, a bridge' : 'X  limpid',
      rows.map(({ xy, xz }) => (isBridge ? xy : `${xy.padEnd(13)}${xz}`)),
      paint,
    ),
    box(
      'Z  server',
      rows.map(({ z }) => z),
      paint,
    ),
  ]
  const wires = ['       ', '       ', '───────', '       ', '       ']
  return wires.map((wire, line) => `  ${boxes.map((lines) => lines[line]).join(wire)}`)
}

function box(title: string, lines: readonly string[], paint: Paint): string[] {
  const width = Math.max(title.length, ...lines.map((line) => line.length))
  const row = (text: string, shown = text): string => `│ ${shown}${' '.repeat(width - text.length)} │`
  return [
    `┌${'─'.repeat(width + 2)}┐`,
    row(title, paint('bold', title)),
    ...lines.map((line) => row(line)),
    `└${'─'.repeat(width + 2)}┘`,
  ]
}

/** The heading of a scenario. */
export function renderScenario(run: LabRun, paint: Paint): string[] {
  return [paint('bold', `${run.scenario}  ${run.title}`)]
}

/** One scenario over one family: the command, the sockets, what both ends saw, and the verdict. */
export function renderRun(run: LabRun, paint: Paint): string[] {
  const label = (text: string): string => paint('dim', text.padEnd(11))
  const lines = [
    `  ${paint('cyan', `IPv${run.family}`)}  ${label('on X')}$ ${paint('bold', run.command)}`,
    ...(run.file === undefined ? [] : [`        ${label('the file')}${run.file.trim()}`]),
    `        ${label(run.sentFrom === undefined ? VERB[run.protocol] : 'X sends')}${askedText(run)}`,
  ]
  const rows = socketLines(run, paint)
  rows.forEach((row, index) => {
    lines.push(`        ${label(index === 0 ? 'ss on X' : '')}${row}`)
  })
  lines.push(...seenLines(run).map(([what, text]) => `        ${label(what)}${text}`))
  lines.push(`        ${label('predicted')}${run.predicted.verdict}  ${verdictMark(run.passed, paint)}`)
  for (const { what, predicted, observed } of run.evidence ?? []) {
    lines.push(`        ${label(what)}${observed}`)
    lines.push(`        ${label('predicted')}${predicted}  ${verdictMark(observed === predicted, paint)}`)
  }
  for (const difference of run.differences) {
    const [first, ...more] = difference.split('\n')
    lines.push(
      `        ${paint('red', `difference ${first}`)}`,
      ...more.map((line) => `        ${' '.repeat(11)}${line}`),
    )
  }
  return lines
}

const VERB = { tcp: 'Y dials', udp: 'Y asks' } as const

function askedText({ sentFrom, dialled }: LabRun): string {
  const to = formatEndpoint(dialled)
  return sentFrom === undefined ? to : `${formatEndpoint(sentFrom)} → ${to}`
}

function verdictMark(isSame: boolean, paint: Paint): string {
  return isSame ? paint('green', '✓ the same') : paint('red', '✗')
}

/** What both ends saw, as labels and texts. */
function seenLines({ clientSees, serverSees, observed }: LabRun): [string, string][] {
  if (observed === undefined) return []
  const sides = [
    ['Y sees', clientSees, observed.clientSees],
    ['Z sees', serverSees, observed.serverSees],
  ] as const
  const seen = sides.flatMap(([what, peer, owner]) => (peer === undefined ? [] : [[what, peer, owner] as const]))
  const width = Math.max(...seen.map(([, peer]) => formatEndpoint(peer).length))
  return [
    ...seen.map(([what, peer, owner]): [string, string] => [
      what,
      `${formatEndpoint(peer).padEnd(width)}  ${owner === peer.address ? 'none of the three' : hostName(owner)}`,
    ]),
    ['observed', observed.verdict],
  ]
}

function socketLines(run: LabRun, paint: Paint): string[] {
  const cells = run.sockets.map((row) => [
    row.state,
    formatEndpoint(row.local),
    row.peer.port === 0 ? '*' : formatEndpoint(row.peer),
    row.program ?? '',
  ])
  const widths = columnWidths(cells)
  const lines = cells.map((cell, index) => {
    const [state, local, peer, program] = cell.map((text, column) => text.padEnd(widths[column]!))
    const row = run.sockets[index]!
    return `${state}  ${hasForeignAddress(row) ? paint('yellow', local!) : local}  ${peer}  ${program}  ${paint('dim', remark(run, row))}`.trimEnd()
  })
  if (run.client !== undefined && !listensOn(run.sockets, run.dialled.port)) {
    lines.push(paint('dim', `(nothing listens on port ${run.dialled.port})`))
  }
  return lines
}

function columnWidths(cells: readonly (readonly string[])[]): number[] {
  return (cells[0] ?? []).map((_, column) => Math.max(...cells.map((cell) => cell[column]!.length)))
}

/** What a socket is for, and whose address it has when that is not X's own. */
function remark(run: LabRun, row: SocketRow): string {
  const role = roleOf(row, run.client)
  if (role === 'listens') return ''
  const isOwn = run.client !== undefined && sameEndpoint(row.local, run.client)
  if (isOwn && X_ADDRESSES.has(row.local.address)) return "Y's own"
  const side = role === 'towards-client' ? 'towards Y' : 'towards Z'
  if (!hasForeignAddress(row)) return side
  const isY = [ADDRESSES, BRIDGE_ADDRESSES].some((addresses) => row.local.address === addresses[run.family].y)
  return `${side}, ${isY ? 'as if it were Y' : 'as if it were Z'}`
}

/** Without what is the same for all: `relay -l -t`, `run tproxy local`. */
function shortCommand(command: string): string {
  const [program, verb, ...words] = command.split(' ')
  if (program !== 'limpid') return basename(verb!)
  if (verb === 'relay') return `relay ${words.filter((word) => word.startsWith('-')).join(' ')}`
  if (words.includes('-c')) return `run ${words.join(' ')}`
  const values = ['--intercept', '--protocol', '--path', '--source'].map(
    (flag) => words[words.indexOf(flag) + 1 || words.length],
  )
  return ['run', ...values.filter((value) => value !== undefined)].join(' ')
}

/** Scenario × family with its verdict, and the total. */
export function renderSummary(report: LabReport, paint: Paint): string[] {
  const cells = report.runs.map((run) => [
    `${run.scenario}  IPv${run.family}`,
    shortCommand(run.command),
    run.observed?.verdict ?? 'nothing observed',
  ])
  const widths = columnWidths(cells)
  const lines = report.runs.map((run, index) => {
    const text = cells[index]!.map((cell, column) => cell.padEnd(widths[column]!)).join('   ')
    return `  ${text}   ${run.passed ? paint('green', '✓ as predicted') : paint('red', '✗ not as predicted')}`
  })
  const good = report.runs.filter((run) => run.passed).length
  const total = `${good} of ${report.runs.length} as predicted`
  const whole = report.passed ? carriedText(report.runs.flatMap(({ bytes }) => bytes ?? [])) : ''
  return [
    paint('bold', 'Who knows whom'),
    ...lines,
    '',
    `${paint(report.passed ? 'green' : 'red', total)}${whole}; ${(report.durationMs / 1000).toFixed(1)} s in all`,
  ]
}

function carriedText(bytes: readonly number[]): string {
  if (bytes.length === 0) return ''
  const [least, most] = [Math.min(...bytes), Math.max(...bytes)]
  return `; each flow carried ${least === most ? least : `${least} to ${most}`} bytes to Z and back unchanged`
}

import type { Colour } from '../colour.ts'
import type { Finding, Status } from './finding.ts'

/** What `limpid doctor --json` prints. Its keys stay. */
export interface DoctorReport {
  readonly format: 1
  readonly checks: readonly Finding[]
  /** What became of real packets. */
  readonly packets: readonly Finding[]
  /** How many are `wrong`, of checks and packets. */
  readonly wrong: number
}

const ORDER: Record<Status, number> = { ok: 0, note: 1, unknown: 2, wrong: 3 }
const STATUS_WIDTH = 'unknown'.length
const ID_WIDTH = 'route-to-clients'.length

export function reportOf(checks: readonly Finding[], packets: readonly Finding[]): DoctorReport {
  const wrong = [...checks, ...packets].filter(({ status }) => status === 'wrong').length
  return { format: 1, checks, packets, wrong }
}

/** For people, one line a finding, problems last: where they are seen. */
export function renderReport({ checks, packets, wrong }: DoctorReport, paint: Colour): string {
  const findings = [...checks, ...packets].toSorted((a, b) => ORDER[a.status] - ORDER[b.status])
  const lines = findings.map((finding) => renderFinding(finding, paint))
  const sum =
    wrong === 0
      ? paint.green('nothing is wrong')
      : paint.red(`${wrong} ${wrong === 1 ? 'thing is' : 'things are'} wrong`)
  const unsure = findings.filter(({ status }) => status === 'unknown').length
  return `${[...lines, '', unsure === 0 ? sum : `${sum}; ${unsure} could not be checked`].join('\n')}\n`
}

function renderFinding({ id, status, what, cure }: Finding, paint: Colour): string {
  const colour: Record<Status, (text: string) => string> = {
    ok: paint.green,
    note: paint.dim,
    unknown: paint.yellow,
    wrong: paint.red,
  }
  const head = `${colour[status](status.padEnd(STATUS_WIDTH))}  ${id.padEnd(ID_WIDTH)}  ${what}`
  return (cure === undefined ? head : `${head}; ${paint.bold('cure:')} ${cure}`).replaceAll(/\s*\n\s*/g, ' ')
}

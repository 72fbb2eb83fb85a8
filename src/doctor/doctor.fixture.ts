import assert from 'node:assert/strict'
import type { Colour } from '../colour.ts'
import type { Host } from '../lab/host.ts'
import { LIMPID_PROGRAM } from '../lab/limpid-process.ts'
import { outputOf } from '../lab/output.fixture.ts'
import { type DoctorReport, renderReport } from './render.ts'

/** `limpid doctor --json` on a host of the lab. */
export interface DoctorRun {
  /** What people are told of the same report. */
  readonly lines: readonly string[]
  readonly code: number
  readonly report: DoctorReport
}

const TIMEOUT_MS = 60_000
const same = (text: string): string => text
const COLOURLESS: Colour = { bold: same, dim: same, green: same, red: same, yellow: same }

export async function doctorOn(
  host: Host,
  flags: readonly string[],
  wrapper: readonly string[] = [],
): Promise<DoctorRun> {
  const { code, stdout } = await runDoctorProcess(host, [...flags, '--json'], wrapper)
  const report = JSON.parse(stdout) as DoctorReport
  return { lines: renderReport(report, COLOURLESS).split('\n'), code, report }
}

/** Without --json doctor must find the same, and print it as lines; what it counts, and picks anew, may differ. */
export async function assertSameForPeople(host: Host, flags: readonly string[], expected: DoctorRun): Promise<void> {
  const { code, stdout } = await runDoctorProcess(host, flags, [])
  const withoutNumbers = (lines: readonly string[]): string[] => lines.map((line) => line.replaceAll(/\d+/g, 'N'))
  assert.deepEqual(withoutNumbers(stdout.split('\n')), withoutNumbers(expected.lines))
  assert.equal(code, expected.code)
}

export function wrongLines(lines: readonly string[]): string[] {
  return lines.filter((line) => line.startsWith('wrong'))
}

async function runDoctorProcess(host: Host, flags: readonly string[], wrapper: readonly string[]) {
  const [program, ...rest] = [...wrapper, process.execPath, LIMPID_PROGRAM, 'doctor', ...flags]
  const child = host.spawn(program!, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = outputOf(child, TIMEOUT_MS)
  const code = await output.closed
  if (code !== 0 && code !== 3) throw new Error(`limpid doctor ended with ${code}: ${output.stderr}`)
  return { code, stdout: output.stdout }
}

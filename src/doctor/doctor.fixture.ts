import type { Host } from '../lab/host.ts'
import { LIMPID_PROGRAM } from '../lab/limpid-process.ts'
import { outputOf } from '../lab/output.fixture.ts'
import type { DoctorReport } from './render.ts'

/** `limpid doctor` on a host of the lab, once for people and once for programs. */
export interface DoctorRun {
  readonly lines: readonly string[]
  readonly code: number
  readonly report: DoctorReport
}

const TIMEOUT_MS = 30_000

export async function doctorOn(
  host: Host,
  flags: readonly string[],
  wrapper: readonly string[] = [],
): Promise<DoctorRun> {
  const text = await runDoctorProcess(host, flags, wrapper)
  const json = await runDoctorProcess(host, [...flags, '--json'], wrapper)
  if (json.code !== text.code)
    throw new Error(`exit code ${text.code}, and ${json.code} with --json:\n${text.stdout}\n${json.stdout}`)
  return { lines: text.stdout.split('\n'), code: text.code, report: JSON.parse(json.stdout) as DoctorReport }
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

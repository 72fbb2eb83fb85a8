import type { Config } from '../config/types.ts'
import { runChecks } from './checks.ts'
import { type DoctorOptions, examine } from './examined.ts'
import type { Finding } from './finding.ts'
import { probePackets } from './packets.ts'
import { type DoctorReport, reportOf } from './render.ts'

export interface DoctorRun extends DoctorOptions {
  /** Also push packets of our own through the installed rules. */
  readonly packets: boolean
}

/**
 * Looks for what keeps flows of this config from working on this host. Changes nothing for longer than a few seconds, and
 * nothing of anybody else's.
 * @throws LimpidError when not even the interfaces can be read.
 */
export async function runDoctor(config: Config, options: DoctorRun): Promise<DoctorReport> {
  const examined = await examine(config, options)
  const checks = await runChecks(examined)
  const packets: readonly Finding[] = options.packets ? await probePackets(examined, checks) : []
  return reportOf(checks, packets)
}

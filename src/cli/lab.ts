import type { Command } from 'commander'
import { flagValue } from '../config/flags.ts'
import { FAMILY } from '../config/values.ts'
import type { Invocation } from './invocation.ts'

interface LabFlags {
  scenario?: string[]
  family?: string
  json?: true
  keep?: true
  quiet?: true
}

export function configure(command: Command, invocation: Invocation): void {
  command
    .option(
      '--scenario <name...>',
      'S1 to S4 (these when left out), redirect, dnat, mark, local, bridge, port-forward, udp, udp-mark, udp-spoof, dns, or all',
    )
    .option('--family <family>', '4, 6 or both (both)')
    .option('--json', 'the report as JSON')
    .option('--keep', 'stay up afterwards, and print how to enter each host')
    .option('-q, --quiet', 'no progress')
    .action(async (flags: LabFlags) => {
      const families = flagValue('--family', FAMILY, flags.family)
      const { runLab } = await import('../lab/lab.ts')
      invocation.exitCode = await runLab({ ...flags, families, scenarios: flags.scenario })
    })
}

import type { Command } from 'commander'
import type { Invocation } from './invocation.ts'

interface LabFlags {
  scenario?: string[]
  json?: true
  keep?: true
}

export function configure(command: Command, invocation: Invocation): void {
  command
    .option('--scenario <name...>', 'only these: S1, S2, S3, S4')
    .option('--json', 'the report as JSON')
    .option('--keep', 'stay up afterwards, and print how to enter each host')
    .action(async (flags: LabFlags) => {
      const { runLab } = await import('../lab/lab.ts')
      invocation.exitCode = await runLab({
        scenarios: flags.scenario,
        json: flags.json === true,
        keep: flags.keep === true,
        colour: process.stdout.isTTY === true,
      })
    })
}

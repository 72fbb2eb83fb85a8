import type { Command } from 'commander'
import { configNotes } from '../config/notes.ts'
import { backendToShow } from '../ruleset/backend.ts'
import { planRuleset } from '../ruleset/plan.ts'
import { printPlan } from '../ruleset/print.ts'
import { hostFacts } from '../sys/host.ts'
import { addConfigFlags, configOf, type QuickFlags } from './config-flags.ts'
import { printJson } from './print.ts'

export function configure(command: Command): void {
  addConfigFlags(command)
    .option('--json', 'the plan as JSON')
    .action(async (flags: QuickFlags & { json?: true }, self: Command) => {
      const config = await configOf(flags, self)
      const planned = planRuleset(config, hostFacts(), { backend: await backendToShow(config.rules) })
      const plan = { ...planned, notes: [...planned.notes, ...configNotes(config)] }
      if (flags.json) printJson(plan)
      else process.stdout.write(printPlan(plan))
    })
}

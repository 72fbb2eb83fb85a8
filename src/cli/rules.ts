import type { Command } from 'commander'
import { DEFAULT_RULES } from '../config/defaults.ts'
import { findConfig } from '../config/find.ts'
import type { RulesConfig } from '../config/types.ts'
import { chooseBackend } from '../ruleset/backend.ts'
import { installRuleset } from '../ruleset/install.ts'
import { type Plan, planRuleset } from '../ruleset/plan.ts'
import { formatRules, showRules } from '../ruleset/show.ts'
import { removeRuleset } from '../ruleset/sweep.ts'
import { formatDifferences, verifyRuleset } from '../ruleset/verify.ts'
import { requireCapabilities } from '../sys/capability.ts'
import { hostFacts } from '../sys/host.ts'
import { configFile, loadConfig } from './config-file.ts'
import { addConfigFlags, configOf, type QuickFlags } from './config-flags.ts'
import type { Invocation } from './invocation.ts'
import { note, printJson, printLine } from './print.ts'

const EXIT_DIFFERENT = 3

interface NameFlags {
  config?: string
  json?: true
}

export function configure(command: Command, invocation: Invocation): void {
  addNameFlags(command.command('show').description("print what of Limpid's is in the kernel now")).action(
    async (flags: NameFlags) => {
      requireCapabilities(['CAP_NET_ADMIN'], 'read the rules')
      const shown = await showRules(await rulesOf(flags))
      if (flags.json) printJson(shown)
      else process.stdout.write(formatRules(shown))
    },
  )
  addNameFlags(command.command('remove').description('remove them all, also what a killed run left behind')).action(
    async (flags: NameFlags) => {
      const removed = await removeRuleset(await rulesOf(flags), { onWarning: note })
      if (flags.json) printJson({ removed })
      else printLine(removed.length === 0 ? 'no rules of Limpid are installed' : `removed ${removed.join(', ')}`)
    },
  )
  addConfigFlags(
    command.command('install').description('install the rules to stay, for a listener that runs by itself'),
  )
    .option('--json', 'the outcome as JSON')
    .action(async (flags: QuickFlags & { json?: true }, self: Command) => {
      const installed = await installRuleset(await planOf(flags, self), { owner: 'persistent' })
      for (const notice of installed.notices) note(notice)
      if (flags.json) printJson({ summary: installed.summary, already: installed.already })
      else printLine(installed.summary)
    })
  addConfigFlags(
    command
      .command('diff')
      .description('show what in the kernel differs from the plan; exit code 3 when anything does'),
  )
    .option('--json', 'the differences as JSON')
    .action(async (flags: QuickFlags & { json?: true }, self: Command) => {
      requireCapabilities(['CAP_NET_ADMIN'], 'read the rules')
      // an interface that has vanished is no reason not to look at the rules
      const plan = await planOf(flags, self, 'note')
      for (const line of plan.notes) note(line)
      const differences = await verifyRuleset(plan)
      if (flags.json) printJson(differences)
      else printLine(differences.length === 0 ? 'the rules are as planned' : formatDifferences(differences))
      if (differences.length > 0) invocation.exitCode = EXIT_DIFFERENT
    })
}

function addNameFlags(command: Command): Command {
  return command
    .option('-c, --config <file>', 'limpid.yaml, for the names of the nft table and the route table')
    .option('--json', 'as JSON')
}

/**
 * The names to look under: those of the file that `run` would take, else the defaults. A file that cannot be read does
 * not stand in the way of removing rules: their journal has the names too.
 */
async function rulesOf(flags: NameFlags): Promise<RulesConfig> {
  if (findConfig(flags.config, process.env) === undefined) return DEFAULT_RULES
  try {
    return (await loadConfig(configFile(flags.config, ''))).rules
  } catch (error) {
    note(`limpid: warning: ${error}; going on with the default names`)
    return DEFAULT_RULES
  }
}

async function planOf(
  flags: QuickFlags,
  command: Command,
  missingInterface: 'refuse' | 'note' = 'refuse',
): Promise<Plan> {
  const config = await configOf(flags, command)
  return planRuleset(config, hostFacts(), { missingInterface, backend: await chooseBackend(config.rules) })
}

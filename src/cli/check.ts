import type { Command } from 'commander'
import { isProgramFile, readConfig } from '../config/find.ts'
import { configNotes } from '../config/notes.ts'
import { parseConfig } from '../config/parse.ts'
import { fileSchema } from '../config/schema.ts'
import type { Config } from '../config/types.ts'
import { counted } from '../net/counted.ts'
import { LoadedPolicy } from '../policy/loaded-policy.ts'
import { configFile, loadConfig } from './config-file.ts'
import type { Invocation } from './invocation.ts'
import { note, printJson, printLine } from './print.ts'
import { notingProblems } from './problems.ts'
import { withSharedPolicy } from './shared-policy.ts'

interface CheckFlags {
  config?: string
  json?: true
  schema?: true
  quiet?: true
}

export function configure(command: Command, invocation: Invocation): void {
  command
    .argument('[file]', 'the configuration to check')
    .option('-c, --config <file>', 'the same')
    .option('--json', 'print the configuration with all defaults filled in')
    .option('--schema', 'print the JSON Schema of limpid.yaml instead')
    .option('-q, --quiet', 'print nothing when the file is good')
    .action(async (named: string | undefined, flags: CheckFlags) => {
      if (flags.schema) return printJson(fileSchema())
      const path = configFile(named ?? flags.config, 'limpid check FILE')
      await notingProblems(invocation, async () => {
        const file = isProgramFile(path) ? await loadConfig(path) : parseConfig(readConfig(path), path)
        const config = file.policyFrom?.kind === 'directory' ? withSharedPolicy(file) : file
        await checkLists(config)
        if (!flags.quiet) for (const line of configNotes(config)) note(`note: ${line}`)
        if (flags.json) printJson(config)
        else if (!flags.quiet) printLine(`${path}: good, ${counts(config)}`)
      })
    })
}

/** As a start would read them. @throws ListError */
async function checkLists({ policy }: Config): Promise<void> {
  const loaded = await LoadedPolicy.open(policy, note)
  await loaded.close()
}

function counts({ listeners, forwards, bypass, policy }: Config): string {
  const parts = [
    ...(listeners.length > 0 ? [counted(listeners.length, 'listener')] : []),
    ...(forwards.length > 0 ? [counted(forwards.length, 'forward')] : []),
    ...(policy.rules.length > 0 ? [counted(policy.rules.length, 'policy rule')] : []),
    ...(bypass.length > 0 ? [counted(bypass.length, 'bypassed prefix', 'bypassed prefixes')] : []),
  ]
  return parts.join(', ')
}

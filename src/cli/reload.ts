import type { Command } from 'commander'
import { askControl } from '../daemon/ask-control.ts'
import { type Reloaded, reloadedLine } from '../daemon/reloads.ts'
import { printJson, printLine } from './print.ts'

const ANSWER_MS = 120_000 // large lists are read before the policy changes

export function configure(command: Command): void {
  command
    .option('--json', 'what has changed, as JSON')
    .addHelpText(
      'after',
      `
Has the \`limpid run\` of this network namespace read its file again, and decide by the policy that is written there
now; SIGHUP does the same. Flows go on. A file that is wrong changes nothing: exit code 78, with its place.`,
    )
    .action(async (flags: { json?: true }) => {
      const reloaded = (await askControl('POST', '/reload', undefined, ANSWER_MS)) as Reloaded
      if (flags.json === true) printJson(reloaded)
      else printLine(reloadedLine(reloaded))
    })
}

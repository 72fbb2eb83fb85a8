import type { Command } from 'commander'
import { flagValue } from '../config/flags.ts'
import { DURATION } from '../config/values.ts'
import { LimpidError } from '../errors.ts'
import { addConfigFlags, openConfig, type QuickFlags } from './config-flags.ts'
import type { Invocation } from './invocation.ts'
import { withShadow } from './shadow-file.ts'

interface RunFlags extends QuickFlags {
  drain: string
  json?: true
  quiet?: true
  keepGuard?: true
  shadow?: string
}

/** The last lines of --help. */
export const SIGNALS = `
Signals: TERM and INT (and HUP, when its terminal is closed) drain, then remove
the rules; a second one ends the flows at once; QUIT does without a drain; HUP without a
terminal reads the policy again, as limpid reload does; USR2 prints the
counters.`

export function configure(command: Command, invocation: Invocation): void {
  addConfigFlags(command)
    .option('--drain <duration>', 'how long flows may go on after SIGTERM; 0: not at all', '10s')
    .option('--keep-guard', 'what closed listeners should take stays dropped after a clean stop too, for a restart')
    .option(
      '--shadow <file>',
      'a second policy: it is asked about every flow, acts never, and where it differs is told',
    )
    .option('--json', 'flow lines as JSON, one object per line')
    .option('-q, --quiet', 'no flow lines')
    .addHelpText('after', SIGNALS)
    .action(async (flags: RunFlags, command: Command) => {
      const drainMs = flagValue('--drain', DURATION, flags.drain)
      const { config, reread } = await withShadow(await openConfig(flags, command), flags.shadow)
      if (flags.keepGuard === true && !config.listeners.some(({ onDown }) => onDown === 'closed')) {
        throw new LimpidError(
          'LIMPID_USAGE',
          '--keep-guard has no meaning: no listener is closed when Limpid is down',
          {
            cure: 'add --on-down closed, or onDown: closed to a listener',
          },
        )
      }
      const { serve } = await import('./serve.ts')
      const output = { json: flags.json === true, quiet: flags.quiet === true }
      await serve(
        config,
        { ...output, drainMs, keepGuard: flags.keepGuard === true, once: false, control: true, reread },
        invocation,
      )
    })
}

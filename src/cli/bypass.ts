import type { Command } from 'commander'
import { formatDuration } from '../config/duration.ts'
import { flagValue } from '../config/flags.ts'
import { DURATION, PREFIX } from '../config/values.ts'
import { askControl } from '../daemon/ask-control.ts'
import type { BypassRequest, BypassTold, ToldBypass } from '../daemon/control-handlers.ts'
import { counted } from '../net/counted.ts'
import { formatPrefix } from '../net/prefix.ts'
import { formatBytes } from './flow-line.ts'
import { printJson, printLine } from './print.ts'

interface Flags {
  json?: true
}

export function configure(command: Command): void {
  command.addHelpText('after', '\nTells the `limpid run` of this network namespace by its control socket.')
  command
    .command('show')
    .description('print the destinations that the kernel forwards by itself, and what it has forwarded')
    .option('--json', 'as JSON')
    .action(async (flags: Flags) => {
      const told = (await askControl('GET', '/bypass')) as readonly ToldBypass[]
      if (flags.json === true) printJson(told)
      else if (told.length === 0) printLine('nothing is bypassed')
      else for (const one of told) printLine(bypassLine(one))
    })
  command
    .command('add <prefix...>')
    .description('new connections to these destinations are not taken any more')
    .option('--for <duration>', 'for so long; until removed when left out')
    .option('--json', 'the outcome as JSON')
    .action(async (texts: string[], flags: Flags & { for?: string }) => {
      await change('/bypass', { prefixes: prefixesOf(texts), forMs: flagValue('--for', DURATION, flags.for) }, flags)
    })
  command
    .command('remove <prefix...>')
    .description('new connections to them are taken again')
    .option('--json', 'the outcome as JSON')
    .action(async (texts: string[], flags: Flags) => {
      await change('/unbypass', { prefixes: prefixesOf(texts) }, flags)
    })
}

/** Checked here, so that nothing is done of a list with a wrong word in it. */
function prefixesOf(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.split(',')).map((text) => formatPrefix(flagValue('PREFIX', PREFIX, text.trim())))
}

async function change(path: string, request: BypassRequest, { json }: Flags): Promise<void> {
  const told = (await askControl('POST', path, request)) as BypassTold
  if (json === true) printJson(told)
  else for (const { prefix, outcome } of told) printLine(`bypass ${prefix}: ${outcome}`)
}

function bypassLine({ prefix, configured, expiresInMs, within, connections, packets, bytes }: ToldBypass): string {
  const until =
    expiresInMs === undefined ? (configured ? 'configured' : 'until removed') : `for ${formatDuration(expiresInMs)}`
  if (within !== undefined) return `${prefix}  ${until}, counted with ${within}`
  const moved = packets === undefined ? '' : `, ${counted(packets, 'packet')}, ${formatBytes(bytes ?? 0)}`
  return `${prefix}  ${until}, ${counted(connections, 'connection')}${moved}`
}

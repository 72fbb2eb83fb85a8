import type { Command } from 'commander'
import { LimpidError } from '../errors.ts'
import { parseEndpoint } from '../net/address.ts'
import { addConfigFlags, configOf, type QuickFlags } from './config-flags.ts'
import type { Invocation } from './invocation.ts'
import { printJson } from './print.ts'

const EXIT_WRONG = 3

interface DoctorFlags extends QuickFlags {
  json?: true
  packets: boolean
  server?: string
}

/** Flags of doctor alone, and whether a value follows. */
const OWN_FLAGS: Readonly<Record<string, boolean>> = { '--json': false, '--no-packets': false, '--server': true }

export function configure(command: Command, invocation: Invocation): void {
  addConfigFlags(command)
    .option('--json', 'the report as JSON')
    .option(
      '--no-packets',
      'look only: send no packets. Without it, probes go through the installed rules, and reach the server that is configured as `to`',
    )
    .option('--server <addr:port>', 'a real server to dial as well, with our own address and with a client’s')
    .action(async (flags: DoctorFlags, self: Command) => {
      const server = flags.server === undefined ? undefined : parseEndpoint(flags.server)
      if (flags.server !== undefined && (server === undefined || server.port === 0)) {
        throw new LimpidError('LIMPID_USAGE', `--server: ${flags.server} is no address with a port`, {
          cure: 'write it as 192.0.2.1:80 or [2001:db8::1]:80',
        })
      }
      const config = await configOf(flags, self)
      const { runDoctor } = await import('../doctor/doctor.ts')
      const { renderReport } = await import('../doctor/render.ts')
      const report = await runDoctor(config, {
        server,
        packets: flags.packets,
        configArguments: configArguments(process.argv.slice(2)),
      })
      if (flags.json) printJson(report)
      else process.stdout.write(renderReport(report, invocation.colour))
      if (report.wrong > 0) invocation.exitCode = EXIT_WRONG
    })
}

/** The words of the command line that `limpid run` would take as well. */
function configArguments(argv: readonly string[]): string {
  const words: string[] = []
  let skip = false
  for (const word of argv.filter((_, at) => at !== argv.indexOf('doctor'))) {
    const [flag, value] = word.split('=', 2)
    if (skip) skip = false
    else if (OWN_FLAGS[flag!] === undefined) words.push(word)
    else skip = OWN_FLAGS[flag!]! && value === undefined
  }
  return words.map(shellWord).join(' ')
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./[\]-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

import { type Command, Option } from 'commander'
import { flagValue } from '../config/flags.ts'
import type { Protocol } from '../config/types.ts'
import { DURATION } from '../config/values.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, parseAddress, parseEndpoint } from '../net/address.ts'
import { backendToShow } from '../ruleset/backend.ts'
import { requireCapabilities } from '../sys/capability.ts'
import type { CaptureOptions } from '../trace/capture.ts'
import { addConfigFlags, configOf, type QuickFlags } from './config-flags.ts'
import type { Invocation } from './invocation.ts'
import { note, printJson } from './print.ts'

const EXIT_NOT_SERVED = 3

interface TraceFlags extends Omit<QuickFlags, 'protocol'> {
  protocol: Protocol
  interface?: string
  uid?: string
  fwmark?: string
  live?: true
  timeout: string
  json?: true
}

export function configure(command: Command, invocation: Invocation): void {
  addConfigFlags(command, { protocol: false })
    .argument('<client>', 'the address that dials; one of this host for what is made here')
    .argument('<destination>', 'what it dials: an address, or an address and port')
    .addOption(new Option('--protocol <protocol>', 'tcp or udp').choices(['tcp', 'udp']).default('tcp'))
    .option('--interface <iface>', 'where its packets come in (by the route to the client)')
    .option('--uid <number>', 'whose process sends it, for the path local')
    .option('--fwmark <mark>', 'the mark that it has already (0)')
    .option('--live', 'wait for such a packet, and show what the kernel does with it; sends none')
    .option('--timeout <duration>', 'how long --live waits', '30s')
    .option('--json', 'the report as JSON')
    .addHelpText(
      'after',
      `
Exit code 0: a listener would serve the flow, or the kernel pass it on as configured; 3: neither, or with --live
no packet came or the kernel did something else. --live needs CAP_NET_ADMIN.`,
    )
    .action(async (client: string, destination: string, flags: TraceFlags, self: Command) => {
      const question = {
        client: addressOf('CLIENT', client),
        destination: destinationOf(destination),
        protocol: flags.protocol,
        interface: flags.interface,
        uid: flags.uid === undefined ? undefined : numberOf('--uid', flags.uid),
        fwmark: flags.fwmark === undefined ? 0 : numberOf('--fwmark', flags.fwmark),
      }
      const timeoutMs = flagValue('--timeout', DURATION, flags.timeout)
      // a listener of the quick form is one for such flows
      const protocol = flags.intercept === undefined ? undefined : flags.protocol
      const config = await configOf({ ...flags, protocol }, self)
      if (flags.live) requireCapabilities(['CAP_NET_ADMIN'], 'trace packets')
      const { traceFlow } = await import('../trace/trace.ts')
      const { renderReport } = await import('../trace/report.ts')
      const waited = { timeoutMs, what: `${client} to ${destination}`, seconds: flags.timeout }
      using waiting = new Waiting()
      const report = await traceFlow(config, question, {
        backend: await backendToShow(config.rules),
        live: flags.live ? waiting.options(waited) : undefined,
      })
      if (flags.json) printJson(report)
      else process.stdout.write(renderReport(report, invocation.colour))
      if (!report.asConfigured) invocation.exitCode = EXIT_NOT_SERVED
    })
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** While it lives, signals end the wait for packets instead of the process, so that what was put into the kernel is removed. */
class Waiting {
  readonly #stop = new AbortController()
  readonly #listener = (): void => this.#stop.abort()

  options({ timeoutMs, what, seconds }: { timeoutMs: number; what: string; seconds: string }): CaptureOptions {
    for (const name of SIGNALS) process.on(name, this.#listener)
    const onReady = () => note(`waiting for a new flow from ${what} (${seconds}; Ctrl-C ends it)`)
    return { timeoutMs, signal: this.#stop.signal, onReady }
  }

  [Symbol.dispose](): void {
    for (const name of SIGNALS) process.off(name, this.#listener)
  }
}

function addressOf(where: string, text: string): string {
  const address = parseAddress(text)
  if (address !== undefined) return address
  throw new LimpidError('LIMPID_USAGE', `${where}: ${text} is no address`, {
    cure: 'write it as 192.0.2.1 or 2001:db8::1',
  })
}

function destinationOf(text: string): Endpoint {
  const address = parseAddress(text.replace(/^\[(.*)\]$/, '$1'))
  const endpoint = address === undefined ? parseEndpoint(text) : { address, port: 0 }
  if (endpoint !== undefined && (address !== undefined || endpoint.port !== 0)) return endpoint
  throw new LimpidError('LIMPID_USAGE', `DESTINATION: ${text} is neither an address nor an address with a port`, {
    cure: 'write it as 192.0.2.1:80 or [2001:db8::1]:80',
  })
}

function numberOf(where: string, text: string): number {
  const value = /^(?:0x[0-9a-f]{1,8}|\d{1,10})$/i.test(text) ? Number(text) : Number.NaN
  if (value <= 0xffff_ffff) return value
  throw new LimpidError('LIMPID_USAGE', `${where}: expected a number of 32 bits, found "${text}"`)
}

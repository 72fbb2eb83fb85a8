import { lookup } from 'node:dns/promises'
import type { Command } from 'commander'
import { flagValue } from '../config/flags.ts'
import { relayConfig } from '../config/relay.ts'
import { DURATION, HOST } from '../config/values.ts'
import { LimpidError } from '../errors.ts'
import { parseAddress } from '../net/address.ts'
import { hostFamilies } from './host-families.ts'
import type { Invocation } from './invocation.ts'
import { SIGNALS } from './run.ts'

interface RelayFlags {
  4?: true
  6?: true
  f?: true
  udp?: true
  l?: true
  t?: true
  T?: true
  L?: string
  interceptPorts?: string
  rules: boolean
  drain: string
  json?: true
  quiet?: true
}

export function configure(command: Command, invocation: Invocation): void {
  command
    .argument('<localport>', 'where the listener waits')
    .argument('<host>', 'the server to dial: an address or a name')
    .argument('[remoteport]', 'its port (LOCALPORT; with --intercept-ports the original one)')
    .option('-4', 'IPv4 only')
    .option('-6', 'IPv6 only')
    .option('-f', 'TCP Fast Open on both sides')
    .option('-l', 'keep serving (without it: one connection or session, then exit 0)')
    .option('--udp', 'datagrams: a session for each client, until it is idle for two minutes (DNS: ten seconds)')
    .option('-t', 'take connections that are under way to others (TPROXY), on REMOTEPORT')
    .option('-T', "dial with the client's address and port")
    .option('-L <addr>', 'listen on this address only')
    .option('--intercept-ports <list>', 'with -t: take these ports, such as 80,443 or all (REMOTEPORT)')
    .option('--no-rules', 'leave the kernel rules to somebody else')
    .option('--drain <duration>', 'how long flows may go on after SIGTERM; 0: not at all', '10s')
    .option('--json', 'flow lines as JSON, one object per line')
    .option('-q, --quiet', 'no flow lines')
    .addHelpText('after', SIGNALS)
    .action(async (localPort: string, host: string, remotePort: string | undefined, flags: RelayFlags) => {
      if (flags.interceptPorts !== undefined && flags.t !== true) {
        throw new LimpidError('LIMPID_USAGE', '--intercept-ports needs -t', { cure: 'add -t, or leave it out' })
      }
      if (flags.f === true && flags.udp === true) {
        throw new LimpidError('LIMPID_USAGE', '-f has no meaning with --udp', { cure: 'leave one of them out' })
      }
      const drainMs = flagValue('--drain', DURATION, flags.drain)
      const config = relayConfig(
        {
          ipv4: flags[4],
          ipv6: flags[6],
          fastOpen: flags.f,
          udp: flags.udp,
          keepServing: flags.l,
          interceptClients: flags.t,
          clientSource: flags.T,
          listenAddress: flags.L,
          interceptPorts: flags.interceptPorts,
          rules: flags.rules,
          localPort,
          host: await hostInFamily(host, flags),
          remotePort,
        },
        hostFamilies(),
      )
      const { serve } = await import('./serve.ts')
      const output = { json: flags.json === true, quiet: flags.quiet === true }
      await serve(config, { ...output, drainMs, keepGuard: false, once: flags.l !== true, control: false }, invocation)
    })
}

/** With -4 or -6 alone a name stands for its address of that family. */
async function hostInFamily(written: string, flags: RelayFlags): Promise<string> {
  const host = flagValue('HOST', HOST, written)
  if (flags[4] === flags[6] || parseAddress(host) !== undefined) return host
  const family = flags[4] ? 4 : 6
  try {
    return (await lookup(host, { family })).address
  } catch (cause) {
    throw new LimpidError('LIMPID_HOST_NAME', `cannot resolve ${host} to an IPv${family} address`, {
      cure: `write an address, or check the name with: getent ahostsv${family} ${host}`,
      cause,
    })
  }
}

import { type Family, familyOf, parseAddress } from '../net/address.ts'
import type { PortRange } from '../net/ports.ts'
import { buildListener, deepFreeze, type ListenerInput } from './build.ts'
import { DEFAULT_LIMITS, DEFAULT_RULES, DEFAULT_WORKERS } from './defaults.ts'
import { flagValue, throwAsUsage } from './flags.ts'
import { NO_POLICY } from './policy.ts'
import type { Config } from './types.ts'
import { HOST, PORT, PORTS, type ValueKind } from './values.ts'

/** tcprdr's switches: `[-4|-6] [-f] [-l] [-t] [-T] [-L ADDR] LOCALPORT HOST [REMOTEPORT]`, as they were written. */
export interface RelayOptions {
  /** -4, -6; both or neither: both. */
  readonly ipv4?: boolean | undefined
  readonly ipv6?: boolean | undefined
  /** -f */
  readonly fastOpen?: boolean | undefined
  /** -l: keep serving; without it one connection is served. */
  readonly keepServing?: boolean | undefined
  /** -t: take connections that are under way to others. */
  readonly interceptClients?: boolean | undefined
  /** --udp: datagrams instead of connections. */
  readonly udp?: boolean | undefined
  /** -T: dial with the client's address and port. */
  readonly clientSource?: boolean | undefined
  /** -L */
  readonly listenAddress?: string | undefined
  /** Original destination ports that -t takes: REMOTEPORT when left out. */
  readonly interceptPorts?: string | undefined
  /** false: `--no-rules`. */
  readonly rules: boolean
  readonly localPort: string
  readonly host: string
  /** LOCALPORT when left out; with `interceptPorts` the original port. */
  readonly remotePort?: string | undefined
}

const ADDRESS: ValueKind<string> = { expected: 'an IPv4 or IPv6 address', parse: parseAddress }

const FLAG_OF: Readonly<Record<string, string>> = {
  listen: '-L',
  family: '-4/-6',
  source: '-T',
  to: 'HOST',
  ports: '--intercept-ports',
}

/**
 * The config of `limpid relay`: one listener with a fixed target. Without -t and -T it needs no privilege and no rules.
 * `hostFamilies`: what this host has. Frozen.
 * @throws LimpidError LIMPID_USAGE, with the switch or argument that is wrong.
 */
export function relayConfig(options: RelayOptions, hostFamilies: readonly Family[] = [4, 6]): Config {
  const { interceptClients = false, clientSource = false } = options
  const localPort = flagValue('LOCALPORT', PORT, options.localPort)
  const host = flagValue('HOST', HOST, options.host)
  const keepsPort = interceptClients && options.interceptPorts !== undefined // several ports do not mean one
  const port = flagValue('REMOTEPORT', PORT, options.remotePort) ?? (keepsPort ? 0 : localPort)
  const address = flagValue('-L', ADDRESS, options.listenAddress)
  const listener = buildListener(
    {
      name: 'relay',
      intercept: interceptClients ? 'tproxy' : 'none',
      protocols: [options.udp === true ? 'udp' : 'tcp'],
      listen: [{ ...(address === undefined ? {} : { address }), ports: { from: localPort, to: localPort } }],
      family: relayFamilies(options, host, address),
      ...(interceptClients ? interception(options, port) : {}),
      source: clientSource ? 'client-port' : 'proxy',
      to: { host, port },
      fastOpen: options.fastOpen,
    },
    { index: 0, hostFamilies, rulesInstalled: options.rules, report: throwAsUsage(FLAG_OF) },
  )
  return deepFreeze({
    listeners: [listener],
    forwards: [],
    bypass: [],
    workers: DEFAULT_WORKERS,
    policy: NO_POLICY,
    ioUring: true,
    limits: options.keepServing === true ? DEFAULT_LIMITS : { ...DEFAULT_LIMITS, flows: 1, sessions: 1 },
    rules: { ...DEFAULT_RULES, install: options.rules && (interceptClients || clientSource) },
  })
}

/** With a fixed target, what is addressed to this host can be taken as well: the proxy never dials itself. */
function interception(options: RelayOptions, port: number): Partial<ListenerInput> {
  const ranges: (readonly PortRange[])[] | undefined = options.interceptPorts
    ?.split(',')
    .map((text) => flagValue('--intercept-ports', PORTS, text.trim()))
  return { ports: ranges ?? [[{ from: port, to: port }]], addressedHere: true }
}

/** A literal HOST says which family -t intercepts; a plain forwarder serves both. */
function relayFamilies(
  options: RelayOptions,
  host: string,
  address: string | undefined,
): readonly Family[] | undefined {
  const { ipv4 = false, ipv6 = false } = options
  if (ipv4 !== ipv6) return ipv4 ? [4] : [6]
  const literal = parseAddress(host)
  if (address !== undefined || literal === undefined || options.interceptClients !== true) return undefined
  return [familyOf(literal)]
}

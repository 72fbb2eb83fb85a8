import type { Config, ListenerConfig, Protocol } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { closeFd, localEndpoint } from '../sys/socket.ts'
import { bindTcp } from './listener.ts'
import { bindUdpListener } from './open-udp.ts'

/** The sockets of one endpoint of a listener: bound, while nobody listens yet. */
export interface BoundSockets {
  /** What they are bound to; a port 0 is filled in. */
  readonly at: Endpoint
  readonly tcp: number | undefined
  readonly udp: number | undefined
}

export interface BindOptions {
  /** SO_REUSEPORT: each of several processes has such sockets, and the kernel shares out what comes. */
  readonly reusePort?: boolean
  /** Instead of the config's own endpoints, in their order. */
  readonly at?: readonly Endpoint[]
  /** Sockets of this protocol alone. */
  readonly only?: Protocol
}

/**
 * Binds every endpoint of every listener, in the order of the config, or none. The caller owns the sockets.
 * @throws LimpidError LIMPID_LISTEN or LIMPID_CAPABILITY.
 */
export function bindSockets(config: Config, { reusePort = false, at, only }: BindOptions = {}): BoundSockets[] {
  const options = { mark: markOf(config), reusePort, backlog: config.limits.backlog }
  const wanted = config.listeners.flatMap((listener) => listener.listen.map((endpoint) => ({ listener, endpoint })))
  const bound: BoundSockets[] = []
  try {
    wanted.forEach(({ listener, endpoint }, index) => {
      bound.push(bindEndpoint(listener, at?.[index] ?? endpoint, options, only))
    })
    return bound
  } catch (error) {
    closeSockets(bound)
    throw error
  }
}

function bindEndpoint(
  listener: ListenerConfig,
  endpoint: Endpoint,
  options: { readonly mark: number; readonly reusePort: boolean; readonly backlog: number },
  only: Protocol | undefined,
): BoundSockets {
  const has = (protocol: Protocol): boolean =>
    listener.protocols.includes(protocol) && (only === undefined || only === protocol)
  const tcp = has('tcp') ? bindTcp(endpoint, listener, options) : undefined
  // where the kernel chose a port, it is one for both
  const at = tcp === undefined ? endpoint : localEndpoint(tcp)
  if (!has('udp')) return { at, tcp, udp: undefined }
  try {
    const udp = bindUdpListener(at, listener, options)
    return { at: localEndpoint(udp), tcp, udp }
  } catch (error) {
    if (tcp !== undefined) closeFd(tcp)
    throw error
  }
}

export function closeSockets(sockets: readonly BoundSockets[]): void {
  for (const { tcp, udp } of sockets) {
    if (tcp !== undefined) closeFd(tcp)
    if (udp !== undefined) closeFd(udp)
  }
}

/** fwmark of our own packets, by which the rules leave them alone. 0: a plain forwarder needs none, and so no capability. */
export function markOf({ listeners, rules }: Config): number {
  return listeners.some(({ intercept, source }) => intercept !== 'none' || source !== 'proxy') ? rules.bypassMark : 0
}

/** fwmark of what we send to clients ourselves; 0 when no rules are used. `mark`: that of our other sockets. */
export function replyMarkOf(mark: number, { rules }: Config): number {
  return mark === 0 ? 0 : rules.interceptMark
}

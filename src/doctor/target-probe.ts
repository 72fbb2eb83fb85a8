import type { Config, ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint, parseAddress } from '../net/address.ts'
import type { PortRange } from '../net/ports.ts'
import { dialTcp } from '../proxy/dial-tcp.ts'
import { type CheckId, type Finding, note, ok, unknown, wrong } from './finding.ts'

const WAIT_MS = 1_500 // a far server may need half a second

interface Target {
  readonly id: CheckId
  /** `forward web`, `listener web`. */
  readonly name: string
  readonly server: Endpoint
  /** Whether silence is a fault: a listener may dial with an address that its server answers, unlike ours. */
  readonly mustAnswer: boolean
}

/** Dials the servers that the config passes traffic on to, as this host: one connection each, closed as soon as it is there. */
export async function probeTargets(config: Config): Promise<Finding[]> {
  return await Promise.all(targetsOf(config).map((target) => probeTarget(target, config.rules.bypassMark)))
}

/** TCP servers by address. A port that stands for a range is none that somebody must listen at. */
export function targetsOf({ forwards, listeners }: Pick<Config, 'forwards' | 'listeners'>): Target[] {
  const passed = forwards
    .filter(({ protocols }) => protocols.includes('tcp'))
    .flatMap(({ name, to, match }) => serverOf(to.address, to.port, match.ports, 'forward', name, true))
  const dialled = listeners.flatMap((listener: ListenerConfig) => {
    const { to, match, name, protocols } = listener
    const address = to && parseAddress(to.host)
    return address === undefined || !protocols.includes('tcp')
      ? []
      : serverOf(address, to!.port, match.ports, 'server', name, false)
  })
  return [...passed, ...dialled]
}

function serverOf(
  address: string,
  port: number,
  ports: readonly PortRange[],
  id: 'forward' | 'server',
  name: string,
  mustAnswer: boolean,
): Target[] {
  const single = ports.find(({ from, to }) => from === to)?.from
  const known = port === 0 ? single : port
  const label = `${id === 'forward' ? 'forward' : 'listener'} ${name}`
  return known === undefined ? [] : [{ id, name: label, server: { address, port: known }, mustAnswer }]
}

async function probeTarget({ id, name, server, mustAnswer }: Target, mark: number): Promise<Finding> {
  const shown = formatEndpoint(server)
  try {
    const socket = await dialTcp(server, { mark, timeoutMs: WAIT_MS })
    socket.close()
    return ok(id, `${shown} answers (${name})`)
  } catch (error) {
    if (!(error instanceof LimpidError)) throw error
    if (!error.code.startsWith('LIMPID_DIAL_')) return unknown(id, `${shown} (${name}): ${error.message}`, error.cure)
    const what = `${name} leads to ${shown}, and ${reasonOf(error)}`
    const cure = `ss -Htln 'sport = :${server.port}' on ${server.address} (does anything listen there?)`
    if (error.code === 'LIMPID_DIAL_REFUSED') return wrong(id, what, cure)
    const routed = `ip route get ${server.address}; ping ${server.address}`
    return mustAnswer ? wrong(id, what, routed) : note(id, what, routed)
  }
}

function reasonOf({ code, message }: LimpidError): string {
  if (code === 'LIMPID_DIAL_REFUSED') return 'it refuses connections'
  if (code === 'LIMPID_DIAL_TIMEOUT') return `it does not answer this host in ${WAIT_MS} ms`
  return `it cannot be dialled: ${message.slice(message.lastIndexOf(': ') + 2)}`
}

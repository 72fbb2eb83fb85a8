import type { Path, Protocol } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, familyOf, isNeverForeign } from '../net/address.ts'
import type { HostFacts } from '../sys/host.ts'
import type { AskRoute, Route } from './routes.ts'

/** What is asked about: the beginning of a flow, as far as the operator said. */
export interface FlowQuestion {
  /** An IP literal. */
  readonly client: string
  /** Port 0: any. */
  readonly destination: Endpoint
  readonly protocol: Protocol
  /** The receiving interface: a bridge, a port of one, or any other. Found by the route to the client when left out. */
  readonly interface: string | undefined
  /** Of the sending process, for the path `local`. */
  readonly uid: number | undefined
  /** The mark that the packet has when it comes to the rules. */
  readonly fwmark: number
}

/** The same with the way that it takes on this host. */
export interface Flow extends FlowQuestion {
  readonly family: Family
  readonly path: Path
  /** Forwarded: where it comes in; bridged: the bridge; local: by which it would leave. Undefined: no route tells. */
  readonly interface: string | undefined
  /** The port of the bridge, where the operator named it. */
  readonly bridgePort: string | undefined
  /** Of what kind the destination's address is to the kernel: unicast, local, broadcast, multicast, anycast. */
  readonly destinationType: string
  /** The way that it would take without us. */
  readonly onward: Route
}

/**
 * Finds its path: local from an address of this host; bridged when it comes in on a bridge by which its destination is reached,
 * or which has no address; else forwarded.
 * @throws LimpidError LIMPID_USAGE for addresses of two families; LIMPID_INTERFACE for an interface that is not there.
 */
export async function resolveFlow(question: FlowQuestion, facts: HostFacts, ask: AskRoute): Promise<Flow> {
  const { client, destination } = question
  const family = familyOf(destination.address)
  if (familyOf(client) !== family) {
    throw new LimpidError('LIMPID_USAGE', `${client} cannot dial ${destination.address}: they are of two families`)
  }
  checkInterface(question.interface, facts)
  const there = await ask({ to: destination.address })
  const destinationType = there.type
  const rest = { ...question, family, destinationType, bridgePort: undefined }
  const own = facts.interfaces.some(({ addresses }) => addresses.includes(client))
  if (own || isNeverForeign(client)) {
    const dev = there.kind === 'by' ? there.dev : undefined
    return { ...rest, path: 'local', interface: question.interface ?? dev, onward: there }
  }
  const back = question.interface === undefined ? await ask({ to: client }) : undefined
  const entry = question.interface ?? (back?.kind === 'by' ? back.dev : undefined)
  const bridge = facts.bridges.find(({ name, ports }) => name === entry || ports.includes(entry ?? ''))
  if (bridge !== undefined) {
    const addresses = facts.interfaces.find(({ name }) => name === bridge.name)?.addresses ?? []
    const routed = addresses.some((address) => familyOf(address) === family && !address.startsWith('fe80:'))
    const across = there.kind === 'by' && there.dev === bridge.name
    if (across || (!routed && there.kind !== 'local')) {
      const bridgePort = entry === bridge.name ? undefined : entry
      return { ...rest, path: 'bridged', interface: bridge.name, bridgePort, onward: there }
    }
  }
  const received = bridge?.name ?? entry
  const onward = received === undefined ? there : await ask({ to: destination.address, from: client, iif: received })
  return { ...rest, path: 'forwarded', interface: received, onward }
}

function checkInterface(name: string | undefined, { interfaces }: HostFacts): void {
  const known = interfaces.map((one) => one.name)
  if (name === undefined || known.includes(name)) return
  throw new LimpidError('LIMPID_INTERFACE', `there is no interface ${name} on this host`, {
    cure: `it has ${known.join(', ')}`,
  })
}

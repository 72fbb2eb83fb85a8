import type { Config, Protocol } from '../config/types.ts'
import type { Endpoint, Family } from '../net/address.ts'
import type { Serve } from './exchange.ts'
import { ADDRESSES, type Addresses, BRIDGE_ADDRESSES } from './topology.ts'

export type ScenarioName =
  | 'S1'
  | 'S2'
  | 'S3'
  | 'S4'
  | 'redirect'
  | 'dnat'
  | 'mark'
  | 'local'
  | 'bridge'
  | 'port-forward'
  | 'udp'
  | 'udp-mark'
  | 'udp-spoof'
  | 'dns'

/** One thing to show, on one of the two topologies: a flow that passes X, or a datagram that X sends. */
export type Scenario = FlowScenario | SpoofScenario

interface Shown {
  readonly name: ScenarioName
  readonly title: string
  /** `routed`: X is the router between Y and Z; `bridged`: a bridge. */
  readonly topology: 'routed' | 'bridged'
}

/** One way of standing between Y and Z: how X runs, who dials whom, and what is to be seen on X meanwhile. */
export interface FlowScenario extends Shown {
  readonly kind: 'flow'
  readonly protocol: Protocol
  /** What Z is, and what its client does. */
  readonly serve: Serve
  /** Where Z serves. */
  readonly serverPort: number
  /** Y's place: on a host of its own, or a process of X. */
  readonly client: 'y' | 'x'
  /** Whom the client dials: X, or Z, whose packets X takes on the way. */
  readonly dials: 'proxy' | 'server'
  readonly dialledPort: number
  /** What an operator types on X, as arguments of `limpid`; a configuration file is called CONFIG_FILE there. */
  readonly command: (family: Family) => readonly string[]
  /** The configuration file. */
  readonly file?: (family: Family) => string
  /** The configuration that the command stands for; for predictions. */
  readonly config: (family: Family) => Config
  /** X's end of the client's connection, when that is not what the client dialled: its destination was rewritten. */
  readonly rewrittenTo?: (family: Family) => Endpoint
  /** X listens on the port that the client dials; else its packets are intercepted, or it listens there alone. */
  readonly listensOnDialledPort: boolean
  /** Whether the flow has sockets on X; else the kernel passes its packets on. */
  readonly hasSockets: boolean
}

/** One datagram from X with an address that is none of X's, to an address that Z has for the time. */
export interface SpoofScenario extends Shown {
  readonly kind: 'spoof'
  readonly from: (family: Family) => Endpoint
  readonly to: (family: Family) => Endpoint
}

/** What the operator calls the configuration file of a scenario that has one. */
export const CONFIG_FILE = 'limpid.yaml'

export function addressesOf({ topology }: Scenario): Addresses {
  return topology === 'bridged' ? BRIDGE_ADDRESSES : ADDRESSES
}

/** The client's own address. */
export function clientAddress(scenario: FlowScenario, family: Family): string {
  const { y, xz } = addressesOf(scenario)[family]
  return scenario.client === 'x' ? xz : y
}

export function serverEndpoint(scenario: FlowScenario, family: Family): Endpoint {
  return { address: addressesOf(scenario)[family].z, port: scenario.serverPort }
}

/** Whom the client dials: the server, where X takes its packets on the way; else X. */
export function dialledEndpoint(scenario: FlowScenario, family: Family): Endpoint {
  const { xy, z } = addressesOf(scenario)[family]
  return { address: scenario.dials === 'server' ? z : xy, port: scenario.dialledPort }
}

/** X's end of the client's flow. */
export function acceptedEndpoint(scenario: FlowScenario, family: Family): Endpoint {
  return scenario.rewrittenTo?.(family) ?? dialledEndpoint(scenario, family)
}

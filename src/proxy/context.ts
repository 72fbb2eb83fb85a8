import type { Limits } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { Policy } from '../policy/policy.ts'
import type { Shadow } from '../policy/shadow.ts'
import type { RelayResources } from '../relay/resources.ts'
import type { OwnAddresses } from '../sys/own-addresses.ts'
import type { StreamApp } from './app.ts'
import type { Budget } from './budget.ts'
import type { ByteRates } from './byte-rates.ts'
import type { ClientErrors } from './client-errors.ts'
import type { ClientLinks } from './client-links.ts'
import type { DialCounters } from './dial.ts'
import type { DialBatch } from './dial-batch.ts'
import type { Flow } from './flow.ts'
import type { FlowHooks } from './flow-hooks.ts'
import type { HostCheck } from './host-check.ts'
import type { Moved } from './open-record.ts'
import type { PeekBatch } from './peek-batch.ts'
import type { Pools } from './pools.ts'
import type { HeaderWait } from './proxy-header.ts'
import type { RateLimits } from './rate-limits.ts'
import type { CloseReason, FlowRecord } from './record.ts'
import type { SourcePorts } from './source-ports.ts'

/** What the flows of one proxy share. */
export interface ProxyContext {
  readonly resources: RelayResources
  readonly budget: Budget
  readonly limits: Limits
  readonly own: OwnAddresses
  readonly counters: DialCounters
  readonly ports: SourcePorts
  /** Starts those of flows together. */
  readonly dials: DialBatch
  /** Looks at the first bytes of flows together. */
  readonly peeks: PeekBatch
  /** fwmark of our own sockets; 0 when no rules are used. */
  readonly mark: number
  /** Where we listen, so that a flow to one of these is known for a loop. */
  readonly listening: Endpoint[]
  readonly flows: Set<Flow>
  /** Connections whose header is waited for. */
  readonly awaited: Set<HeaderWait>
  readonly flowsByClient: Map<string, number>
  /** The name by which a client knows a server; undefined when DNS has told none. */
  nameOf(clientAddress: string, serverAddress: string): string | undefined
  /** What decides flows at this moment; undefined: all are forwarded. */
  policy(): Policy | undefined
  /** The user's functions; with them there is a policy, too. */
  readonly hooks: FlowHooks | undefined
  /** Compares hosts with addresses, where the policy wants that. */
  readonly hostCheck: HostCheck
  /** What is asked beside it. */
  shadow(): Shadow | undefined
  /** To which its rules, or a hook, give flows; undefined: there is none of that name. */
  appNamed(name: string): StreamApp | undefined
  /** The servers that its rules share flows among. */
  readonly pools: Pools
  /** Tells clients by ICMP. */
  readonly clientErrors: ClientErrors
  /** By which links clients come, for the rules that ask. */
  readonly links: ClientLinks
  /** What its rules have let through lately. */
  readonly rates: RateLimits
  /** What its flows share of their limits of bytes. */
  readonly byteRates: ByteRates
  /** All names by which a client knows a server, for the policy. */
  namesOf(clientAddress: string, serverAddress: string): readonly string[]
  /** A decision was to bypass: the kernel may forward to this destination by itself. */
  onBypass(destination: string, forMs: number): void
  /** Does anybody hear of flows? If not, the kernel is not asked for what is only told. */
  tellsFlows(): boolean
  /** Called exactly once for each flow, when it has ended. `record` is asked for where somebody hears of it. */
  onFlowEnd(reason: CloseReason, moved: Moved | undefined, record: () => FlowRecord): void
}

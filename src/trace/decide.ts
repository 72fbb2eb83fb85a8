import type { ForwardConfig, ListenerConfig, Path } from '../config/types.ts'
import { familyOf, isNeverForeign } from '../net/address.ts'
import { prefixContains } from '../net/prefix.ts'
import { type Interception, isUntouched } from '../ruleset/interception.ts'
import { type Conditions, type Judgement, judge } from './conditions.ts'
import type { Flow } from './flow.ts'

/** What the rules do with a flow. */
export type Decision =
  /** Brought to a listener. */
  | { readonly kind: 'taken'; readonly interception: Interception; readonly assumed: readonly string[] }
  /** Passed on to another host by the kernel (DNAT). */
  | { readonly kind: 'passed-on'; readonly forward: ForwardConfig; readonly assumed: readonly string[] }
  /** Addressed to the listener itself: one that waits for that, or one that refuses it. */
  | { readonly kind: 'dialled' | 'refused'; readonly listener: ListenerConfig }
  | { readonly kind: 'untaken'; readonly why: string; readonly nearest: readonly Miss[] }

/** A listener or forward that does not take the flow, with the conditions that it does not fulfil. */
export interface Miss {
  readonly name: string
  readonly failed: readonly string[]
}

/** What is asked of the plan and the config. */
export interface Wanted {
  readonly listeners: readonly ListenerConfig[]
  readonly interceptions: readonly Interception[]
  readonly forwards: readonly ForwardConfig[]
  readonly markMask: number
  readonly bypassMark: number
}

/** IPv4 and IPv6 prefixes that the rules let by whatever the config says; beside what isNeverForeign() knows. */
const LINK_LOCAL = [
  { family: 4, address: '169.254.0.0', length: 16 },
  { family: 6, address: 'fe80::', length: 10 },
] as const

const NOT_UNICAST = new Set(['broadcast', 'anycast', 'multicast'])

/**
 * Walks the rules in the order in which a packet meets them: those that leave it as it is (tproxy, mark; priority mangle) before
 * those that rewrite it (forwards, then redirect and dnat; priority dstnat). Within each, listeners that also take what is addressed
 * to this host come first, then the others in the order of the config. Pure.
 */
export function decide(wanted: Wanted, flow: Flow): Decision {
  const ours = (flow.fwmark & wanted.markMask) >>> 0
  const isBypass = ours === wanted.bypassMark
  const walk = new Walk(wanted, flow)
  if (flow.path === 'bridged' && !walk.isBroughtUp())
    return walk.untaken('no rule brings it up: it stays on the bridge')
  const before = isBypass || (flow.path === 'local' && ours !== 0) ? undefined : walk.listeners(isUntouched)
  if (before !== undefined) return before
  const passed = ours === 0 && flow.path !== 'local' ? walk.forward() : undefined
  if (passed !== undefined) return passed
  const after = ours === 0 ? walk.listeners((interception) => !isUntouched(interception)) : undefined
  if (after !== undefined) return after
  if (ours !== 0) return walk.untaken('its fwmark has bits of ours: the rules let it by')
  return walk.directly() ?? walk.untaken(walk.never() ?? 'none takes it')
}

class Walk {
  readonly #wanted: Wanted
  readonly #flow: Flow

  constructor(wanted: Wanted, flow: Flow) {
    this.#wanted = wanted
    this.#flow = flow
  }

  /** What is said of an address that no listener can take from; undefined for all others. */
  never(): string | undefined {
    const { destination, destinationType } = this.#flow
    const { address } = destination
    const linkLocal = LINK_LOCAL.some((prefix) => prefixContains(prefix, address))
    if (linkLocal || isNeverForeign(address)) return `${address} is never intercepted`
    return NOT_UNICAST.has(destinationType)
      ? `${address} is a ${destinationType} address: never intercepted`
      : undefined
  }

  /** In the bridge's own hooks a frame's interface is the port. */
  isBroughtUp(): boolean {
    if (this.never() !== undefined) return false
    return this.#candidates('bridged').some((interception) => this.#judge(interception, 'port').failed.length === 0)
  }

  listeners(ofKind: (interception: Interception) => boolean): Decision | undefined {
    if (this.never() !== undefined) return undefined
    const { path } = this.#flow
    const candidates = (path === 'local' ? this.#candidates('local') : this.#candidates('forwarded', 'bridged')).filter(
      ofKind,
    )
    const here = candidates.filter(({ listener }) => listener.addressedHere && path !== 'local')
    const elsewhere = candidates.filter(({ listener }) => path === 'local' || !listener.addressedHere)
    for (const interception of this.#isHere() ? here : [...here, ...elsewhere]) {
      const { failed, assumed } = this.#judge(interception)
      if (failed.length > 0) continue
      const port = path === 'bridged' ? this.#portAssumed() : []
      return { kind: 'taken', interception, assumed: [...assumed, ...port] }
    }
    return undefined
  }

  forward(): Decision | undefined {
    for (const forward of this.#wanted.forwards) {
      const { failed, assumed } = this.#judgeForward(forward)
      if (failed.length === 0) return { kind: 'passed-on', forward, assumed }
    }
    return undefined
  }

  /** Whether its destination is the address of a listener's own socket. */
  directly(): Decision | undefined {
    const { destination, family, protocol } = this.#flow
    if (!this.#isHere() || protocol !== 'tcp') return undefined
    const listener = this.#wanted.listeners.find(({ listen }) =>
      listen.some(
        ({ address, port }) =>
          port === destination.port &&
          familyOf(address) === family &&
          (address === destination.address || address === '0.0.0.0' || address === '::'),
      ),
    )
    if (listener === undefined) return undefined
    return { kind: listener.intercept === 'none' ? 'dialled' : 'refused', listener }
  }

  untaken(why: string): Decision {
    return { kind: 'untaken', why, nearest: this.never() === undefined ? this.#misses() : [] }
  }

  /** Nearest first: with the fewest conditions that fail. */
  #misses(): Miss[] {
    const { listeners, forwards } = this.#wanted
    const misses = [
      ...listeners.filter(({ intercept }) => intercept !== 'none').map((listener) => this.#missOf(listener)),
      ...forwards.map((forward) => ({ name: `forward ${forward.name}`, failed: this.#judgeForward(forward).failed })),
    ]
    return misses.toSorted((a, b) => a.failed.length - b.failed.length)
  }

  #missOf(listener: ListenerConfig): Miss {
    const { path, family } = this.#flow
    const mine = this.#wanted.interceptions.filter((interception) => interception.listener === listener)
    const failed: string[] = []
    if (!listener.paths.includes(path)) failed.push(`the path is ${path}, not ${listener.paths.join(' or ')}`)
    if (!mine.some((interception) => interception.family === family)) failed.push(`IPv${family} is not served`)
    if (this.#isHere() && !(listener.addressedHere && path !== 'local')) {
      failed.push(
        path === 'local'
          ? 'the destination is this host itself'
          : 'the destination is this host itself (addressedHere is off)',
      )
    }
    const found = mine.find((interception) => interception.path === path && interception.family === family)
    const judged =
      found === undefined
        ? judge(this.#flow, conditionsOf(listener, this.#flow.interface))
        : this.#judge(found, path === 'bridged' ? 'port' : 'interface')
    return { name: `listener ${listener.name}`, failed: [...failed, ...judged.failed] }
  }

  #judgeForward(forward: ForwardConfig): Judgement {
    const { failed, assumed } = judge(this.#flow, {
      match: forward.match,
      exclude: forward.exclude,
      protocols: forward.protocols,
      interface: this.#flow.interface,
    })
    const more: string[] = []
    if (familyOf(forward.to.address) !== this.#flow.family) more.push(`IPv${this.#flow.family} is not served`)
    if (this.#flow.path === 'local') more.push('the path is local, not forwarded')
    if (forward.match.destinations.length === 0 && !this.#isHere()) more.push('the destination is not this host')
    return { failed: [...more, ...failed], assumed }
  }

  /** `port`: as the bridge's rules ask; else as those that follow, to which a frame that was brought up came in on the bridge. */
  #judge(interception: Interception, by: 'interface' | 'port' = 'interface'): Judgement {
    const { listener, path, bridges } = interception
    const { bridgePort } = this.#flow
    if (path !== 'bridged') return judge(this.#flow, conditionsOf(listener, this.#flow.interface))
    const mine = bridges.filter(({ name }) => name === this.#flow.interface)
    const names = by === 'port' ? mine.flatMap(({ ports }) => ports) : mine.map(({ name }) => name)
    const match = { ...listener.match, interfaces: names.length === 0 ? ['none of its bridges'] : names }
    const dev = by === 'interface' || names.length === 0 ? this.#flow.interface : bridgePort
    return judge(this.#flow, {
      ...conditionsOf({ ...listener, match }, dev),
      exclude: { ...listener.exclude, interfaces: [] },
    })
  }

  /** Which ports of the bridge lead to a listener, where nobody said by which the frame comes. */
  #portAssumed(): readonly string[] {
    if (this.#flow.bridgePort !== undefined) return []
    const brought = this.#candidates('bridged').find(
      (interception) => this.#judge(interception, 'port').failed.length === 0,
    )
    return brought === undefined ? [] : this.#judge(brought, 'port').assumed
  }

  #candidates(...paths: Path[]): Interception[] {
    return this.#wanted.interceptions.filter(({ family, path }) => family === this.#flow.family && paths.includes(path))
  }

  #isHere(): boolean {
    return this.#flow.destinationType === 'local'
  }
}

function conditionsOf({ match, exclude, protocols }: ListenerConfig, dev: string | undefined): Conditions {
  return { match, exclude, protocols, interface: dev }
}

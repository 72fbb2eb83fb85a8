import type { ForwardConfig, ListenerConfig, Path } from '../config/types.ts'
import { familyOf, isNeverForeign } from '../net/address.ts'
import { type Prefix, prefixContains } from '../net/prefix.ts'
import { type Interception, isUntouched } from '../ruleset/interception.ts'
import { type Conditions, type Judgement, judge } from './conditions.ts'
import type { Flow } from './flow.ts'

interface Provided {
  /** What must hold for it, as far as the question left that open. */
  readonly assumed: readonly string[]
  /** Who takes the flow where that does not hold, in order. */
  readonly otherwise: readonly Otherwise[]
}

export interface Otherwise {
  readonly name: string
  readonly assumed: readonly string[]
}

/** What the rules do with a flow. */
export type Decision =
  /** Brought to a listener. */
  | (Provided & { readonly kind: 'taken'; readonly interception: Interception })
  /** Passed on to another host by the kernel (DNAT). */
  | (Provided & { readonly kind: 'passed-on'; readonly forward: ForwardConfig })
  /** Addressed to the listener itself: one that waits for that, or one that refuses it. */
  | { readonly kind: 'dialled' | 'refused'; readonly listener: ListenerConfig }
  /** Forwarded by the kernel, whatever listener would take it. */
  | { readonly kind: 'bypassed'; readonly prefix: Prefix }
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
  readonly bypass: readonly Prefix[]
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
  const bypassed = ours === 0 ? walk.bypassed() : undefined
  if (bypassed !== undefined) {
    const forwards = flow.path === 'local' ? [] : walk.forwards()
    const [forward] = forwards
    return forward === undefined ? bypassed : { ...forward, otherwise: otherwise(forwards) }
  }
  if (flow.path === 'bridged' && !walk.isBroughtUp())
    return walk.untaken('no rule brings it up: it stays on the bridge')
  const takers = [
    ...(isBypass || (flow.path === 'local' && ours !== 0) ? [] : walk.listeners(isUntouched)),
    ...(ours === 0 && flow.path !== 'local' ? walk.forwards() : []),
    ...(ours === 0 ? walk.listeners((interception) => !isUntouched(interception)) : []),
  ]
  const [first] = takers
  if (first !== undefined) return { ...first, otherwise: otherwise(takers) }
  if (ours !== 0) return walk.untaken('its fwmark has bits of ours: the rules let it by')
  return walk.directly() ?? walk.untaken(walk.never() ?? 'none takes it')
}

type Taker = Extract<Decision, { readonly kind: 'taken' | 'passed-on' }>

/** Those behind the first one, as far as those before them need not take it. */
function otherwise(takers: readonly Taker[]): Otherwise[] {
  const certain = takers.findIndex(({ assumed }) => assumed.length === 0)
  return takers.slice(1, certain < 0 ? undefined : certain + 1).map((taker) => ({
    name: taker.kind === 'taken' ? `listener ${taker.interception.listener.name}` : `forward ${taker.forward.name}`,
    assumed: taker.assumed,
  }))
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

  /** Whether the rules ask for its destination before they ask listeners; those are not asked about what is addressed here. */
  bypassed(): Decision | undefined {
    const { destination, path } = this.#flow
    if (this.never() !== undefined || this.#isHere() || this.#candidates(path).length === 0) return undefined
    const prefix = this.#wanted.bypass.find((one) => prefixContains(one, destination.address))
    return prefix === undefined ? undefined : { kind: 'bypassed', prefix }
  }

  /** In the bridge's own hooks a frame's interface is the port. */
  isBroughtUp(): boolean {
    if (this.never() !== undefined) return false
    return this.#candidates('bridged').some((interception) => this.#judge(interception, 'port').failed.length === 0)
  }

  /** Those that take it, in the order in which they are asked. */
  listeners(ofKind: (interception: Interception) => boolean): Taker[] {
    if (this.never() !== undefined) return []
    const { path } = this.#flow
    const candidates = (path === 'local' ? this.#candidates('local') : this.#candidates('forwarded', 'bridged')).filter(
      ofKind,
    )
    const here = candidates.filter(({ listener }) => listener.addressedHere && path !== 'local')
    const elsewhere = candidates.filter(({ listener }) => path === 'local' || !listener.addressedHere)
    return (this.#isHere() ? here : [...here, ...elsewhere]).flatMap((interception) => {
      const { failed, assumed } = this.#judge(interception)
      if (failed.length > 0) return []
      const port = path === 'bridged' ? this.#portAssumed() : []
      return [{ kind: 'taken', interception, assumed: [...assumed, ...port], otherwise: [] } as const]
    })
  }

  forwards(): Taker[] {
    return this.#wanted.forwards.flatMap((forward) => {
      const { failed, assumed } = this.#judgeForward(forward)
      return failed.length > 0 ? [] : [{ kind: 'passed-on', forward, assumed, otherwise: [] } as const]
    })
  }

  /** Whether its destination is the address of a listener's own socket. */
  directly(): Decision | undefined {
    const { destination, family, protocol } = this.#flow
    if (!this.#isHere()) return undefined
    const listener = this.#wanted.listeners.find(
      ({ listen, protocols }) =>
        protocols.includes(protocol) &&
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

  /** Nearest first: with the fewest conditions that fail; those of another path are further away. */
  #misses(): Miss[] {
    const { listeners, forwards } = this.#wanted
    const far = this.#flow.path === 'local' ? 1 : 0
    const misses = [
      ...listeners
        .filter(({ intercept }) => intercept !== 'none')
        .map((listener) => ({ ...this.#missOf(listener), far: listener.paths.includes(this.#flow.path) ? 0 : 1 })),
      ...forwards.map((forward) => {
        return { name: `forward ${forward.name}`, failed: this.#judgeForward(forward).failed, far }
      }),
    ]
    const sorted = misses.toSorted((a, b) => a.failed.length + a.far - b.failed.length - b.far)
    return sorted.map(({ name, failed }) => ({ name, failed }))
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
    const names = by === 'port' ? mine.flatMap(({ from }) => from) : mine.map(({ name }) => name)
    const others = bridges.length === 0 ? ['a bridge with ports'] : bridges.map(({ name }) => name)
    const match = { ...listener.match, interfaces: names.length === 0 ? others : names }
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
    const flow = this.#flow
    return this.#wanted.interceptions.filter(
      ({ family, path, protocol }) => family === flow.family && protocol === flow.protocol && paths.includes(path),
    )
  }

  #isHere(): boolean {
    return this.#flow.destinationType === 'local'
  }
}

function conditionsOf({ match, exclude, protocols }: ListenerConfig, dev: string | undefined): Conditions {
  return { match, exclude, protocols, interface: dev }
}

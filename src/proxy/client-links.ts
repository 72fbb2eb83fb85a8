import { familyOf } from '../net/address.ts'
import type { FlowLink } from '../policy/facts.ts'
import { inboundInterface } from '../sys/inbound-interface.ts'
import { Neighbours } from '../sys/neighbours.ts'

/** How long an answer counts: a client that asks much is looked up once, and who takes over its address is not taken for it for long. */
const LIFE_MS = 1_000
const MOST_MACS = 4_096 // some 150 bytes each
const MOST_NAMES = 256

interface Known {
  readonly text: string | undefined
  readonly until: number
}

/** By which links clients come. The kernel is asked when a rule asks, and its answer is kept for a second. */
export class ClientLinks implements Disposable {
  readonly #now: () => number
  readonly #names = new Map<number, Known>()
  readonly #macs = new Map<string, Known>()
  #neighbours: Neighbours | undefined

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Of the TCP connection of a socket that was accepted; its descriptor is not needed any more when this returns. */
  ofSocket(fd: number, reached: string, client: string): FlowLink {
    return this.of(inboundInterface(fd, familyOf(reached)), client)
  }

  /** `interfaceIndex` 0: not known. */
  of(interfaceIndex: number, client: string): FlowLink {
    return new Link(this, interfaceIndex, client)
  }

  nameOf(index: number): string | undefined {
    if (index === 0) return undefined
    return this.#known(this.#names, MOST_NAMES, index, (neighbours) => neighbours.nameOf(index))
  }

  macOf(index: number, client: string): string | undefined {
    if (index === 0) return undefined
    return this.#known(this.#macs, MOST_MACS, `${index} ${client}`, (neighbours) => neighbours.macOf(index, client))
  }

  [Symbol.dispose](): void {
    this.#neighbours?.[Symbol.dispose]()
    this.#neighbours = undefined
    this.#names.clear()
    this.#macs.clear()
  }

  #known<K>(cache: Map<K, Known>, most: number, key: K, ask: (of: Neighbours) => string | undefined) {
    const now = this.#now()
    const known = cache.get(key)
    if (known !== undefined && now < known.until) return known.text
    this.#neighbours ??= new Neighbours()
    const text = ask(this.#neighbours)
    cache.delete(key) // so that the one that was asked longest ago stands first
    if (cache.size >= most) cache.delete(cache.keys().next().value!)
    cache.set(key, { text, until: now + LIFE_MS })
    return text
  }
}

class Link implements FlowLink {
  readonly #links: ClientLinks
  readonly #index: number
  readonly #client: string

  constructor(links: ClientLinks, index: number, client: string) {
    this.#links = links
    this.#index = index
    this.#client = client
  }

  get interface(): string | undefined {
    return this.#links.nameOf(this.#index)
  }

  get mac(): string | undefined {
    return this.#links.macOf(this.#index, this.#client)
  }
}

import type { Endpoint } from '../net/address.ts'
import type { FlowLink } from '../policy/facts.ts'
import type { Conntrack } from '../sys/conntrack.ts'
import { decodeSockaddrWords, SOCKADDR_WORDS } from '../sys/sockaddr.ts'
import type { ClientDatagram, HeldDatagram } from './app.ts'
import type { UdpContext } from './udp-context.ts'

/** What an app sees of a slot. One object serves all. */
export class ReceivedDatagram implements ClientDatagram {
  readonly #context: UdpContext
  readonly #conntrack: Conntrack | undefined
  readonly #holdSlot: (slot: number, onForgotten: () => void) => HeldDatagram | undefined
  slot = 0

  constructor(
    context: UdpContext,
    conntrack: Conntrack | undefined,
    holdSlot: (slot: number, onForgotten: () => void) => HeldDatagram | undefined,
  ) {
    this.#holdSlot = holdSlot
    this.#context = context
    this.#conntrack = conntrack
  }

  get bytes(): Uint8Array {
    return this.#context.arena.bytesOf(this.slot)
  }

  hold(onForgotten: () => void): HeldDatagram | undefined {
    return this.#holdSlot(this.slot, onForgotten)
  }

  get client(): Endpoint {
    return decodeSockaddrWords(this.#context.arena.senders, this.slot * SOCKADDR_WORDS)
  }

  get link(): FlowLink | undefined {
    const interfaceIndex = this.#context.arena.interfaces[this.slot]!
    return interfaceIndex === 0 ? undefined : this.#context.proxy.links.of(interfaceIndex, this.client.address)
  }

  get originalDst(): Endpoint {
    const reached = decodeSockaddrWords(this.#context.arena.destinations, this.slot * SOCKADDR_WORDS)
    return this.#conntrack?.original(this.client, reached)?.originalDst ?? reached
  }
}

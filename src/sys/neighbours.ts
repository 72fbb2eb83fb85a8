import { familyOf, putAddress } from '../net/address.ts'
import { littleEndian } from './byte-order.ts'
import { SyscallError } from './errno.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './netlink.ts'
import { attributeOf, encodeAttribute, encodeBody, readText } from './netlink-message.ts'
import { domainOf } from './sockaddr.ts'

// linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h
const RTM_GETLINK = 18
const RTM_GETNEIGH = 30
const LINK_BYTES = 16 // struct ifinfomsg
const NEIGHBOUR_BYTES = 12 // struct ndmsg
const INDEX_AT = 4 // in both
const IFLA_IFNAME = 3
const NDA_DST = 1
const NDA_LLADDR = 2
const MAC_BYTES = 6

/** The interfaces of this network namespace and the neighbours on them, asked one by one (rtnetlink(7)): some ten microseconds each. No privilege is needed. */
export class Neighbours implements Disposable {
  readonly #socket = NetlinkSocket.open(NETLINK_ROUTE)

  /** Undefined when there is no such interface any more. */
  nameOf(interfaceIndex: number): string | undefined {
    const found = this.#ask(RTM_GETLINK, header(LINK_BYTES, interfaceIndex), `ip link show index ${interfaceIndex}`)
    const name = found && attributeOf(found, LINK_BYTES, IFLA_IFNAME)
    return name && readText(name)
  }

  /**
   * `02:00:00:00:00:01`: what the kernel would address a frame to that neighbour with. Undefined when it knows none: nobody there, behind a
   * router, a link without such addresses, or Linux before 5.0, which cannot be asked for one alone.
   */
  macOf(interfaceIndex: number, address: string): string | undefined {
    const family = familyOf(address)
    const bytes = new Uint8Array(family === 4 ? 4 : 16)
    putAddress(address, bytes, 0)
    const fixed = header(NEIGHBOUR_BYTES, interfaceIndex)
    fixed[0] = domainOf(family)
    const body = encodeBody(fixed, [encodeAttribute(NDA_DST, bytes)])
    const found = this.#ask(RTM_GETNEIGH, body, `ip neigh get ${address} index ${interfaceIndex}`)
    const mac = found && attributeOf(found, NEIGHBOUR_BYTES, NDA_LLADDR)
    if (mac?.length !== MAC_BYTES || mac.every((byte) => byte === 0)) return undefined // lo has zeros
    return [...mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
  }

  /** What the kernel refuses to tell is not known. */
  #ask(type: number, body: Uint8Array, what: string): Uint8Array | undefined {
    try {
      return this.#socket.ask(type, body, what)?.body
    } catch (error) {
      if (error instanceof SyscallError) return undefined
      throw error
    }
  }
}

function header(bytes: number, interfaceIndex: number): Uint8Array {
  const fixed = new Uint8Array(bytes)
  new DataView(fixed.buffer).setInt32(INDEX_AT, interfaceIndex, littleEndian)
  return fixed
}

import { addressBytes, type Endpoint, familyOf } from '../net/address.ts'
import { SyscallError } from './errno.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink.ts'
import {
  attributeOf,
  encodeAttribute,
  encodeBody,
  encodeByte,
  encodeNested,
  type NetlinkMessage,
} from './netlink-message.ts'
import { AF_INET, AF_INET6, decodeAddress } from './sockaddr.ts'

// linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
const CT_GET = (1 << 8) | 1 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
const GENERIC_BYTES = 4 // struct nfgenmsg
const CTA_TUPLE_ORIG = 1
const CTA_TUPLE_REPLY = 2
const CTA_TUPLE_IP = 1
const CTA_TUPLE_PROTO = 2
const ADDRESSES = { 4: { source: 1, destination: 2 }, 6: { source: 3, destination: 4 } } as const // CTA_IP_V4_SRC …
const CTA_PROTO_NUM = 1
const CTA_PROTO_SRC_PORT = 2
const CTA_PROTO_DST_PORT = 3
const IPPROTO_UDP = 17

/** Where a flow came from and where it went, before anything was rewritten. */
export interface OriginalTuple {
  readonly client: Endpoint
  readonly originalDst: Endpoint
}

/** Asks conntrack about UDP flows that REDIRECT or DNAT brought here: for them there is no SO_ORIGINAL_DST. Needs CAP_NET_ADMIN. */
export class Conntrack implements Disposable {
  readonly #socket = NetlinkSocket.open(NETLINK_NETFILTER)

  /**
   * The flow whose datagrams come from `sender` to `reached`, an address of ours; undefined when conntrack knows none, or cannot tell
   * now (ENOBUFS …).
   * @throws SyscallError LIMPID_CAPABILITY without CAP_NET_ADMIN.
   */
  original(sender: Endpoint, reached: Endpoint): OriginalTuple | undefined {
    const family = familyOf(reached.address)
    const generic = Uint8Array.of(family === 4 ? AF_INET : AF_INET6, 0, 0, 0)
    // answers go from the listener to the client: that is how the kernel finds the entry, whatever was dialled
    const tuple = encodeTuple(CTA_TUPLE_REPLY, reached, sender)
    const answer = this.#ask(encodeBody(generic, [tuple]))
    const original = answer && attributeOf(answer.body, GENERIC_BYTES, CTA_TUPLE_ORIG)
    return original && decodeTuple(original)
  }

  #ask(body: Uint8Array): NetlinkMessage | undefined {
    try {
      return this.#socket.ask(CT_GET, body, 'conntrack, IPCTNL_MSG_CT_GET')
    } catch (error) {
      if (error instanceof SyscallError && error.code !== 'LIMPID_CAPABILITY') return undefined
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
  }
}

function encodeTuple(type: number, source: Endpoint, destination: Endpoint): Uint8Array {
  const words = ADDRESSES[familyOf(source.address)]
  return encodeNested(type, [
    encodeNested(CTA_TUPLE_IP, [
      encodeAttribute(words.source, addressBytes(source.address)),
      encodeAttribute(words.destination, addressBytes(destination.address)),
    ]),
    encodeNested(CTA_TUPLE_PROTO, [
      encodeByte(CTA_PROTO_NUM, IPPROTO_UDP),
      encodeAttribute(CTA_PROTO_SRC_PORT, Uint8Array.of(source.port >> 8, source.port & 0xff)),
      encodeAttribute(CTA_PROTO_DST_PORT, Uint8Array.of(destination.port >> 8, destination.port & 0xff)),
    ]),
  ])
}

function decodeTuple(tuple: Uint8Array): OriginalTuple | undefined {
  const ip = attributeOf(tuple, 0, CTA_TUPLE_IP)
  const protocol = attributeOf(tuple, 0, CTA_TUPLE_PROTO)
  if (ip === undefined || protocol === undefined) return undefined
  const address = (side: 'source' | 'destination'): Uint8Array | undefined =>
    attributeOf(ip, 0, ADDRESSES[4][side]) ?? attributeOf(ip, 0, ADDRESSES[6][side])
  const source = address('source')
  const destination = address('destination')
  const sourcePort = attributeOf(protocol, 0, CTA_PROTO_SRC_PORT)
  const destinationPort = attributeOf(protocol, 0, CTA_PROTO_DST_PORT)
  if (!source || !destination || sourcePort?.length !== 2 || destinationPort?.length !== 2) return undefined
  return {
    client: { address: decodeAddress(source), port: (sourcePort[0]! << 8) | sourcePort[1]! },
    originalDst: { address: decodeAddress(destination), port: (destinationPort[0]! << 8) | destinationPort[1]! },
  }
}

import { type Endpoint, type Family, putAddress } from '../net/address.ts'
import { AddressTexts } from './address-texts.ts'
import { littleEndian } from './byte-order.ts'

export const AF_INET = 2
export const AF_INET6 = 10

/** Room for any sockaddr that we ask for: struct sockaddr_in6 is 28 bytes (netinet/in.h). */
export const SOCKADDR_BYTES = 28
/** The same in 32-bit words, rounded up. */
export const SOCKADDR_WORDS = 8
const SOCKADDR_IN_BYTES = 16
const PORT_AT = 2
const IN_ADDR_AT = 4
const IN6_ADDR_AT = 8

/** The address family constant of an IP version. */
export function domainOf(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6
}

/** A sockaddr_in or sockaddr_in6; scope id 0, so a link-local address cannot be dialled by it. */
export function encodeSockaddr(endpoint: Endpoint): Uint8Array {
  return sharedSockaddr(endpoint).slice()
}

const sharedIn = new Uint8Array(SOCKADDR_IN_BYTES)
const sharedIn6 = new Uint8Array(SOCKADDR_BYTES)

/** As encodeSockaddr(), in memory that the next call uses again: for system calls, which have read it when they return. */
export function sharedSockaddr({ address, port }: Endpoint): Uint8Array {
  const isIpv4 = !address.includes(':')
  const sockaddr = isIpv4 ? sharedIn : sharedIn6
  sockaddr[littleEndian ? 0 : 1] = isIpv4 ? AF_INET : AF_INET6
  sockaddr[PORT_AT] = port >> 8
  sockaddr[PORT_AT + 1] = port & 0xff
  putAddress(address, sockaddr, isIpv4 ? IN_ADDR_AT : IN6_ADDR_AT)
  return sockaddr
}

/** Reads what accept4, getsockname or getpeername wrote. IPv4-mapped IPv6 comes back as IPv4. */
export function decodeSockaddr(sockaddr: Uint8Array): Endpoint {
  const port = (sockaddr[PORT_AT]! << 8) | sockaddr[PORT_AT + 1]!
  if (sockaddr[littleEndian ? 0 : 1] === AF_INET) return { address: texts4.of(sockaddr, IN_ADDR_AT), port }
  return { address: texts6.of(sockaddr, IN6_ADDR_AT), port }
}

const texts4 = new AddressTexts(4, dotted)
const texts6 = new AddressTexts(16, ipv6Text)

/** The text of 4 or 16 bytes in network order; IPv4-mapped IPv6 comes back as IPv4. */
export function decodeAddress(bytes: Uint8Array): string {
  return bytes.length === 4 ? dotted(bytes, 0) : ipv6Text(bytes, 0)
}

/** Reads the sockaddr of which `words` holds the words from `at` on. As decodeSockaddr(). */
export function decodeSockaddrWords(words: Uint32Array, at: number): Endpoint {
  return decodeSockaddr(new Uint8Array(words.buffer, words.byteOffset + at * 4, SOCKADDR_BYTES))
}

/** Whether the words of a sockaddr that begin with this one are an IPv6 address. */
export function isIpv6Word(first: number): boolean {
  return (littleEndian ? first & 0xffff : first >>> 16) === AF_INET6
}

/** Whether the sockaddr of which `words` holds the words from `at` on has the port and address of `other`. */
export function sameSockaddr(words: Uint32Array, at: number, other: Uint32Array): boolean {
  if (words[at] !== other[0]) return false
  if (!isIpv6Word(other[0]!)) return words[at + 1] === other[1]
  for (let i = 2; i < 6; i++) if (words[at + i] !== other[i]) return false
  return true
}

/** The words of a sockaddr, SOCKADDR_WORDS of them; what is behind a sockaddr_in is 0. */
export function sockaddrWords(endpoint: Endpoint): Uint32Array {
  const words = new Uint32Array(SOCKADDR_WORDS)
  new Uint8Array(words.buffer).set(sharedSockaddr(endpoint))
  return words
}

function dotted(bytes: Uint8Array, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups becomes `::`. */
function ipv6Text(bytes: Uint8Array, at: number): string {
  const groups: number[] = []
  for (let i = 0; i < 16; i += 2) groups.push((bytes[at + i]! << 8) | bytes[at + i + 1]!)
  if (groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0)) return dotted(bytes, at + 12)
  let bestStart = -1
  let bestLength = 1
  for (let start = 0; start < 8; start++) {
    let end = start
    while (end < 8 && groups[end] === 0) end++
    if (end - start > bestLength) {
      bestStart = start
      bestLength = end - start
    }
    if (end > start) start = end
  }
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(':')
  if (bestStart < 0) return text(groups)
  return `${text(groups.slice(0, bestStart))}::${text(groups.slice(bestStart + bestLength))}`
}

import { readFileSync } from 'node:fs'
import type { Protocol } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { parseAddress } from '../net/address.ts'

/** States by their number in /proc/net/tcp (include/net/tcp_states.h), those that are asked about. */
const STATES: Readonly<Record<string, string>> = {
  '01': 'ESTABLISHED',
  '02': 'SYN-SENT',
  '03': 'SYN-RECV',
  '0A': 'LISTEN',
}

/** One line of /proc/net/tcp or tcp6, or of their like for UDP. */
export interface KernelSocket {
  readonly state: string
  readonly local: Endpoint
  readonly remote: Endpoint
  /** How often its oldest packet was sent again. */
  readonly retransmits: number
  readonly inode: string
}

/** All TCP sockets of the calling thread's network namespace. */
export function readTcpSockets(): KernelSocket[] {
  return readSockets('tcp')
}

/** Those that take datagrams or connections of anybody. */
export function readOpenSockets(protocol: Protocol): KernelSocket[] {
  // one of UDP has no state but whether it is connected (udp4_format_sock, net/ipv4/udp.c)
  return readSockets(protocol).filter(({ state }) =>
    protocol === 'tcp' ? state === 'LISTEN' : state !== 'ESTABLISHED',
  )
}

export function readSockets(protocol: Protocol): KernelSocket[] {
  return [protocol, `${protocol}6`].flatMap((name) => {
    try {
      return parseSockets(readFileSync(`/proc/thread-self/net/${name}`, 'latin1'))
    } catch {
      return [] // no IPv6
    }
  })
}

export function parseSockets(text: string): KernelSocket[] {
  return text
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, local, remote, state, , , retransmits, , , inode] = line.trim().split(/\s+/)
      return {
        state: STATES[state!] ?? state!,
        local: parseHexEndpoint(local!),
        remote: parseHexEndpoint(remote!),
        retransmits: Number.parseInt(retransmits!, 16),
        inode: inode!,
      }
    })
}

/** `0100007F:C3A0`: the address as 32-bit words in the order of this host (little-endian wherever Node runs). */
function parseHexEndpoint(text: string): Endpoint {
  const [words, port] = text.split(':')
  const bytes = Buffer.from(words!, 'hex')
  for (let at = 0; at < bytes.length; at += 4) bytes.subarray(at, at + 4).reverse()
  const address = bytes.length === 4 ? bytes.join('.') : (bytes.toString('hex').match(/.{4}/g) ?? []).join(':')
  return { address: parseAddress(address) ?? address, port: Number.parseInt(port!, 16) }
}

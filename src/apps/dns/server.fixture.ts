import type { Socket } from 'node:net'
import * as dnsPacket from 'dns-packet'
import { encoded, opt } from '../../inspect/dns.fixture.ts'
import { DatagramPeer } from '../../lab/datagram.fixture.ts'
import type { Host } from '../../lab/host.ts'
import { serve } from '../../lab/traffic.fixture.ts'
import type { Endpoint } from '../../net/address.ts'
import { framed, MessageFrames } from './frames.ts'

const PLAIN_UDP_BYTES = 512
const SOA = { mname: 'ns.example', rname: 'root.example', serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 60 }

/** One query as the server saw it. */
export interface HeardQuery {
  readonly protocol: 'udp' | 'tcp'
  readonly from: Endpoint
  readonly id: number
  readonly name: string
  readonly type: string
  /** The client's EDNS; undefined: none. */
  readonly edns: { readonly udpBytes: number; readonly dnssecOk: boolean } | undefined
}

export interface ZoneAnswer {
  readonly answers?: dnsPacket.Answer[]
  readonly authorities?: dnsPacket.Answer[]
  readonly nxdomain?: boolean
}

/** What a name has; undefined: nothing is answered. */
export type Zone = (name: string, type: string) => ZoneAnswer | undefined

/** An authoritative server of a zone on a host of the lab, by UDP and TCP, with all that it hears. */
export class DnsServer implements AsyncDisposable {
  readonly heard: HeardQuery[] = []
  readonly #zone: Zone
  readonly #sockets: AsyncDisposable[] = []

  private constructor(zone: Zone) {
    this.#zone = zone
  }

  static async open(host: Host, address: string, zone: Zone, port = 53): Promise<DnsServer> {
    const server = new DnsServer(zone)
    const endpoint = { address, port }
    const udp = await DatagramPeer.open(host, endpoint)
    udp.socket.on('message', (bytes, { address: sender, port: from }) => {
      const answer = server.#answer(bytes, { address: sender, port: from }, 'udp')
      if (answer !== undefined) udp.socket.send(answer, from, sender)
    })
    server.#sockets.push(udp, await serve(host, endpoint, (socket) => server.#serve(socket)))
    return server
  }

  #serve(socket: Socket): void {
    const from = { address: socket.remoteAddress!, port: socket.remotePort! }
    const frames = new MessageFrames()
    socket.on('data', (chunk: Buffer) => {
      frames.push(chunk)
      for (let message = frames.next(); message !== undefined; message = frames.next()) {
        const answer = this.#answer(message, from, 'tcp')
        if (answer !== undefined) socket.write(framed(answer))
      }
    })
    socket.on('end', () => socket.end())
  }

  /** The queries heard since the last call. */
  take(): HeardQuery[] {
    return this.heard.splice(0)
  }

  #answer(message: Buffer, from: Endpoint, protocol: 'udp' | 'tcp'): Uint8Array | undefined {
    const { id = 0, flags = 0, questions: [question] = [], additionals = [] } = dnsPacket.decode(message)
    if (question === undefined) return undefined
    const sent = additionals.find((record) => record.type === 'OPT') as dnsPacket.OptAnswer | undefined
    const edns = sent && { udpBytes: sent.udpPayloadSize, dnssecOk: sent.flag_do }
    const { name, type } = question
    this.heard.push({ protocol, from, id, name, type, edns })
    const found = this.#zone(name.toLowerCase(), type)
    if (found === undefined) return undefined
    const { answers = [], authorities = [], nxdomain = false } = found
    const response = (kept: Pick<ZoneAnswer, 'answers' | 'authorities'>, more: number) =>
      encoded({
        type: 'response',
        id,
        flags: (flags & dnsPacket.RECURSION_DESIRED) | dnsPacket.AUTHORITATIVE_ANSWER | (nxdomain ? 3 : 0) | more,
        questions: [question],
        answers: kept.answers ?? [],
        authorities: kept.authorities ?? [],
        additionals: edns ? [opt(1232, edns.dnssecOk)] : [],
      })
    const whole = response({ answers, authorities }, 0)
    const limit = protocol === 'tcp' ? 65_535 : (edns?.udpBytes ?? PLAIN_UDP_BYTES)
    return whole.length <= limit ? whole : response({}, dnsPacket.TRUNCATED_RESPONSE)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) await socket[Symbol.asyncDispose]()
  }
}

/** `big.example` TXT has 3.5 kB, nobody.example does not exist, alias.example leads to web.example, all else has the addresses. */
export function zoneOf(a: string, aaaa: string, ttl = 300): Zone {
  return (name, type) => {
    if (name.startsWith('nobody.')) {
      return { nxdomain: true, authorities: [{ type: 'SOA', name: 'example', ttl, data: SOA }] }
    }
    if (name.startsWith('big.') && type === 'TXT') {
      return { answers: Array.from({ length: 16 }, (_, i) => txt(name, ttl, `${i} ${'x'.repeat(200)}`)) }
    }
    const owner = name === 'alias.example' ? 'web.example' : name
    const alias: dnsPacket.Answer[] = owner === name ? [] : [{ type: 'CNAME', name, ttl, data: owner }]
    if (type === 'A') return { answers: [...alias, { type: 'A', name: owner, ttl, data: a }] }
    if (type === 'AAAA') return { answers: [...alias, { type: 'AAAA', name: owner, ttl, data: aaaa }] }
    if (type === 'TXT') return { answers: [...alias, txt(owner, ttl, 'from the server')] }
    return { answers: alias, authorities: [{ type: 'SOA', name: 'example', ttl, data: SOA }] }
  }
}

function txt(name: string, ttl: number, data: string): dnsPacket.Answer {
  return { type: 'TXT', name, ttl, data }
}

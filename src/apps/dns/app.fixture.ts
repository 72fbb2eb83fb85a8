import assert from 'node:assert/strict'
import * as dnsPacket from 'dns-packet'
import { parseConfig } from '../../config/parse.ts'
import type { ListenerConfig } from '../../config/types.ts'
import { encoded, opt, SEEDS } from '../../inspect/dns.fixture.ts'
import { emptyAnswer, readAnswer } from '../../inspect/dns-answer.ts'
import type { Endpoint } from '../../net/address.ts'
import type { AppSession, DatagramDecision } from '../../proxy/app.ts'
import type { DnsListener } from './answers.ts'
import { DnsApp } from './app.ts'
import type { LearntNames } from './learnt.ts'

export const CLIENT: Endpoint = { address: '10.0.3.1', port: 40_000 }
export const SERVER: Endpoint = { address: '10.0.4.2', port: 53 }

/** The listener whose key `dns` is this. */
export function dnsListener(dns = '{}', ...lines: string[]): DnsListener {
  const text = ['listeners:', '  - name: dns', `    dns: ${dns}`, ...lines.map((line) => `    ${line}`)].join('\n')
  const listener: ListenerConfig = parseConfig(text, 'f', { hostFamilies: [4] }).listeners[0]!
  assert.ok(listener.dns !== undefined)
  return { source: listener.source, to: listener.to, dns: listener.dns }
}

/** The app with a clock that stands until it is moved, and what is between it and the network. */
export class AppUnderTest {
  nowMs = 1_000_000
  readonly app: DnsApp
  readonly #session: AppSession = sessionOf(CLIENT)

  constructor(listener = dnsListener(), learnt?: LearntNames) {
    this.app = new DnsApp(listener, { learnt, now: () => this.nowMs })
  }

  decide(bytes: Uint8Array, client = CLIENT, originalDst = SERVER): DatagramDecision {
    return this.app.datagrams.decide({ bytes: bytes.slice(), client, originalDst, hold: () => undefined })
  }

  /** The answer to a query that is answered here. */
  reply(bytes: Uint8Array, client = CLIENT, originalDst = SERVER): Decoded {
    const decision = this.decide(bytes, client, originalDst)
    assert.equal(decision.kind, 'reply')
    return decoded(decision.kind === 'reply' ? decision.bytes : bytes)
  }

  /** What the server gets of a query that is let go on. */
  sent(bytes: Uint8Array, session = this.#session): Uint8Array {
    const datagram = bytes.slice()
    assert.equal(this.app.datagrams.onSend(session, datagram), true)
    return datagram
  }

  /** What the client gets of a server's datagram; undefined: nothing. */
  received(bytes: Uint8Array, session = this.#session): Uint8Array | undefined {
    const datagram = bytes.slice()
    const kept = this.app.datagrams.onReceive(session, datagram)
    return kept < 0 ? undefined : datagram.subarray(0, kept)
  }

  /** Asks the server, and brings its answer to the client. */
  exchange(query: Uint8Array, answer: dnsPacket.Packet, session = this.#session): Uint8Array | undefined {
    assert.equal(this.decide(query, session.client, session.originalDst).kind, 'forward')
    return this.received(answerTo(this.sent(query, session), answer), session)
  }
}

export function sessionOf(client: Endpoint, originalDst = SERVER, upstream = originalDst): AppSession {
  return { client, originalDst, upstream, source: 'proxy', state: undefined }
}

/** Its typings leave the response code out. */
export type Decoded = dnsPacket.DecodedPacket & { readonly rcode: string }

export function decoded(bytes: Uint8Array): Decoded {
  return dnsPacket.decode(Buffer.from(bytes)) as Decoded
}

/** A server's answer to the bytes of a query: same id and question, RA. */
export function answerTo(query: Uint8Array, answer: dnsPacket.Packet): Uint8Array {
  const { id, questions, flags = 0 } = decoded(query)
  return encoded({
    type: 'response',
    id: id!,
    questions: questions!,
    ...answer,
    flags: (flags & 0x110) | 0x80 | (answer.flags ?? 0),
  })
}

export function addresses(name: string, ttl: number, ...data: string[]): dnsPacket.Packet {
  return { answers: data.map((address) => ({ type: 'A', name, ttl, data: address })), additionals: [opt(1232)] }
}

/** For the fuzz: every message is offered as a query, and as the answer to one. Returns what became of it. */
export function fuzzApp(): (bytes: Uint8Array) => string {
  const rules =
    '[{ suffixes: com, then: nxdomain }, { names: www.example.org, types: TXT, then: answer, answers: { txt: x } }]'
  const { app } = new AppUnderTest(dnsListener(`{ rules: ${rules}, cache: { entries: 100 } }`))
  const session = sessionOf(CLIENT)
  const replied = emptyAnswer()
  return (bytes) => {
    const asked = SEEDS[0]!.slice()
    app.datagrams.onSend(session, asked)
    const answer = bytes.slice()
    answer.set(asked.subarray(0, Math.min(2, answer.length))) // else nearly all would end at the id
    const wasTaken = app.datagrams.onReceive(session, answer) >= 0
    const decision = app.datagrams.decide({ bytes, client: CLIENT, originalDst: SERVER, hold: () => undefined })
    const fault = decision.kind === 'reply' ? readAnswer(decision.bytes, replied) : undefined
    if (fault !== undefined) throw new Error(`our own answer is malformed: ${fault}`)
    if (decision.kind === 'forward') app.datagrams.onSend(session, bytes)
    if (app.stats().cacheEntries! > 100) throw new Error('the cache has no bound')
    return `${decision.kind}${wasTaken ? ', answer taken' : ''}`
  }
}

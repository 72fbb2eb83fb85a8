import type { RemoteInfo } from 'node:dgram'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { DatagramClient, senderOf } from './datagram-client.ts'
import type { Carried, Exchange, Service, Sight } from './exchange.ts'
import type { Host } from './host.ts'
import type { Evidence } from './report.ts'

const HEADER_BYTES = 12
const TYPE_A_CLASS_IN = [0, 1, 0, 1]
const TTL_SECONDS = 300 // longer than a scenario: a second question need not be asked again
const QUERY_FLAGS = 0x0100 // recursion desired
const ANSWER_FLAGS = 0x8180 // an answer; recursion desired and available
const NAME_AGAIN = [0xc0, HEADER_BYTES] // a pointer to the name of the question (RFC 1035 §4.1.4)

/** What the client asks for, and what is to come of it. */
export interface DnsQuestion {
  readonly name: string
  /** The address that it gets. */
  readonly address: string
  /** Whether the server hears of it. */
  readonly reachesServer: boolean
}

/**
 * A DNS server that knows one address for every name, with a client that asks `questions`, one by one.
 * The messages are made by hand (RFC 1035 §4.1): what is shown does not depend on Limpid's own reading of DNS.
 */
export function serveDns(host: Host, endpoint: Endpoint, address: string, questions: readonly DnsQuestion[]): Service {
  const queries: Endpoint[] = []
  const socket = host.datagramSocket(endpoint)
  socket.on('error', () => {}) // the client is told by its own side
  socket.on('message', (query: Buffer, info: RemoteInfo) => {
    queries.push(senderOf(info))
    socket.send(answerTo(query, address), info.port, info.address)
  })
  return {
    open: async (client, to, from) => {
      const exchange = new DnsExchange(new DatagramClient(client, to, from), queries, to, questions)
      try {
        await exchange.begin()
        return exchange
      } catch (error) {
        exchange.close()
        throw error
      }
    },
    close: () => socket.close(),
  }
}

class DnsExchange implements Exchange {
  readonly #client: DatagramClient
  /** The sender of each query that the server heard. */
  readonly #queries: readonly Endpoint[]
  readonly #to: Endpoint
  readonly #questions: readonly DnsQuestion[]
  readonly #evidence: Evidence[] = []
  #sight: Sight | undefined

  constructor(client: DatagramClient, queries: readonly Endpoint[], to: Endpoint, questions: readonly DnsQuestion[]) {
    this.#client = client
    this.#queries = queries
    this.#to = to
    this.#questions = questions
  }

  get sight(): Sight {
    return this.#sight!
  }

  /** The first question, which the server must hear. */
  async begin(): Promise<void> {
    const clientSees = await this.#ask(0)
    const serverSees = this.#queries[0]
    if (serverSees === undefined) throw new LimpidError('LIMPID_LAB', 'the server heard no query')
    this.#sight = { client: this.#client.address, clientSees, serverSees }
  }

  async finish(): Promise<Carried> {
    for (let id = 1; id < this.#questions.length; id++) await this.#ask(id)
    return { evidence: this.#evidence }
  }

  close(): void {
    this.#client.close()
  }

  /** Returns who answered. */
  async #ask(id: number): Promise<Endpoint> {
    const { name, address, reachesServer } = this.#questions[id]!
    const before = this.#queries.length
    const query = queryFor(id, name)
    const { bytes, from } = await this.#client.ask(query, `an answer about ${name}`)
    this.#evidence.push({
      what: 'Y gets',
      predicted: line(name, address, this.#to, reachesServer),
      observed: line(name, readAnswer(bytes, query), from, this.#queries.length > before),
    })
    return from
  }
}

function line(name: string, address: string, from: Endpoint, isHeard: boolean): string {
  return `${name} A ${address} from ${formatEndpoint(from)}; Z heard ${isHeard ? 'the question' : 'nothing'}`
}

function queryFor(id: number, name: string): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt16BE(id, 0)
  header.writeUInt16BE(QUERY_FLAGS, 2)
  header.writeUInt16BE(1, 4) // one question
  const labels = name.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]))
  return Buffer.concat([header, ...labels, Buffer.from([0, ...TYPE_A_CLASS_IN])])
}

function answerTo(query: Buffer, address: string): Buffer {
  const question = query.subarray(HEADER_BYTES, query.indexOf(0, HEADER_BYTES) + 5) // to the name's end, type and class
  const header = Buffer.from(query.subarray(0, HEADER_BYTES))
  header.writeUInt16BE(ANSWER_FLAGS, 2)
  header.writeUInt16BE(1, 6) // one answer
  header.fill(0, 8)
  const ttl = Buffer.alloc(4)
  ttl.writeUInt32BE(TTL_SECONDS)
  const record = [...NAME_AGAIN, ...TYPE_A_CLASS_IN, ...ttl, 0, 4, ...address.split('.').map(Number)]
  return Buffer.concat([header, question, Buffer.from(record)])
}

/** The address in an answer of one record; else what it is instead. */
function readAnswer(answer: Buffer, query: Buffer): string {
  if (answer.length < query.length || answer.readUInt16BE(0) !== query.readUInt16BE(0)) return 'another message'
  const code = answer.readUInt16BE(2) & 0x0f
  if (code !== 0) return `response code ${code}`
  const record = answer.subarray(query.length) // behind the question, which is repeated
  const isAddress = record.length >= 16 && record.subarray(2, 6).equals(Buffer.from(TYPE_A_CLASS_IN))
  return isAddress ? [...record.subarray(12, 16)].join('.') : 'no address'
}

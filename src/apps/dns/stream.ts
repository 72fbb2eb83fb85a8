import type { Socket } from 'node:net'
import { HEADER_BYTES, isOtherOpcode, put16, RCODE, readQuery, TYPE, u16 } from '../../inspect/dns.ts'
import { type DnsAnswer, emptyAnswer, isBareError, readAnswer } from '../../inspect/dns-answer.ts'
import { NO_RECORDS, writeAnswer, writeBareAnswer } from '../../inspect/dns-write.ts'
import { type Endpoint, formatEndpoint } from '../../net/address.ts'
import type { FlowLink } from '../../policy/facts.ts'
import type { Asker, QuestionDecision } from '../../proxy/questions.ts'
import { type Answers, DROP, DROP_BY_POLICY, FORWARD } from './answers.ts'
import type { DnsCounters } from './counters.ts'
import { framed, MessageFrames } from './frames.ts'
import { keyFits } from './question-key.ts'
import { type StreamQuery, UpstreamStream } from './upstream-stream.ts'
import { avoid, noteAnswered } from './upstreams.ts'

const MAX_MESSAGE_BYTES = 65_535
const MAX_OUTSTANDING = 64 // queries that wait for their answer
const MAX_OUTSTANDING_BYTES = 262_144 // of those; a query is a hundred bytes, an update may be 64 KiB
const MAX_UPSTREAMS = 8 // rules may send queries of one client to several servers
const IDLE_MS = 10_000 // RFC 7766 §6.2.3: of the order of seconds
const ANSWER_MS = 15_000
const MAX_TRIES = 2 // a server may close an idle stream while a query is on its way to it: RFC 7766 §6.2.4

export interface StreamFlow {
  readonly clientAddr: Endpoint
  readonly originalDst: Endpoint
  readonly link?: FlowLink | undefined
  dial(to: Endpoint | undefined): Promise<Socket>
}

export interface StreamParts {
  readonly answers: Answers
  readonly counters: DnsCounters
  readonly now: () => number
}

const out = new Uint8Array(MAX_MESSAGE_BYTES)
const answer: DnsAnswer = emptyAnswer()

/**
 * One client's DNS stream (RFC 7766): its queries are answered here, or asked over streams of ours, one for each server that
 * is needed, in whatever order the answers come. Takes `client`; destroys it and its own on every path.
 */
export class DnsStream {
  readonly #client: Socket
  readonly #flow: StreamFlow
  readonly #answers: Answers
  readonly #counters: DnsCounters
  readonly #now: () => number
  readonly #asker: Asker
  readonly #frames = new MessageFrames()
  readonly #upstreams = new Map<string, UpstreamStream>()
  /** Queries that a hook is asked about, with how to give up waiting. */
  readonly #undecided = new Map<Buffer, () => void>()
  #idle: NodeJS.Timeout | undefined
  #hasClientEnded = false
  #isOver = false

  constructor(client: Socket, flow: StreamFlow, { answers, counters, now }: StreamParts) {
    this.#client = client
    this.#flow = flow
    this.#answers = answers
    this.#counters = counters
    this.#now = now
    this.#asker = { client: flow.clientAddr, originalDst: flow.originalDst, link: flow.link }
  }

  /** Resolves when the stream is over and its sockets are destroyed; never rejects. */
  run(): Promise<void> {
    const client = this.#client
    this.#counters.streams++
    client.allowHalfOpen = true // a client may end its side and still wait for answers
    return new Promise((resolve) => {
      this.#idle = setTimeout(() => client.destroy(), IDLE_MS)
      client.on('data', (chunk: Buffer) => {
        this.#frames.push(chunk)
        this.#progress()
      })
      client.on('end', () => {
        this.#hasClientEnded = true
        this.#progress()
      })
      client.on('drain', () => this.#progress())
      client.on('error', () => {}) // 'close' follows
      const end = () => {
        this.#isOver = true
        clearTimeout(this.#idle)
        for (const giveUp of this.#undecided.values()) giveUp()
        for (const upstream of this.#upstreams.values()) upstream.destroy()
        resolve()
      }
      client.once('close', end)
      if (client.closed) end()
    })
  }

  /** Something moved: takes what there is room for, and sees whether that was all. */
  #progress(): void {
    if (this.#isOver) return
    let message: Buffer | undefined
    while (this.#hasRoom()) {
      message = this.#frames.next()
      if (message === undefined || this.#isOver) break
      this.#takeQuery(message)
    }
    if (this.#isOver) return
    const isFull = this.#client.writableNeedDrain
    for (const upstream of this.#upstreams.values()) upstream.hold(isFull)
    if (message !== undefined || !this.#hasRoom()) this.#client.pause()
    else this.#client.resume()
    const isDone = message === undefined && this.#outstanding() === 0
    if (this.#hasClientEnded && isDone && !this.#client.writableEnded) this.#client.end()
  }

  #hasRoom(): boolean {
    if (this.#client.writableNeedDrain) return false
    const nowMs = this.#now()
    let bytes = 0
    for (const upstream of this.#upstreams.values()) bytes += upstream.waitingBytes(nowMs)
    for (const { length } of this.#undecided.keys()) bytes += length
    return this.#outstanding() < MAX_OUTSTANDING && bytes < MAX_OUTSTANDING_BYTES
  }

  #outstanding(): number {
    let count = this.#undecided.size
    for (const upstream of this.#upstreams.values()) count += upstream.outstanding
    return count
  }

  #takeQuery(message: Buffer): void {
    const { query } = this.#answers
    this.#counters.queries++
    this.#idle?.refresh() // a whole message: a client that sends byte by byte is idle
    if (message.length < HEADER_BYTES || (message[2]! & 0x80) !== 0) {
      this.#counters.streamsMalformed++
      this.#client.destroy()
      return
    }
    if (!isOtherOpcode(message) && readQuery(message, query) !== undefined) {
      this.#counters.streamsMalformed++
      this.#send(out.subarray(0, writeBareAnswer(message, RCODE.formErr, out)))
      return
    }
    const decision = this.#answers.decide(message, this.#asker, 'tcp')
    if (this.#answers.mayAsk(decision, message)) this.#askHook(decision, message)
    else this.#act(decision, message)
  }

  #askHook(decided: QuestionDecision, message: Buffer): void {
    const outcome = this.#answers.askHook(decided, message, this.#asker, 'tcp', (decision) => {
      this.#undecided.delete(message)
      if (readQuery(message, this.#answers.query) === undefined) this.#act(decision, message)
      this.#progress()
    })
    if (outcome.kind === 'waits') this.#undecided.set(message, outcome.giveUp)
    else this.#act(outcome, message)
  }

  #act(decision: QuestionDecision, message: Buffer): void {
    const answers = this.#answers
    const length = answers.act(decision, message, this.#asker, this.#now(), out, MAX_MESSAGE_BYTES)
    if (length === DROP) this.#counters.dropped['dns-rule']++
    else if (length === DROP_BY_POLICY) this.#counters.dropped['dns-policy']++
    else if (length !== FORWARD) this.#send(out.subarray(0, length))
    else {
      const { upstreams } = answers
      const isOther = isOtherOpcode(message)
      this.#ask({
        ...this.#pending(message, isOther ? '' : answers.key),
        upstreams,
        shared: !isOther && !answers.query.extra,
      })
    }
  }

  #pending(message: Buffer, key: string): StreamQuery {
    const { qtype, edns, dnssecOk } = this.#answers.query
    return {
      key,
      clientId: u16(message, 0),
      limit: MAX_MESSAGE_BYTES,
      edns,
      dnssecOk,
      shared: false,
      deadlineAtMs: this.#now() + ANSWER_MS,
      message,
      upstreams: undefined,
      isTransfer: key !== '' && (qtype === TYPE.AXFR || qtype === TYPE.IXFR),
      tries: 0,
    }
  }

  #ask(query: StreamQuery): void {
    const { upstreams } = query
    const to = upstreams?.pick(this.#now(), this.#answers.familyFor(this.#asker.client))
    const place = to === undefined ? '' : formatEndpoint(to)
    let upstream = this.#upstreams.get(place)
    const isNowhere = upstreams !== undefined && to === undefined
    if (isNowhere || (upstream === undefined && this.#upstreams.size >= MAX_UPSTREAMS)) {
      this.#giveUp(query)
      return
    }
    if (upstream === undefined) {
      const opened: UpstreamStream = new UpstreamStream(this.#flow.dial(to), {
        maxQueries: MAX_OUTSTANDING,
        onMessage: (message) => this.#takeAnswer(opened, to, message),
        onGone: (unanswered, wasDialled) => this.#askAgain(place, to, unanswered, wasDialled),
      })
      this.#upstreams.set(place, opened)
      upstream = opened
    }
    query.tries++
    this.#counters.forwarded++
    upstream.ask(query)
  }

  #takeAnswer(upstream: UpstreamStream, to: Endpoint | undefined, message: Buffer): void {
    const nowMs = this.#now()
    const query = upstream.waiting(message, nowMs)
    if (query === undefined) this.#counters.answersUnasked++
    else if (query.key === '' || query.isTransfer || isBareError(message) || this.#fits(message, query, nowMs)) {
      if (!query.isTransfer) upstream.settle(message)
      put16(message, 0, query.clientId)
      this.#counters.answers++
      const known = to && this.#answers.known.find(to)
      if (known !== undefined) noteAnswered(known)
      this.#send(message)
    }
    this.#progress()
  }

  #fits(message: Buffer, query: StreamQuery, nowMs: number): boolean {
    if (readAnswer(message, answer) !== undefined) {
      this.#counters.answersMalformed++
      return false
    }
    if (!keyFits(query.key, message, answer)) {
      this.#counters.answersMismatched++
      return false
    }
    this.#answers.take(message, answer, query, () => this.#asker.client.address, nowMs)
    return true
  }

  /** A server's stream is over, or could not be had. */
  #askAgain(place: string, to: Endpoint | undefined, unanswered: readonly StreamQuery[], wasDialled: boolean): void {
    this.#upstreams.delete(place)
    if (!wasDialled) this.#counters.dialsFailed++
    const known = to && this.#answers.known.find(to)
    if (known !== undefined && (!wasDialled || unanswered.length > 0)) avoid(known, this.#now())
    for (const query of unanswered) {
      if (this.#isOver) return
      const mayTry = query.tries < MAX_TRIES && !query.isTransfer && (wasDialled || query.upstreams !== undefined)
      if (mayTry) this.#ask(query)
      else this.#giveUp(query)
    }
    this.#progress()
  }

  /** No server answers: the client hears it as the server that it dialled would have told it, or by SERVFAIL. */
  #giveUp(query: StreamQuery): void {
    put16(query.message, 0, query.clientId)
    if (query.upstreams === undefined || query.key === '' || query.isTransfer) this.#client.resetAndDestroy()
    else if (readQuery(query.message, this.#answers.query) === undefined) {
      const length = writeAnswer(query.message, this.#answers.query, RCODE.servFail, NO_RECORDS, out, MAX_MESSAGE_BYTES)
      this.#send(out.subarray(0, length))
    }
  }

  #send(message: Uint8Array): void {
    this.#idle?.refresh()
    if (this.#client.writable) this.#client.write(framed(message))
  }
}

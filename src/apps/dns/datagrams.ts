import { HEADER_BYTES, idAndOpcode, isOtherOpcode, PLAIN_UDP_BYTES, put16, readQuery, u16 } from '../../inspect/dns.ts'
import { type DnsAnswer, emptyAnswer, isBareError, readAnswer } from '../../inspect/dns-answer.ts'
import { OWN_UDP_BYTES, truncateInPlace } from '../../inspect/dns-write.ts'
import type { Endpoint } from '../../net/address.ts'
import type { AppSession, ClientDatagram, DatagramApp, DatagramDecision, HeldDatagram } from '../../proxy/app.ts'
import type { QuestionDecision } from '../../proxy/questions.ts'
import { type Answers, DROP, DROP_BY_POLICY, FORWARD } from './answers.ts'
import { type DnsCounters, type DnsDropReason, DROPS, FAULT_REASONS } from './counters.ts'
import { LargeAnswers } from './large-answers.ts'
import { PendingQueries, type PendingQuery } from './pending.ts'
import { keyFits } from './question-key.ts'
import { avoid, noteAnswered, noteAsked } from './upstreams.ts'

const MAX_PENDING = 64 // in one session: a client's port and a server
const ANSWER_MS = 15_000 // a client has asked again, or another server, by then (resolv.conf(5): 5 s, twice)
const HELD: DatagramDecision = { kind: 'held' }
const FORWARD_ANY: DatagramDecision = { kind: 'forward', to: undefined }

/**
 * DNS by UDP. What decide() returns is valid until it is called again: a cached answer costs no object. decide() is to be
 * called for every datagram of a client, also of one that has a session.
 */
export class DnsDatagrams implements DatagramApp {
  readonly #answers: Answers
  readonly #counters: DnsCounters
  readonly #now: () => number
  readonly #large = new LargeAnswers()
  readonly #answer: DnsAnswer = emptyAnswer()
  readonly #out = new Uint8Array(OWN_UDP_BYTES)
  /** Views of #out by their length, made when first needed. */
  readonly #views: (Uint8Array | undefined)[] = new Array(OWN_UDP_BYTES + 1).fill(undefined)
  readonly #reply: { kind: 'reply'; bytes: Uint8Array } = { kind: 'reply', bytes: this.#out }

  constructor(answers: Answers, counters: DnsCounters, now: () => number) {
    this.#answers = answers
    this.#counters = counters
    this.#now = now
  }

  decide(datagram: ClientDatagram): DatagramDecision {
    const { bytes } = datagram
    const answers = this.#answers
    this.#counters.queries++
    const fault = isOtherOpcode(bytes) ? undefined : readQuery(bytes, answers.query)
    if (fault !== undefined) return this.#drop(FAULT_REASONS[fault])
    const decision = answers.decide(bytes, datagram, 'udp')
    if (answers.mayAsk(decision, bytes)) return this.#askHook(decision, datagram, bytes)
    return this.#act(decision, datagram, bytes)
  }

  #askHook(decided: QuestionDecision, datagram: ClientDatagram, bytes: Uint8Array): DatagramDecision {
    let held: HeldDatagram | undefined
    const outcome = this.#answers.askHook(decided, bytes, datagram, 'udp', (decision) =>
      held?.settle((again) => this.#actLater(decision, again)),
    )
    if (outcome.kind !== 'waits') return this.#act(outcome, datagram, bytes)
    held = datagram.hold(outcome.giveUp)
    if (held !== undefined) return HELD
    outcome.giveUp()
    return this.#drop('dns-hook')
  }

  #actLater(decision: QuestionDecision, datagram: ClientDatagram): DatagramDecision {
    const { bytes } = datagram
    const fault = readQuery(bytes, this.#answers.query)
    return fault === undefined ? this.#act(decision, datagram, bytes) : this.#drop(FAULT_REASONS[fault])
  }

  #act(decision: QuestionDecision, datagram: ClientDatagram, bytes: Uint8Array): DatagramDecision {
    const answers = this.#answers
    const limit = Math.min(answers.query.udpBytes, OWN_UDP_BYTES)
    let length = answers.act(decision, bytes, datagram, this.#now(), this.#out, limit)
    if (length === FORWARD) return this.#forward(datagram)
    if (length === DROP) return this.#drop('dns-rule')
    if (length === DROP_BY_POLICY) return this.#drop('dns-policy')
    if (length > PLAIN_UDP_BYTES && !this.#large.mayGo(datagram.client.address, this.#now()))
      length = this.#cutDown(length)
    this.#reply.bytes = this.#views[length] ??= this.#out.subarray(0, length)
    return this.#reply
  }

  /** What is too much for a client that may not be the one who asks: by TCP it can have all of it. */
  #cutDown(length: number): number {
    this.#counters.limited++
    const { questionEnd, edns, dnssecOk } = this.#answers.query
    return truncateInPlace(this.#out.subarray(0, length), questionEnd, edns, dnssecOk)
  }

  #drop(reason: DnsDropReason): DatagramDecision {
    this.#counters.dropped[reason]++
    return DROPS[reason]
  }

  #forward(datagram: ClientDatagram): DatagramDecision {
    const upstreams = this.#answers.upstreams
    this.#counters.forwarded++
    if (upstreams === undefined) return FORWARD_ANY
    const to = upstreams.pick(this.#now(), this.#answers.familyFor(datagram.client))
    return to === undefined ? this.#drop('dns-no-upstream') : { kind: 'forward', to }
  }

  onSend(session: AppSession, bytes: Uint8Array): boolean {
    const nowMs = this.#now()
    const { query } = this.#answers
    session.state ??= new PendingQueries(MAX_PENDING)
    const pending = session.state as PendingQueries
    const deadlineAtMs = nowMs + ANSWER_MS
    if (isOtherOpcode(bytes)) {
      const id = u16(bytes, 0)
      const untouched = { key: '', clientId: id, limit: 0, edns: false, dnssecOk: false, shared: false, deadlineAtMs }
      pending.add(untouched, idAndOpcode(bytes))
    } else {
      if (readQuery(bytes, query) !== undefined) return false
      const { id: clientId, edns, dnssecOk, extra, udpBytes: limit } = query
      const key = this.#answers.keyOf(bytes, session)
      const id = pending.add({ key, clientId, limit, edns, dnssecOk, shared: !extra, deadlineAtMs })
      put16(bytes, 0, id)
    }
    const upstream = this.#answers.known.find(session.upstream)
    if (upstream !== undefined) noteAsked(upstream, nowMs)
    return true
  }

  onReceive(session: AppSession, bytes: Uint8Array): number {
    const nowMs = this.#now()
    const counters = this.#counters
    if (bytes.length < HEADER_BYTES || (bytes[2]! & 0x80) === 0) {
      counters.answersMalformed++
      return -1
    }
    const pending = session.state as PendingQueries | undefined
    const id = idAndOpcode(bytes)
    const query = pending?.get(id, nowMs)
    if (query === undefined) {
      counters.answersUnasked++
      return -1
    }
    const isAnswer = query.key !== '' && !isBareError(bytes)
    const length = isAnswer ? this.#take(session, bytes, query, nowMs) : bytes.length
    if (length < 0) return -1
    pending?.delete(id)
    put16(bytes, 0, query.clientId)
    counters.answers++
    const upstream = this.#answers.known.find(session.upstream)
    if (upstream !== undefined) noteAnswered(upstream)
    return length
  }

  /** The length of the answer to `query`, cut down where it is too large for the client; -1: it is none. */
  #take(session: AppSession, bytes: Uint8Array, query: PendingQuery, nowMs: number): number {
    const answer = this.#answer
    const fault = readAnswer(bytes, answer)
    if (fault !== undefined && !(fault === 'record' && answer.truncated)) {
      this.#counters.answersMalformed++
      return -1 // but some servers truncate within a record
    }
    if (!keyFits(query.key, bytes, answer)) {
      this.#counters.answersMismatched++
      return -1
    }
    if (fault === undefined) this.#answers.take(bytes, answer, query, () => session.client.address, nowMs)
    if (bytes.length <= query.limit) return bytes.length
    this.#counters.truncated++
    return truncateInPlace(bytes, answer.questionEnd, query.edns, query.dnssecOk)
  }

  onUnreachable(endpoint: Endpoint): void {
    const upstream = this.#answers.known.find(endpoint)
    if (upstream !== undefined) avoid(upstream, this.#now())
  }

  onSessionEnd(session: AppSession): void {
    session.state = undefined
  }
}

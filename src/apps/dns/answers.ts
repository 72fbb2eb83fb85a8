import type { DnsConfig, ListenerConfig, Protocol } from '../../config/types.ts'
import { type DnsQuery, emptyQuery, HEADER_BYTES, isOtherOpcode, RCODE } from '../../inspect/dns.ts'
import type { DnsAnswer } from '../../inspect/dns-answer.ts'
import { nameText } from '../../inspect/dns-name.ts'
import { NO_RECORDS, writeAnswer, writeBareAnswer } from '../../inspect/dns-write.ts'
import type { Endpoint, Family } from '../../net/address.ts'
import { familyOf } from '../../net/address.ts'
import {
  type Asker,
  GO_ON,
  type QuestionDecision,
  type QuestionOutcome,
  type Questions,
} from '../../proxy/questions.ts'
import { AnswerCache, writeCached } from './cache.ts'
import { type CannedAnswer, cannedAnswer } from './canned.ts'
import type { DnsCounters } from './counters.ts'
import { type LearntNames, lessonOf, newLesson } from './learnt.ts'
import type { PendingQuery } from './pending.ts'
import { questionKey } from './question-key.ts'
import { DnsRules, type ReadyRule } from './rules.ts'
import { KnownUpstreams, oneServer, type Upstreams } from './upstreams.ts'

export type DnsListener = Pick<ListenerConfig, 'source' | 'to'> & { readonly dns: DnsConfig }

/** What Answers.ask() returns beside a length. */
export const FORWARD = 0
export const DROP = -1
/** Not by a rule of the listener's. */
export const DROP_BY_POLICY = -2

export interface AnswersDeps {
  readonly learnt: LearntNames | undefined
  readonly questions: Questions | undefined
}

/** Rules and cache: what can be answered here, by UDP and TCP alike. */
export class Answers {
  /** The query that is being asked; whoever asks reads into it first. */
  readonly query: DnsQuery = emptyQuery()
  readonly known = new KnownUpstreams()
  readonly cache: AnswerCache | undefined
  readonly learnt: LearntNames | undefined
  readonly #questions: Questions | undefined
  readonly #rules: DnsRules
  readonly #upstreams: Upstreams | undefined
  readonly #counters: DnsCounters
  readonly #isOneServer: boolean
  readonly #isPerClient: boolean
  readonly #isAnyFamily: boolean
  /** Of the query that was asked last: its key, the server that the policy has for it, and the rule that took it. */
  key = ''
  server: Endpoint | undefined
  rule: ReadyRule | undefined

  constructor({ dns, source, to }: DnsListener, counters: DnsCounters, { learnt, questions }: AnswersDeps) {
    this.cache = dns.cache && new AnswerCache(dns.cache)
    this.learnt = learnt
    this.#questions = questions
    this.#counters = counters
    this.#rules = new DnsRules(dns.rules, (endpoints) => this.known.group(endpoints))
    this.#upstreams = dns.upstreams.length === 0 ? undefined : this.known.group(dns.upstreams)
    this.#isOneServer = this.#upstreams !== undefined || (to !== undefined && to.port !== 0)
    this.#isPerClient = source === 'client-port'
    this.#isAnyFamily = source === 'proxy'
  }

  /** The key of `query`, for its answers in the cache. */
  keyOf(message: Uint8Array, asker: Asker): string {
    return questionKey(
      message,
      this.query,
      // a server may lie to those who ask it, and to nobody else
      this.server ?? (this.#isOneServer ? undefined : asker.originalDst),
      this.#isPerClient ? asker.client.address : undefined, // who knows the port can forge answers: to itself alone then
    )
  }

  /** What the policy says of `query`, whose bytes are `message`; with an opcode other than QUERY it has no name. */
  decide(message: Uint8Array, asker: Asker, transport: Protocol): QuestionDecision {
    const questions = this.#questions
    if (questions?.isOpen !== true) return GO_ON
    return questions.decide(asker, transport, isOtherOpcode(message) ? undefined : nameText(message, HEADER_BYTES))
  }

  /**
   * What the hook says of it, where the policy lets it go on. `later` is told where it is to be waited for: by then another query may have
   * been read.
   */
  askHook(
    decided: QuestionDecision,
    message: Uint8Array,
    asker: Asker,
    transport: Protocol,
    later: (decision: QuestionDecision) => void,
  ): QuestionOutcome {
    const question = { transport, name: nameText(message, HEADER_BYTES), type: this.query.qtype }
    return this.#questions!.askHook(decided, asker, question, later)
  }

  /** Whether askHook() is to be called. */
  mayAsk(decided: QuestionDecision, message: Uint8Array): boolean {
    return decided.kind === 'forward' && this.#questions?.hasHook === true && !isOtherOpcode(message)
  }

  /**
   * Does what was decided about `query`, whose bytes are `message`. What is answered here is written to `out`, truncated above `limit`.
   * Returns the length, FORWARD, DROP or DROP_BY_POLICY.
   */
  act(
    decision: QuestionDecision,
    message: Uint8Array,
    asker: Asker,
    nowMs: number,
    out: Uint8Array,
    limit: number,
  ): number {
    this.rule = undefined
    this.server = decision.kind === 'forward' ? decision.to : undefined
    const isOther = isOtherOpcode(message)
    if (decision.kind === 'forward') return isOther ? FORWARD : this.#ask(message, asker, nowMs, out, limit)
    this.#counters.ruled++
    if (decision.kind === 'answer') return this.#answer(decision, message, asker, nowMs, out, limit)
    if (decision.kind === 'reject' && decision.by === 'drop') return DROP_BY_POLICY
    const rcode = decision.kind === 'failed' ? RCODE.servFail : POLICY_RCODES[decision.by]
    return isOther
      ? writeBareAnswer(message, rcode, out)
      : writeAnswer(message, this.query, rcode, NO_RECORDS, out, limit)
  }

  #answer(
    { addresses, ttlSeconds }: QuestionDecision & { readonly kind: 'answer' },
    message: Uint8Array,
    asker: Asker,
    nowMs: number,
    out: Uint8Array,
    limit: number,
  ): number {
    const of = (family: Family) => addresses.filter((address) => familyOf(address) === family)
    const canned = cannedAnswer({ a: of(4), aaaa: of(6), cname: undefined, txt: [], ttlSeconds })
    this.#teach(message, canned, asker, nowMs)
    return writeAnswer(message, this.query, RCODE.noError, canned.recordsFor(this.query.qtype), out, limit)
  }

  /** The cache comes first: it has only what rules let go on. */
  #ask(message: Uint8Array, asker: Asker, nowMs: number, out: Uint8Array, limit: number): number {
    const { query } = this
    const key = this.keyOf(message, asker)
    this.key = key
    this.rule = undefined
    if (!query.extra && this.cache !== undefined) {
      const kept = this.cache.get(key, nowMs)
      if (kept !== undefined) {
        this.#counters.cacheHits++
        if (kept.lesson !== undefined) this.learnt?.note(asker.client.address, kept.lesson, nowMs)
        return writeCached(kept, message, query, nowMs, out, limit)
      }
    }
    return this.#rules.isEmpty ? FORWARD : this.#askRules(message, asker, nowMs, out, limit)
  }

  #askRules(message: Uint8Array, asker: Asker, nowMs: number, out: Uint8Array, limit: number): number {
    const { query } = this
    const rule = this.ruleOf(this.key)
    this.rule = rule
    if (rule === undefined || rule.decision === 'forward') return FORWARD
    this.#counters.ruled++
    if (rule.decision === 'drop') return DROP
    if (rule.canned !== undefined) this.#teach(message, rule.canned, asker, nowMs)
    const records = rule.canned?.recordsFor(query.qtype) ?? NO_RECORDS
    return writeAnswer(message, query, RULE_RCODES[rule.decision], records, out, limit)
  }

  /** A client that is told addresses by a rule will dial them by this name. */
  #teach(message: Uint8Array, canned: CannedAnswer, asker: Asker, nowMs: number): void {
    const addresses = this.learnt === undefined ? [] : canned.addressesFor(this.query.qtype)
    if (addresses.length === 0) return
    const lesson = newLesson(nameText(message, HEADER_BYTES), addresses, nowMs + canned.ttlMs)
    this.learnt?.note(asker.client.address, lesson, nowMs)
  }

  /** The first rule for `query`, whose key is `key`. */
  ruleOf(key: string): ReadyRule | undefined {
    return this.#rules.find(key, this.query.nameEnd, this.query.qtype)
  }

  /** The servers that the query goes to that was asked last; undefined: the one that was asked, or the listener's. */
  get upstreams(): Upstreams | undefined {
    return this.server === undefined ? (this.rule?.upstreams ?? this.#upstreams) : oneServer(this.server)
  }

  /** The family that a server must have for this client; undefined: any. */
  familyFor(client: Endpoint): Family | undefined {
    return this.#isAnyFamily ? undefined : familyOf(client.address)
  }

  /** An answer goes on to its client: what it says is kept and learnt. */
  take(message: Uint8Array, answer: DnsAnswer, query: PendingQuery, clientAddress: () => string, nowMs: number): void {
    const lesson = this.learnt && lessonOf(message, answer, nowMs)
    if (lesson !== undefined) this.learnt?.note(clientAddress(), lesson, nowMs)
    if (query.shared && this.cache?.put(query.key, message, answer, nowMs, lesson)) this.#counters.cacheStored++
  }
}

const POLICY_RCODES = { refused: RCODE.refused, nxdomain: RCODE.nxDomain, drop: RCODE.refused } as const
const RULE_RCODES = { nxdomain: RCODE.nxDomain, refuse: RCODE.refused, answer: RCODE.noError } as const

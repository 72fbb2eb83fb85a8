import { readDecision } from '../config/hook-decision.ts'
import { type HttpAnswer, readHttpAnswer } from '../config/http-answer.ts'
import type { Decision } from '../config/policy-types.ts'
import type { Finding } from '../policy/facts.ts'
import { HookRunner } from '../policy/hook-runner.ts'
import { FixedMemory } from '../sys/fixed-memory.ts'
import { answerOf, failureOf } from './hook-answer.ts'
import { HookView } from './hook-view.ts'
import type { HookFlow, ReadyHooks } from './hooks.ts'
import type { HookRequest } from './http-hook.ts'
import { QuestionHook } from './question-hook.ts'
import type { FlowRecord } from './record.ts'

/** What a hook makes of a flow: a decision; undefined: as the rules say; `failed`: it must not go on. */
export type HookAnswer = Decision | 'failed' | undefined

export interface HookStats {
  /** Hooks that threw, rejected, or returned what is no decision. */
  readonly hookFailures: number
  /** Hooks that had not settled at their deadline. */
  readonly hookTimeouts: number
  /** Hooks that were not called, since as many as may be were waited for. */
  readonly hooksSkipped: number
  /** Calls of hooks that are waited for at this moment. */
  readonly hooksWaiting: number
}

export const NO_HOOK_STATS: HookStats = { hookFailures: 0, hookTimeouts: 0, hooksSkipped: 0, hooksWaiting: 0 }

/** By the number that stands at `computingAt`; 0: none, or one goes on after an await. */
export const HOOK_NAMES = ['', 'onFlow', 'onClose', 'onDns', 'onHttpRequest'] as const

type AskedFlow = Omit<HookFlow, 'signal' | 'protocol' | 'host' | 'alpn'>

/** The hooks of a proxy, asked about its flows. */
export class FlowHooks {
  readonly #hooks: ReadyHooks
  readonly #computing = new FixedMemory(4)
  readonly #onFlow: HookRunner
  readonly #onClose: HookRunner
  readonly #onHttpRequest: HookRunner
  readonly #flowDecision: { readonly called: string; read(returned: unknown): Decision | undefined | string }
  /** About what clients ask apps. */
  readonly questions: QuestionHook

  /** `markMask`: bits of fwmarks that are Limpid's own. */
  constructor(hooks: ReadyHooks, markMask: number, note: (line: string) => void) {
    const computing = this.#computing.words
    const { deadlineMs, mostWaiting } = hooks
    this.#hooks = hooks
    this.#flowDecision = { called: 'decision', read: (returned) => readDecision(returned, markMask, hooks.apps) }
    this.#onFlow = new HookRunner({ name: 'onFlow', number: 1, computing, deadlineMs, mostWaiting, note })
    this.#onClose = new HookRunner({ name: 'onClose', number: 2, computing, deadlineMs, mostWaiting, note })
    this.questions = new QuestionHook(hooks, { number: 3, computing, note })
    this.#onHttpRequest = new HookRunner({ name: 'onHttpRequest', number: 4, computing, deadlineMs, mostWaiting, note })
  }

  /** Where the number of the hook that computes stands, see HOOK_NAMES: for another process, since this one cannot tell then. */
  get computingAt(): number {
    return this.#computing.address
  }

  /** Whether flows are decided here, and their first bytes wanted. */
  get decides(): boolean {
    return this.#hooks.onFlow !== undefined
  }

  /** `done` is told once, within this call or later; not any more after the returned function was called. */
  ask(flow: AskedFlow, finding: Finding, done: (answer: HookAnswer) => void): () => void {
    const view = new FlowView(flow, finding)
    return this.#onFlow.run(
      () => this.#hooks.onFlow?.(view),
      (outcome) => done(answerOf(outcome, this.#flowDecision, this.#onFlow, this.#hooks)),
      () => view.abort(),
    )
  }

  /** Whether requests are asked about. */
  get decidesRequests(): boolean {
    return this.#hooks.onHttpRequest !== undefined
  }

  /** As ask(), of one request; `done` gets undefined where it goes on as it is. */
  askRequest(
    request: HookRequest,
    done: (answer: HttpAnswer | 'failed' | undefined) => void,
    onLate: () => void,
  ): () => void {
    return this.#onHttpRequest.run<unknown>(
      () => this.#hooks.onHttpRequest?.(request),
      (outcome) => done(answerOf(outcome, HTTP_ANSWER, this.#onHttpRequest, this.#hooks)),
      onLate,
    )
  }

  /** What a hook made of a request cannot be done. */
  failRequest(why: string): 'failed' | undefined {
    this.#onHttpRequest.fail(why)
    return failureOf(this.#hooks)
  }

  closed(record: FlowRecord): void {
    const { onClose } = this.#hooks
    if (onClose === undefined) return
    this.#onClose.run(
      () => onClose(record),
      () => {},
    )
  }

  /** Waits for what was called already; at the longest, until its deadline. */
  async quiet(): Promise<void> {
    await Promise.all(this.#runners.map((runner) => runner.quiet()))
  }

  get #runners(): readonly HookRunner[] {
    return [this.#onFlow, this.#onClose, this.questions.runner, this.#onHttpRequest]
  }

  get stats(): HookStats {
    const sum = (count: (runner: HookRunner) => number): number =>
      this.#runners.reduce((all, one) => all + count(one), 0)
    return {
      hookFailures: sum(({ counters }) => counters.failures),
      hookTimeouts: sum(({ counters }) => counters.timeouts),
      hooksSkipped: sum(({ counters }) => counters.skipped),
      hooksWaiting: sum(({ waiting }) => waiting),
    }
  }
}

const HTTP_ANSWER = { called: 'answer', read: readHttpAnswer }

/** What onFlow sees. */
class FlowView extends HookView implements HookFlow {
  readonly listener: string
  readonly transport: HookFlow['transport']
  readonly client: HookFlow['client']
  readonly originalDst: HookFlow['originalDst']
  readonly upstream: HookFlow['upstream']
  readonly protocol: HookFlow['protocol']
  readonly host: string | undefined
  readonly alpn: readonly string[]
  readonly names: readonly string[]
  readonly rule: string | undefined

  constructor({ listener, transport, client, originalDst, upstream, names, rule }: AskedFlow, finding: Finding) {
    super()
    this.listener = listener
    this.transport = transport
    this.client = { ...client } // what a hook writes into its flow changes nothing of ours
    this.originalDst = { ...originalDst }
    this.upstream = { ...upstream }
    this.protocol = finding.protocol
    this.host = finding.host
    this.alpn = finding.alpn ?? []
    this.names = names
    this.rule = rule
    Object.freeze(this)
  }
}

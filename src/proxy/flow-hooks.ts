import { readDecision } from '../config/hook-decision.ts'
import { type HttpAnswer, readHttpAnswer } from '../config/http-answer.ts'
import type { Decision } from '../config/policy-types.ts'
import type { Finding } from '../policy/facts.ts'
import { type HookOutcome, HookRunner } from '../policy/hook-runner.ts'
import { FixedMemory } from '../sys/fixed-memory.ts'
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
  readonly #markMask: number
  readonly #computing = new FixedMemory(4)
  readonly #onFlow: HookRunner
  readonly #onClose: HookRunner
  readonly #onHttpRequest: HookRunner
  /** About what clients ask apps. */
  readonly questions: QuestionHook

  /** `markMask`: bits of fwmarks that are Limpid's own. */
  constructor(hooks: ReadyHooks, markMask: number, note: (line: string) => void) {
    const computing = this.#computing.words
    this.#markMask = markMask
    const { deadlineMs, mostWaiting } = hooks
    this.#hooks = hooks
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
      (outcome) => done(this.#answer(outcome)),
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
      (outcome) => {
        const answer = outcome.kind === 'failed' ? undefined : readSafely(() => readHttpAnswer(outcome.value))
        if (outcome.kind === 'failed') done(this.#failed)
        else if (typeof answer === 'string') done(this.failRequest(`it returned no answer: ${answer}`))
        else done(answer)
      },
      onLate,
    )
  }

  /** What a hook made of a request cannot be done. */
  failRequest(why: string): 'failed' | undefined {
    this.#onHttpRequest.fail(why)
    return this.#failed
  }

  /** What becomes of what a hook failed to decide; undefined: it goes on. */
  get #failed(): 'failed' | undefined {
    return this.#hooks.onFailure === 'reject' ? 'failed' : undefined
  }

  #answer(outcome: HookOutcome<unknown>): HookAnswer {
    if (outcome.kind === 'returned') {
      const decision = readReturned(outcome.value, this.#markMask, this.#hooks.apps)
      if (typeof decision !== 'string') return decision
      this.#onFlow.fail(`it returned no decision: ${decision}`)
    }
    return this.#failed
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

/** Getters of an object of theirs may throw. */
function readReturned(value: unknown, markMask: number, apps: readonly string[]): Decision | undefined | string {
  return readSafely(() => readDecision(value, markMask, apps))
}

function readSafely<T>(read: () => T): T | string {
  try {
    return read()
  } catch {
    return 'it cannot be read'
  }
}

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

import { type DnsHookDecision, readDnsDecision } from '../config/dns-hook-decision.ts'
import { recordTypeText } from '../config/dns-values.ts'
import { HookRunner, type HookRunnerOptions } from '../policy/hook-runner.ts'
import { answerOf } from './hook-answer.ts'
import { HookView } from './hook-view.ts'
import type { HookQuestion, ReadyHooks } from './hooks.ts'

/** What `onDns` makes of a question; undefined: as the rules say; `failed`: it must not go on. */
export type QuestionAnswer = DnsHookDecision | 'failed' | undefined

export type AskedQuestion = Omit<HookQuestion, 'signal' | 'type'> & { readonly type: number }

/** The hook `onDns`. */
export class QuestionHook {
  readonly runner: HookRunner
  readonly #hooks: ReadyHooks

  constructor(hooks: ReadyHooks, told: Pick<HookRunnerOptions, 'number' | 'computing' | 'note'>) {
    const { deadlineMs, mostWaiting } = hooks
    this.#hooks = hooks
    this.runner = new HookRunner({ name: 'onDns', deadlineMs, mostWaiting, ...told })
  }

  get isThere(): boolean {
    return this.#hooks.onDns !== undefined
  }

  /** `done` is told once, within this call or later; not any more after the returned function was called. */
  ask(question: AskedQuestion, done: (answer: QuestionAnswer) => void): () => void {
    const view = new QuestionView(question)
    return this.runner.run(
      () => this.#hooks.onDns?.(view),
      (outcome) => done(answerOf(outcome, DNS_DECISION, this.runner, this.#hooks)),
      () => view.abort(),
    )
  }
}

const DNS_DECISION = { called: 'decision', read: readDnsDecision }

/** What onDns sees. */
class QuestionView extends HookView implements HookQuestion {
  readonly listener: string
  readonly transport: HookQuestion['transport']
  readonly client: HookQuestion['client']
  readonly originalDst: HookQuestion['originalDst']
  readonly name: string
  readonly type: string
  readonly rule: string | undefined

  constructor({ listener, transport, client, originalDst, name, type, rule }: AskedQuestion) {
    super()
    this.listener = listener
    this.transport = transport
    this.client = { ...client } // what a hook writes there changes nothing of ours
    this.originalDst = { ...originalDst }
    this.name = name
    this.type = recordTypeText(type)
    this.rule = rule
    Object.freeze(this)
  }
}

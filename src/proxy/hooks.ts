import type { DnsDecisionWords } from '../config/dns-hook-decision.ts'
import type { DecisionWords } from '../config/hook-decision.ts'
import type { DetectedProtocol } from '../config/policy-types.ts'
import type { Protocol } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { HookRequest, HttpAnswerWords } from './http-hook.ts'
import type { FlowRecord } from './record.ts'

/** A TCP flow, or a UDP session, that the rules let go on, as `onFlow` sees it before anything is dialled. */
export interface HookFlow {
  /** The name of the listener. */
  readonly listener: string
  readonly transport: Protocol
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /** What is dialled when nothing else is decided. */
  readonly upstream: Endpoint
  /** What the first bytes are. */
  readonly protocol: DetectedProtocol
  /** Whom they are for: SNI or Host, canonical; undefined where they do not say. */
  readonly host: string | undefined
  /** Of a TLS client: the protocols that it would speak, first choice first. */
  readonly alpn: readonly string[]
  /** Names by which the client knows the original destination, from Limpid's DNS; the last learnt first. */
  readonly names: readonly string[]
  /** The policy's rule that let it go on; undefined where none matched. */
  readonly rule: string | undefined
  /** Aborted when nobody waits for the answer any more: at the deadline, or when the client has gone. For `fetch` and the like. */
  readonly signal: AbortSignal
}

/** A question of a client's that the rules let go on, as `onDns` sees it before it is looked up. */
export interface HookQuestion {
  /** The name of the listener. */
  readonly listener: string
  readonly transport: Protocol
  readonly client: Endpoint
  /** The server that the client asked. */
  readonly originalDst: Endpoint
  /** In lower case, without the dot at its end: `www.example.org`; what is no letter, digit, `-` or `_` as `\\DDD`. The root is `.`. */
  readonly name: string
  /** `A`, `AAAA`, `HTTPS` …; by number where it has no name here: `TYPE999`. */
  readonly type: string
  /** The policy's rule that let it go on; undefined where none matched. */
  readonly rule: string | undefined
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal
}

/** The user's functions. They run in the event loop of the process that relays; each worker has its own. */
export interface Hooks {
  /**
   * Asked for each TCP flow and UDP session that the rules would forward; a flow that they turn away, or bypass, is none of its business. Returns a
   * decision in the words of a rule, or undefined: as the rules say.
   */
  onFlow?(flow: HookFlow): DecisionWords | undefined | Promise<DecisionWords | undefined>
  /**
   * Asked about each question that a listener with `dns` gets and the rules let go on, before the cache. Returns what becomes of it, or
   * undefined: as the rules say. A hook that returns no promise is not waited for.
   */
  onDns?(question: HookQuestion): DnsDecisionWords | undefined | Promise<DnsDecisionWords | undefined>
  /**
   * Asked for each request of a flow that the app `http` handles and that the rules let go on, also about the later ones of a connection.
   * Returns what becomes of it, or undefined: it goes on as it is.
   */
  onHttpRequest?(request: HookRequest): HttpAnswerWords | undefined | Promise<HttpAnswerWords | undefined>
  /** Told of each flow and session when it has ended. */
  onClose?(record: FlowRecord): void | Promise<void>
  /** How long a hook may take, such as `500ms`; `1s` when left out. */
  hookDeadline?: string
  /**
   * How long hooks may compute without a pause, while all flows of the process wait, such as `5s`; `2s` when left out. Then the worker is
   * ended, with its flows, and another takes its place. `off`: no matter how long. `limpid run` alone watches: a library's own process has
   * nobody who could end it.
   */
  hookComputing?: string
  /** What becomes of a flow whose hook threw, or was late: `reject` (the default), or `forward` as the rules say. */
  onHookFailure?: 'reject' | 'forward'
  /** Calls of a hook that may be waited for at once; beyond it, it fails without being asked. 4096 when left out. */
  mostWaiting?: number
}

/** Hooks with all defaults filled in. */
export interface ReadyHooks {
  readonly onFlow: Hooks['onFlow']
  readonly onDns: Hooks['onDns']
  readonly onClose: Hooks['onClose']
  readonly onHttpRequest?: Hooks['onHttpRequest']
  readonly deadlineMs: number
  /** 0: nobody watches. */
  readonly computingMs: number
  readonly onFailure: 'reject' | 'forward'
  readonly mostWaiting: number
  /** Names of the apps that a decision may name. */
  readonly apps: readonly string[]
}

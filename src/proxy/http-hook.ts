import type { IncomingHttpHeaders } from 'node:http'
import type { Endpoint } from '../net/address.ts'

/** One HTTP/1 request that the policy lets go on, as `onHttpRequest` sees it before anything of it is sent. */
export interface HookRequest {
  /** The name of the listener. */
  readonly listener: string
  readonly client: Endpoint
  readonly originalDst: Endpoint
  readonly method: string
  /** The request's target as it was sent, neither decoded nor normalised. */
  readonly url: string
  /** Whom it is for, canonical: of Host, or of the target; undefined where an address stands there, or nothing. */
  readonly host: string | undefined
  /** `1.0` or `1.1`. */
  readonly version: string
  /** By names in lower case, as node:http gives them. A copy. */
  readonly headers: Readonly<IncomingHttpHeaders>
  /** Name, value, name, value … as they were sent. A copy. */
  readonly rawHeaders: readonly string[]
  /** Names by which the client knows the original destination, from Limpid's DNS; the last learnt first. */
  readonly names: readonly string[]
  /** The rule that gave the flow to the app, or `onFlow`. */
  readonly rule: string | undefined
  /** Aborted when nobody waits for the answer any more. For `fetch` and the like. */
  readonly signal: AbortSignal
}

/** What `onHttpRequest` makes of a request. */
export type HttpAnswerWords =
  /** The client gets this in its place: status 403 and a line of text when left out. `headers`: of the answer. */
  | {
      readonly then: 'reject'
      readonly status?: number
      readonly body?: string
      readonly headers?: Readonly<Record<string, string | string[]>>
      readonly url?: never
      readonly host?: never
      readonly remove?: never
    }
  /**
   * It goes on, changed: `headers` are put in the place of those of the same name, which `remove` takes away. `url`: another path and query.
   * `host`: what Host says; the flow goes to the same server.
   */
  | {
      readonly then: 'forward'
      readonly url?: string
      readonly host?: string
      readonly headers?: Readonly<Record<string, string | string[]>>
      readonly remove?: readonly string[]
      readonly status?: never
      readonly body?: never
    }

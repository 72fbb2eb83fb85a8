import type { Socket } from 'node:net'
import type { DetectedProtocol } from '../config/policy-types.ts'
import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { Finding, FlowLink } from '../policy/facts.ts'
import type { FlowHooks } from './flow-hooks.ts'
import type { ReadyHooks } from './hooks.ts'
import type { Questions } from './questions.ts'
import type { SourceUsed } from './record.ts'

/** A datagram of a client, before there is a session for it. `bytes` is only valid during the call, and may be changed in place. */
export interface ClientDatagram {
  readonly bytes: Uint8Array
  /** Made when it is asked for. */
  readonly client: Endpoint
  /** Made when it is asked for. */
  readonly originalDst: Endpoint
  /** Made when it is asked for; undefined where no rule asks by which link clients come. */
  readonly link?: FlowLink | undefined
  /**
   * Keeps a copy, for a decision that comes later; the one of now is `held` then. Undefined: as much is kept as may be. `onForgotten`:
   * called when its listener is closed before.
   */
  hold(onForgotten: () => void): HeldDatagram | undefined
}

export interface HeldDatagram {
  /** Once. `decide` is asked about the datagram as if it came now. */
  settle(decide: (datagram: ClientDatagram) => DatagramDecision): void
}

export type DatagramDecision =
  /** `to`: instead of what the listener says, or the original destination. */
  | { readonly kind: 'forward'; readonly to: Endpoint | undefined }
  /** Sent to the client at once; the app may use the buffer again after its next call. */
  | { readonly kind: 'reply'; readonly bytes: Uint8Array }
  /** See ClientDatagram.hold(). */
  | { readonly kind: 'held' }
  /** From a closed list of the app's. */
  | { readonly kind: 'drop'; readonly reason: string }

/** What an app knows of a session. */
export interface AppSession {
  readonly client: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  readonly source: SourceUsed
  /** The app's own. */
  state: unknown
}

/** A protocol of datagrams that Limpid speaks itself. */
export interface DatagramApp {
  decide(datagram: ClientDatagram): DatagramDecision
  /** The datagram that decide() let go on is about to be sent to the session's upstream. May change it in place. False: it is not sent. */
  onSend(session: AppSession, bytes: Uint8Array): boolean
  /** A datagram of the upstream. May change it in place. How many of its bytes go on to the client; -1: it does not. */
  onReceive(session: AppSession, bytes: Uint8Array): number
  /** Nobody takes datagrams there (ICMP), or there is no way to it. */
  onUnreachable(upstream: Endpoint): void
  onSessionEnd(session: AppSession): void
}

/** What the policy says of something that a client asks for within a flow. */
export type Judgement =
  /** It lets it go on, the way that the flow goes. */
  | { readonly kind: 'go-on' }
  /** It would let it go on, by another way: as a flow of its own. */
  | { readonly kind: 'elsewhere' }
  /** `rule`: undefined where none matched. */
  | { readonly kind: 'reject'; readonly rule: string | undefined }

/** A flow that an app serves. */
export interface HandledFlow {
  /** The name of the listener. */
  readonly listener: string
  readonly clientAddr: Endpoint
  readonly originalDst: Endpoint
  /** By which link the client came; undefined where no rule asks about it. */
  readonly link?: FlowLink | undefined
  /** What the first bytes are, where a rule or hook asked; undefined: nobody has looked. */
  readonly protocol: DetectedProtocol | undefined
  /** Whom the first bytes are for: SNI or Host, canonical; undefined where they do not say, or nobody has looked. */
  readonly host: string | undefined
  /** Names by which the client knows the original destination, from Limpid's DNS; the last learnt first. */
  readonly names: readonly string[]
  /** The policy's rule that gave it to the app, or `onFlow`. */
  readonly rule: string | undefined
  /** Aborted when the flow is ended: by a timeout, or because Limpid stops. */
  readonly signal: AbortSignal
  /**
   * Opens an upstream with the flow's source, mark and DSCP; left out, to where the rule or the listener says. Half-open connections are
   * allowed. It is destroyed with the flow. Rejects with LimpidError, by which the flow ends when the app lets it pass.
   */
  dial(to?: Endpoint): Promise<Socket>
  /** Asks the policy of this moment about what a client says later than first: each request, each name. `host`: canonical; it is compared
   * with the address as `hostCheck` says. */
  judge(finding: Finding): Promise<Judgement>
}

/** Handles the streams of flows in place of the relay. */
export interface StreamApp {
  /**
   * `client`: nothing was read of it; half-open connections are allowed. The flow ends when this settles: with reason `closed`, when
   * what was end()ed has been sent; or where it rejects, with that of the socket's error, of the failed dial, or `app-failed`. Both sides'
   * sockets are destroyed then, on every path.
   */
  serve(client: Socket, flow: HandledFlow): Promise<void>
}

/** Names that clients have learnt by DNS. */
export interface NameSource {
  /** Those by which a client knows the address of a server, the one learnt last first. `nowMs`: monotonic. */
  namesOf(clientAddress: string, serverAddress: string, nowMs: number): readonly string[]
}

/** What a proxy has beyond the relay: handlers for some flows, the names that it learns, and the user's functions. */
export interface Apps {
  readonly hooks?: ReadyHooks | undefined
  readonly names?: NameSource
  /** Undefined: the listener's flows are relayed as they are. `questions`: whom the app asks about what its clients ask. */
  appOf(listener: ListenerConfig, questions: Questions): App | undefined
  /** Those to which rules and hooks give flows, by name. `hooks`: those of the proxy that it is for. */
  named?(hooks: FlowHooks | undefined): ReadonlyMap<string, App>
}

/** Handles the flows of a listener instead of passing them on as they are. */
export interface App {
  readonly datagrams?: DatagramApp
  readonly streams?: StreamApp
  /** Counters since it was made. */
  stats(): Readonly<Record<string, number>>
}

import type { Socket } from 'node:net'
import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { FlowLink } from '../policy/facts.ts'
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

/** A stream that an app handles itself. It owns `client`, and resolves when it is over and all sockets are closed. */
export interface StreamApp {
  serve(
    client: Socket,
    flow: {
      readonly clientAddr: Endpoint
      readonly originalDst: Endpoint
      readonly link?: FlowLink | undefined
      /** Opens the upstream with the flow's source. Rejects with LimpidError. */
      dial(to: Endpoint | undefined): Promise<Socket>
    },
  ): Promise<void>
}

/** Names that clients have learnt by DNS. */
export interface NameSource {
  /** Those by which a client knows the address of a server, the one learnt last first. `nowMs`: monotonic. */
  namesOf(clientAddress: string, serverAddress: string, nowMs: number): readonly string[]
}

/** What a proxy has beyond the relay: a handler for some listeners, the names that it learns, and the user's functions. */
export interface Apps {
  readonly hooks?: ReadyHooks | undefined
  readonly names?: NameSource
  /** Undefined: the listener's flows are relayed as they are. `questions`: whom the app asks about what its clients ask. */
  appOf(listener: ListenerConfig, questions: Questions): App | undefined
}

/** Handles the flows of a listener instead of passing them on as they are. */
export interface App {
  readonly datagrams?: DatagramApp
  readonly streams?: StreamApp
  /** Counters since it was made. */
  stats(): Readonly<Record<string, number>>
}

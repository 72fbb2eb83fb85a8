import type { Endpoint } from '../net/address.ts'

/** A datagram of a client, before there is a session for it. `bytes` is only valid during the call, and may be changed in place. */
export interface ClientDatagram {
  readonly bytes: Uint8Array
  readonly client: Endpoint
  readonly originalDst: Endpoint
} // client and originalDst are lazy getters: ask only when needed

export type DatagramDecision =
  | { readonly kind: 'forward'; readonly to: Endpoint | undefined } // undefined: where the listener says, else the original destination
  | { readonly kind: 'reply'; readonly bytes: Uint8Array } // sent to the client at once; the app may reuse the buffer after the call that gave it
  | { readonly kind: 'drop'; readonly reason: string } // from a closed list; counted by reason

export interface AppSession {
  readonly client: Endpoint
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
  readonly source: 'proxy' | 'client' | 'client-port' | 'address'
  state: unknown
}

export interface DatagramApp {
  decide(datagram: ClientDatagram): DatagramDecision
  /** The datagram that decide() let go on is about to be sent to the session's upstream. May change it in place. False: it is not sent (counted as dropped by the app). */
  onSend(session: AppSession, bytes: Uint8Array): boolean
  /** A datagram of the upstream. May change it in place. False: it does not go on to the client. */
  onReceive(session: AppSession, bytes: Uint8Array): boolean
  onSessionEnd(session: AppSession): void
}

/** A stream that the app handles itself; owns `client`. Resolves when it is over, with the bytes moved. */
export interface StreamApp {
  serve(
    client: import('node:net').Socket,
    flow: {
      readonly clientAddr: Endpoint
      readonly originalDst: Endpoint
      dial(to: Endpoint | undefined): Promise<import('node:net').Socket>
    },
  ): Promise<void>
}

export interface App {
  readonly datagrams?: DatagramApp
  readonly streams?: StreamApp
  stats(): Readonly<Record<string, number>>
}

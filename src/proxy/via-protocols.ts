import type { Via } from '../config/policy-types.ts'
import { proxyV1, proxyV2 } from '../inspect/proxy-protocol-write.ts'
import type { Endpoint } from '../net/address.ts'
import { connectConversation } from './via-connect.ts'
import type { Conversation } from './via-conversation.ts'
import { socksConversation } from './via-socks.ts'

/** Of a flow that is to go via a proxy. */
export interface ViaRoute {
  readonly client: Endpoint
  readonly originalDst: Endpoint
  /** What the proxy is asked for. */
  readonly destination: Endpoint
  /** The name by which the client knows that; undefined: none is known. */
  readonly host: string | undefined
}

const HOST = /^[\w-]{1,63}(?:\.[\w-]{1,63})*$/ // what a client or a server has named is not for us to hand on as it is
const MAX_HOST_BYTES = 253

export function conversationFor(via: Via, route: ViaRoute): Conversation {
  if (via.kind === 'proxy-protocol') {
    const opening = via.version === 1 ? proxyV1(route) : proxyV2(route)
    return { opening, next: () => ({ kind: 'open', used: 0 }) } // nobody answers
  }
  const { address, port } = route.destination
  const host = via.names ? route.host?.replace(/\.$/, '') : undefined
  const isName = host !== undefined && host.length <= MAX_HOST_BYTES && HOST.test(host)
  const target = { host: isName ? host : undefined, address, port }
  return via.kind === 'socks5'
    ? socksConversation(target, via.credentials)
    : connectConversation(target, via.credentials)
}

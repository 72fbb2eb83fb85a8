import { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { EPOLLOUT } from '../sys/loop.ts'
import { refusalOf } from './admission.ts'
import type { StreamApp } from './app.ts'
import type { ProxyContext } from './context.ts'
import { dial } from './dial.ts'
import { DIAL_CODES } from './dial-tcp.ts'
import type { Flow } from './flow.ts'
import type { CloseReason } from './record.ts'

/** Lets an app serve a flow's client, and takes the flow's descriptor. Resolves with why it ended; never rejects. */
export async function serveStream(flow: Flow, app: StreamApp, context: ProxyContext): Promise<CloseReason> {
  const link = flow.link()
  context.resources.loop.remove(flow.watch)
  const client = new Socket({ fd: flow.watch.fd, readable: true, writable: true, allowHalfOpen: true })
  const opened = new Set<Socket>()
  flow.abandon = () => {
    for (const socket of [client, ...opened]) socket.resetAndDestroy()
  }
  const dialFor = async (to: Endpoint | undefined): Promise<Socket> => {
    const socket = await dialStream(flow, to ?? flow.upstream, context)
    opened.add(socket.once('close', () => opened.delete(socket)))
    if (flow.isStopping) socket.destroy()
    return socket
  }
  try {
    await app.serve(client, { clientAddr: flow.client, originalDst: flow.originalDst, link, dial: dialFor })
    return flow.isStopping ? 'shutdown' : 'closed'
  } catch {
    return 'app-failed' // its own counters and notes say more
  } finally {
    flow.abandon = undefined
    for (const socket of [client, ...opened]) socket.destroy()
    flow.served = { bytesClientToUpstream: client.bytesRead, bytesUpstreamToClient: client.bytesWritten }
  }
}

/** The upstream that an app asked for, with the flow's source. @throws LimpidError by the outcome of the dial. */
async function dialStream(flow: Flow, to: Endpoint, context: ProxyContext): Promise<Socket> {
  const { resources, counters, mark, ports } = context
  const { listener, client, reached, originalDst, source } = flow
  if (refusalOf({ listener, client, reached, originalDst, upstream: to, source }, context) !== undefined) {
    throw new LimpidError('LIMPID_DIAL_FAILED', `cannot dial ${formatEndpoint(to)}: it would be a loop`, {
      cure: 'dial another server',
    })
  }
  const { connectMs } = listener.timeouts
  const options = { source, mark, connectMs, deadPeerMs: 0, first: undefined, ports, events: EPOLLOUT }
  const dialled = await dial(to, options, resources.loop, counters)
  if (dialled.kind === 'failed') {
    throw new LimpidError(DIAL_CODES[dialled.reason], `cannot dial ${formatEndpoint(to)}: ${dialled.reason}`)
  }
  flow.sourceUsed ??= dialled.source
  flow.sourceAddr ??= dialled.sourceAddr
  return new Socket({ fd: dialled.fd, readable: true, writable: true, allowHalfOpen: true })
}

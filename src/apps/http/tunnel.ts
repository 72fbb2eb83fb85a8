import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import type { HttpConnection } from './connection.ts'
import type { Asked } from './decide.ts'
import { fieldsOf } from './fields.ts'
import { requestFor, sendAnswer } from './forward.ts'
import { page, sendPage } from './page.ts'

/** Protocols to which a connection may change; after others, such as h2c, requests would come that nobody decides. */
const MAY_UPGRADE: ReadonlySet<string> = new Set(['websocket'])

type Connection = Pick<HttpConnection, 'client' | 'flow' | 'counters' | 'upstream'>

/** `connect`, or the protocol that the client would change to; undefined: the request is one as others are. */
export function tunnelProtocol({ method, headers }: IncomingMessage): string | undefined {
  if (method === 'CONNECT') return 'connect'
  const protocol = headers.upgrade?.toLowerCase()
  return protocol !== undefined && MAY_UPGRADE.has(protocol) ? protocol : undefined
}

/**
 * Sends the request on; where the server agrees, all that follows goes both ways as it is. Resolves when that is over. `head`: bytes that
 * came behind the request. `responseTo`: for another answer, after which the connection is closed.
 */
export async function tunnel(
  req: IncomingMessage,
  head: Buffer,
  asked: Asked,
  connection: Connection,
  responseTo: (req: IncomingMessage) => ServerResponse,
): Promise<void> {
  const { client, counters } = connection
  const protocol = tunnelProtocol(req)!
  const isConnect = protocol === 'connect'
  const hop = isConnect ? {} : { option: 'Upgrade', upgrade: req.headers.upgrade! }
  const upstream = requestFor(req, asked, connection, hop)
  upstream.end()
  client.once('close', () => upstream.destroy())
  const answer = await answerOf(upstream)
  if (answer === undefined) {
    counters.unanswered++
    sendPage(responseTo(req), page(502, 'Bad Gateway', true))
    return
  }
  const { message, socket, rest } = answer
  const isAgreed = isConnect ? isSuccess(message) : message.statusCode === 101
  if (socket === undefined) return await sendAnswer(message, req, responseTo(req))
  if (isAgreed && !isConnect && message.headers.upgrade?.toLowerCase() !== protocol) {
    client.resetAndDestroy() // to what the client did not ask for
    return
  }
  client.write(headText(message), 'latin1')
  if (!isAgreed) return await pipeline(socket, client) // a refusal of CONNECT
  counters.upgrades++
  if (rest.length > 0) client.write(rest)
  if (head.length > 0) socket.write(head)
  for (const one of [client, socket]) one.setMaxListeners(20) // two pipelines, beside those of node:http
  await Promise.all([pipeline(client, socket), pipeline(socket, client)])
}

interface Answer {
  readonly message: IncomingMessage
  /** Undefined: an answer as others are, whose body is the message's. */
  readonly socket: Socket | undefined
  readonly rest: Buffer
}

function answerOf(upstream: ClientRequest): Promise<Answer | undefined> {
  return new Promise((resolve) => {
    const agreed = (message: IncomingMessage, socket: Socket, rest: Buffer): void => resolve({ message, socket, rest })
    upstream.once('upgrade', agreed)
    upstream.once('connect', agreed)
    upstream.once('response', (message) => resolve({ message, socket: undefined, rest: Buffer.alloc(0) }))
    upstream.on('error', () => resolve(undefined))
  })
}

function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300
}

function headText({ statusCode, statusMessage, rawHeaders }: IncomingMessage): string {
  const lines = fieldsOf(rawHeaders).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${statusCode} ${statusMessage}\r\n${lines.join('')}\r\n`
}

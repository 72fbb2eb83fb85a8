import { type ClientRequest, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { formatEndpoint } from '../../net/address.ts'
import type { HttpConnection } from './connection.ts'
import type { Asked } from './decide.ts'
import { endToEnd, type Fields, fieldsOf, firstOf } from './fields.ts'
import { page, sendPage } from './page.ts'

const MAX_ANSWER_HEAD_BYTES = 65_536 // cookies; servers are trusted with more than clients

type Connection = Pick<HttpConnection, 'client' | 'flow' | 'counters' | 'upstream'>

/** Sends a request on, and its answer back; both bodies flow as fast as they are taken. Resolves when the answer has been written. */
export async function forward(
  req: IncomingMessage,
  res: ServerResponse,
  asked: Asked,
  connection: Connection,
): Promise<void> {
  const isLast = !res.shouldKeepAlive
  const upstream = requestFor(req, asked, connection, isLast ? { option: 'close' } : {})
  res.once('close', () => {
    if (!res.writableFinished) upstream.destroy() // the client has gone
  })
  if (req.httpVersion !== '1.0') {
    upstream.on('continue', () => res.writeContinue())
    upstream.on('information', ({ statusCode, headers }) => {
      if (statusCode === 102) res.writeProcessing()
      else if (statusCode === 103 && headers.link !== undefined) sendHints(res, headers)
    })
  }
  const answered = new Promise<IncomingMessage | Error>((resolve) => {
    upstream.once('response', resolve)
    upstream.on('error', resolve)
    upstream.once('close', () => resolve(new Error('closed without an answer'))) // such as 101, which nobody asked for
  })
  sendBody(req, upstream)
  const answer = await answered
  if (answer instanceof Error) return giveUp(req, res, upstream, answer, connection)
  await sendAnswer(answer, req, res)
}

/** Of this request's head, with the fields in their order and case. `option`: of Connection; `upgrade`: to what. */
export function requestFor(
  req: IncomingMessage,
  { url, fields }: Asked,
  { flow, upstream: agent }: Connection,
  { option, upgrade }: { readonly option?: string; readonly upgrade?: string },
): ClientRequest {
  const upstream = request({
    agent,
    method: req.method!,
    path: url,
    host: 'upstream', // the agent asks nobody where that is
    setHost: false,
    maxHeaderSize: MAX_ANSWER_HEAD_BYTES,
  })
  for (const name of ['connection', 'transfer-encoding', 'content-length']) upstream.removeHeader(name) // none of Node's own
  const wanted = [...endToEnd(fields)]
  if (firstOf(fields, 'host') === undefined) wanted.unshift(['Host', formatEndpoint(flow.originalDst)]) // of HTTP/1.0; we speak 1.1
  const wantsTrailers = /(?:^|,)\s*trailers\s*(?:$|[,;])/i.test(firstOf(fields, 'te') ?? '')
  if (wantsTrailers) wanted.push(['TE', 'trailers']) // they are passed on
  const options = [...(wantsTrailers ? ['TE'] : []), ...(option === undefined ? [] : [option])]
  if (upgrade !== undefined) wanted.push(['Upgrade', upgrade])
  if (options.length > 0) wanted.push(['Connection', options.join(', ')])
  for (const [name, values] of grouped(wanted)) upstream.setHeader(name, values)
  upstream.flushHeaders()
  return upstream
}

/** By name, in the order of the first of each. */
function grouped(fields: Fields): Iterable<[string, string | string[]]> {
  const groups = new Map<string, [string, string | string[]]>()
  for (const [name, value] of fields) {
    const group = groups.get(name.toLowerCase())
    if (group === undefined) groups.set(name.toLowerCase(), [name, value])
    else group[1] = [group[1], value].flat()
  }
  return groups.values()
}

/** Not by pipeline(): an answer that comes before all is sent must reach the client, and pipeline() would end its socket. */
function sendBody(req: IncomingMessage, upstream: ClientRequest): void {
  req.on('error', () => upstream.destroy())
  req.once('end', () => {
    if (upstream.destroyed) return
    const trailers = trailersOf(req)
    if (trailers.length > 0) upstream.addTrailers(trailers)
    upstream.end()
  })
  upstream.once('close', () => {
    req.unpipe(upstream)
    req.resume() // what nobody takes any more, until the parser finds the next request
  })
  req.pipe(upstream, { end: false })
}

/** Resolves when it has been written. The answer's form of its body is kept where the client knows it. */
export async function sendAnswer(answer: IncomingMessage, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const isOld = req.httpVersion === '1.0'
  const sent = fieldsOf(answer.rawHeaders)
  const isChunked = firstOf(sent, 'transfer-encoding') !== undefined && !isOld
  const hasLength = firstOf(sent, 'content-length') !== undefined
  const isWithoutBody = req.method === 'HEAD' || answer.statusCode === 204 || answer.statusCode === 304
  if (!isChunked) res.removeHeader('transfer-encoding') // none of Node's own
  if (!isChunked && !hasLength && !isWithoutBody) res.shouldKeepAlive = false // it ends with the connection
  if (/\bclose\b/i.test(answer.headers.connection ?? '')) res.shouldKeepAlive = false
  if (res.shouldKeepAlive && !isOld) res.removeHeader('connection')
  const gone = new Set([...(isOld ? ['transfer-encoding'] : []), ...(isChunked ? [] : ['trailer'])])
  const fields = endToEnd(sent).filter(([name]) => !gone.has(name.toLowerCase()))
  res.writeHead(answer.statusCode!, answer.statusMessage, fields.flat())
  res.flushHeaders()
  await pipeline(answer, res, { end: false }) // its error resets the client: it must not take what it had for all
  const trailers = isChunked ? trailersOf(answer) : []
  if (trailers.length > 0) res.addTrailers(trailers)
  res.end()
}

function trailersOf({ rawTrailers }: IncomingMessage): [string, string][] {
  return fieldsOf(rawTrailers).map(([name, value]) => [name, value])
}

function sendHints(res: ServerResponse, headers: IncomingMessage['headers']): void {
  try {
    res.writeEarlyHints({ link: headers.link as string })
  } catch {
    // Node does not take every Link; a hint may be left out
  }
}

/** There is no answer. */
function giveUp(
  req: IncomingMessage,
  res: ServerResponse,
  upstream: ClientRequest,
  error: Error & { readonly code?: string },
  { client, counters }: Connection,
): void {
  if (client.destroyed || res.headersSent) return void client.resetAndDestroy()
  counters.unanswered++
  // closed between two requests: the client finds it so without us, and may ask again on another connection
  if (upstream.reusedSocket || error.message === 'its connection is over') return void client.resetAndDestroy()
  req.resume()
  const isLate = error.code === 'LIMPID_DIAL_TIMEOUT'
  sendPage(res, isLate ? page(504, 'Gateway Timeout', true) : page(502, 'Bad Gateway', true))
}

import type { IncomingMessage } from 'node:http'
import type { HttpAnswer } from '../../config/http-answer.ts'
import type { HookRequest } from '../../proxy/http-hook.ts'
import type { HttpConnection } from './connection.ts'
import { changed, type Fields, fieldsOf, headOf } from './fields.ts'
import { type Page, page } from './page.ts'

/** A request that goes on, as it is to be sent. */
export interface Asked {
  readonly kind: 'request'
  readonly url: string
  readonly fields: Fields
}

type Connection = Pick<HttpConnection, 'client' | 'flow' | 'hooks' | 'counters'>

/** Asks the policy, then the hook. */
export async function decideRequest(req: IncomingMessage, connection: Connection): Promise<Asked | Page> {
  const { flow, hooks, counters } = connection
  const fields = fieldsOf(req.rawHeaders)
  const head = headOf(req, fields)
  if (typeof head === 'string') {
    counters.malformed++
    return page(400, `Bad Request: ${head}`, true)
  }
  const judged = await flow.judge({ protocol: 'http1', host: head.host, address: head.address })
  if (judged.kind === 'reject') {
    counters.refused++
    return forbidden(judged.rule)
  }
  if (judged.kind === 'elsewhere') {
    counters.misdirected++
    return page(421, 'Misdirected Request: not over this connection', true) // RFC 9110 §15.5.20: the client may open another
  }
  const asIs: Asked = { kind: 'request', url: req.url!, fields }
  if (hooks?.decidesRequests !== true) return asIs
  const answer = await askHook(req, head.host, connection)
  if (answer === undefined) return asIs
  if (answer === 'failed' || answer.then === 'reject') {
    counters.refusedByHook++
    return answer === 'failed' ? page(503, 'Service Unavailable') : rejection(answer)
  }
  const wanted = asChanged(asIs, answer)
  const why = headOf({ ...req, method: req.method, url: wanted.url, httpVersion: req.httpVersion }, wanted.fields)
  if (typeof why !== 'string') return wanted
  if (hooks.failRequest(`what it changed is no request: ${why}`) === undefined) return asIs
  counters.refusedByHook++
  return page(503, 'Service Unavailable')
}

function forbidden(rule: string | undefined): Page {
  const by = rule === undefined ? '' : ` (rule ${rule})`
  return page(403, `Forbidden: the policy of this network does not allow it${by}.`)
}

function rejection({ status = 403, body, headers = {} }: HttpAnswer): Page {
  const answer = status === 403 && body === undefined ? forbidden('onHttpRequest') : page(status, 'Refused')
  return { ...answer, body: body ?? answer.body, headers }
}

function asChanged({ url, fields }: Asked, { url: other = url, host, headers = {}, remove = [] }: HttpAnswer): Asked {
  const set = host === undefined ? headers : { ...headers, Host: host }
  return { kind: 'request', url: other, fields: changed(fields, set, remove) }
}

function askHook(
  req: IncomingMessage,
  host: string | undefined,
  { client, flow, hooks }: Connection,
): Promise<HttpAnswer | 'failed' | undefined> {
  const controller = new AbortController()
  const request: HookRequest = Object.freeze({
    listener: flow.listener,
    client: { ...flow.clientAddr },
    originalDst: { ...flow.originalDst },
    method: req.method!,
    url: req.url!,
    host,
    version: req.httpVersion,
    headers: { ...req.headers },
    rawHeaders: [...req.rawHeaders],
    names: flow.names,
    rule: flow.rule,
    signal: controller.signal,
  })
  return new Promise((resolve) => {
    let stop = (): void => {}
    const gone = (): void => {
      stop()
      resolve('failed')
    }
    client.once('close', gone)
    stop = hooks!.askRequest(
      request,
      (answer) => {
        client.off('close', gone)
        resolve(answer)
      },
      () => controller.abort(),
    )
  })
}

import type { ServerResponse } from 'node:http'

/** An answer of our own. */
export interface Page {
  readonly kind: 'page'
  readonly status: number
  readonly body: string
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  /** No further request is read from the connection. */
  readonly isLast: boolean
}

/** `text`: one line, for people. */
export function page(status: number, text: string, isLast = false): Page {
  return { kind: 'page', status, body: `${status} ${text}\n`, headers: {}, isLast }
}

export function sendPage(res: ServerResponse, { status, body, headers, isLast }: Page): void {
  if (isLast) res.shouldKeepAlive = false
  const own = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }
  for (const [name, value] of Object.entries({ ...own, ...headers })) res.setHeader(name, value)
  if (res.shouldKeepAlive && res.req.httpVersion !== '1.0') res.removeHeader('connection')
  const hasBody = status !== 204 && status !== 304
  if (hasBody) res.setHeader('content-length', Buffer.byteLength(body))
  res.statusCode = status
  res.end(hasBody ? body : undefined)
}

import { Socket } from 'node:net'

const LINGER_MS = 2_000 // for a client that goes on sending its request; a reset would take the page away from it

/** Answers an HTTP/1 client with status 403 (RFC 9110 §15.5.4), and takes its socket. Resolves when that is closed. */
export function forbid(fd: number, rule: string | undefined): { readonly closed: Promise<void>; abandon(): void } {
  const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true })
  const body = `403 Forbidden: the policy of this network does not allow it${rule === undefined ? '' : ` (rule ${rule})`}.\n`
  const head = [
    'HTTP/1.1 403 Forbidden',
    'content-type: text/plain; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    'cache-control: no-store',
    'connection: close',
  ]
  const timer = setTimeout(() => socket.resetAndDestroy(), LINGER_MS)
  const closed = new Promise<void>((resolve) => {
    socket.on('error', () => {}) // the client is gone
    socket.once('end', () => socket.destroy())
    socket.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
  })
  socket.resume()
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
  return { closed, abandon: () => socket.resetAndDestroy() }
}

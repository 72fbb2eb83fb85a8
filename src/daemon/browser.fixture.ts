import type { ChildProcess } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import type { Host } from '../lab/host.ts'

const ANSWER_MS = 20_000
const NUL = 0

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Record<string, unknown>
  readonly result?: Record<string, unknown>
  readonly error?: { readonly message: string }
  readonly sessionId?: string
}

/** What became of a page: its text and the protocol that brought it (`http/1.1`, `h2`, `h3`), or why there is none. */
export type Page = { readonly text: string; readonly protocol: string } | { readonly failure: string }

/**
 * Chromium without a window on a host, told by the DevTools protocol over pipes: messages of JSON, each behind it a NUL
 * (--remote-debugging-pipe).
 */
export class Browser {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (message: Message) => void>()
  readonly #listeners = new Set<(message: Message) => void>()
  #lastId = 0
  #sessionId: string | undefined

  private constructor(child: ChildProcess) {
    this.#child = child
    let rest = Buffer.alloc(0)
    this.#pipe(4).on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      for (let end = rest.indexOf(NUL); end >= 0; end = rest.indexOf(NUL)) {
        this.#take(JSON.parse(rest.toString('utf8', 0, end)) as Message)
        rest = rest.subarray(end + 1)
      }
    })
    this.#pipe(3).on('error', () => {}) // it may be gone; then nothing is answered
  }

  /** `folder` is for its profile, and has the certificate `cert.pem` that it trusts. With `quic`, origins as `host:port` that it asks by QUIC alone. */
  static async open(host: Host, folder: string, quic: readonly string[]): Promise<Browser> {
    const key = new X509Certificate(readFileSync(join(folder, 'cert.pem'))).publicKey.export({
      type: 'spki',
      format: 'der',
    })
    const args = [
      ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--remote-debugging-pipe'],
      ...['--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
      ...['--no-proxy-server', '--disable-extensions', `--user-data-dir=${join(folder, 'profile')}`, '--enable-quic'],
      `--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`,
      `--origin-to-force-quic-on=${quic.join()}`,
      'about:blank',
    ]
    const child = host.spawn('chromium', args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
    const browser = new Browser(child)
    const { targetId } = await browser.#ask('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await browser.#ask('Target.attachToTarget', { targetId, flatten: true })
    browser.#sessionId = sessionId as string
    await browser.#ask('Page.enable')
    return browser
  }

  /** Goes to a page, and reads it. */
  async visit(url: string): Promise<Page> {
    const loaded = this.#event('Page.loadEventFired')
    const { errorText } = await this.#ask('Page.navigate', { url })
    if (errorText !== undefined) return { failure: errorText as string }
    await loaded
    const expression = `JSON.stringify({
      text: document.body.innerText,
      protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol,
    })`
    const { result } = await this.#ask('Runtime.evaluate', { expression })
    return JSON.parse((result as { value: string }).value) as Page
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await ended
  }

  #pipe(fd: 3): Writable
  #pipe(fd: 4): Readable
  #pipe(fd: 3 | 4): unknown {
    return this.#child.stdio[fd]
  }

  #take(message: Message): void {
    if (message.id === undefined) for (const listener of this.#listeners) listener(message)
    else this.#waiting.get(message.id)?.(message)
  }

  async #ask(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.#lastId
    const session = this.#sessionId === undefined ? {} : { sessionId: this.#sessionId }
    const answered = inTime<Message>(`answer to ${method}`, (resolve) => this.#waiting.set(id, resolve))
    this.#pipe(3).write(`${JSON.stringify({ id, method, params, ...session })}\0`)
    const { result, error } = await answered
    this.#waiting.delete(id)
    if (error !== undefined) throw new Error(`chromium: ${method}: ${error.message}`)
    return result!
  }

  #event(method: string): Promise<void> {
    return inTime<void>(method, (resolve) => {
      const listener = (message: Message) => {
        if (message.method !== method) return
        this.#listeners.delete(listener)
        resolve()
      }
      this.#listeners.add(listener)
    }).catch(() => {})
  }
}

function inTime<T>(what: string, begin: (resolve: (value: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`chromium: no ${what} within ${ANSWER_MS} ms`)), ANSWER_MS)
    begin((value) => {
      clearTimeout(timer)
      resolve(value)
    })
  })
}

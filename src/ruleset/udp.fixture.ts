import { createSocket, type Socket } from 'node:dgram'
import { DEFAULT_RULES } from '../config/defaults.ts'
import type { Host } from '../lab/host.ts'
import { PATIENCE_MS } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import { ffi } from '../sys/ffi.ts'
import { setIpv6Only, setMark, setReuseAddress, setTransparent } from '../sys/options.ts'
import { encodeSockaddr } from '../sys/sockaddr.ts'
import { bindSocket, localEndpoint, openUdp, startConnect, transmit } from '../sys/socket.ts'

/** For what must not come. */
export const SILENT_MS = 400

export interface DatagramOptions {
  /** The host that it belongs to; this process's own namespace when left out. */
  readonly on?: Host
  readonly transparent?: boolean
  readonly mark?: number
  /** Takes datagrams from there alone, and sends there. */
  readonly to?: Endpoint
}

/** A UDP socket of a test. What it receives, or the error that it gets, waits until it is asked for. */
export class Datagrams {
  readonly #fd: number
  readonly #socket: Socket
  readonly #heard: { text: string; from: Endpoint | undefined }[] = []
  #wake: () => void = () => {}

  constructor(at: Endpoint, { on, transparent, mark, to }: DatagramOptions = {}) {
    const family = familyOf(at.address)
    const open = () => openUdp(family)
    this.#fd = on === undefined ? open() : on.inside(open)
    setReuseAddress(this.#fd)
    if (family === 6) setIpv6Only(this.#fd)
    if (transparent === true) setTransparent(this.#fd, family)
    if (mark !== undefined) setMark(this.#fd, mark)
    bindSocket(this.#fd, at)
    const errno = to === undefined ? 0 : startConnect(this.#fd, to)
    if (errno !== 0) throw new Error(`connect: errno ${errno}`)
    this.#socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6' }).bind({ fd: this.#fd })
    this.#socket.on('message', (bytes, { address, port }) => this.#hear(bytes.toString(), { address, port }))
    this.#socket.on('error', (error: NodeJS.ErrnoException) => this.#hear(error.code ?? error.message, undefined))
  }

  get local(): Endpoint {
    return localEndpoint(this.#fd)
  }

  #hear(text: string, from: Endpoint | undefined): void {
    this.#heard.push({ text, from })
    this.#wake()
  }

  send(text: string, to?: Endpoint): void {
    const bytes = Buffer.from(text)
    if (to === undefined) {
      transmit(this.#fd, bytes, bytes.length)
      return
    }
    const address = encodeSockaddr(to)
    ffi.sendto(this.#fd, bytes, bytes.length, 0, address, address.length)
  }

  /** `TEXT from ADDRESS:PORT`, an errno's name, or `silence`. */
  async next(withinMs = PATIENCE_MS): Promise<string> {
    const { text, from } = (await this.#take(withinMs)) ?? { text: 'silence', from: undefined }
    return from === undefined ? text : `${text} from ${formatEndpoint(from)}`
  }

  /** Answers what comes first, and says what it was and from whom. */
  async answer(text: string): Promise<string> {
    const heard = await this.#take(PATIENCE_MS)
    if (heard?.from === undefined) return heard?.text ?? 'silence'
    this.send(text, heard.from)
    return `${heard.text} from ${formatEndpoint(heard.from)}`
  }

  async #take(withinMs: number) {
    if (this.#heard.length === 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, withinMs)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    return this.#heard.shift()
  }

  /** Answers whatever comes with `server saw PEER`. */
  serve(): this {
    this.#socket.removeAllListeners('message').on('message', (_, { address, port }) => {
      this.send(`server saw ${formatEndpoint({ address, port })}`, { address, port })
    })
    return this
  }

  [Symbol.dispose](): void {
    this.#socket.close()
  }
}

export const anyOf = (family: Family) => (family === 4 ? '0.0.0.0' : '::')

/** Bound to where the client sends, as the proxy's are in tproxy mode: it only sends. */
export function replySocket(original: Endpoint): Datagrams {
  return new Datagrams(original, { transparent: true, mark: DEFAULT_RULES.interceptMark })
}

/** Connected to the server, from any address. */
export function upstreamSocket(from: Endpoint, server: Endpoint): Datagrams {
  return new Datagrams(from, { transparent: true, mark: DEFAULT_RULES.bypassMark, to: server })
}

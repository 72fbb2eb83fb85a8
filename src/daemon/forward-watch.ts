import type { Config, ForwardConfig } from '../config/types.ts'
import { type Endpoint, formatEndpoint } from '../net/address.ts'
import { dialTcp } from '../proxy/dial-tcp.ts'

const ANSWER_TIMEOUT_MS = 3_000 // a SYN and one retry (RFC 6298 §2)

/**
 * Asks the servers of forwards for a TCP connection from time to time, and tells when one stops answering or answers again. Limpid
 * sees no packet of a forward: this is how it knows of a dead server.
 */
export class ForwardWatch implements Disposable {
  readonly #stop = new AbortController()
  readonly #timers: NodeJS.Timeout[] = []
  readonly #failures = new Map<string, string>()

  /** @param note told one line for each change. */
  constructor({ forwards, rules }: Config, note: (line: string) => void) {
    for (const forward of forwards) {
      const endpoint = healthEndpoint(forward)
      if (endpoint === undefined) continue
      const ask = (): void => void this.#ask(forward, endpoint, rules.bypassMark, note)
      ask()
      this.#timers.push(setInterval(ask, forward.healthMs).unref())
    }
  }

  /** By the forwards' names, why each of those servers does not answer. */
  get failures(): ReadonlyMap<string, string> {
    return this.#failures
  }

  [Symbol.dispose](): void {
    this.#stop.abort()
    for (const timer of this.#timers) clearInterval(timer)
  }

  /** The mark keeps our own rules from taking it. */
  async #ask(forward: ForwardConfig, to: Endpoint, mark: number, note: (line: string) => void): Promise<void> {
    const { name } = forward
    const timeoutMs = Math.min(ANSWER_TIMEOUT_MS, forward.healthMs)
    try {
      const socket = await dialTcp(to, { mark, timeoutMs, signal: this.#stop.signal })
      socket.close()
      if (this.#failures.delete(name)) note(`forward ${name}: ${formatEndpoint(to)} answers again`)
    } catch (error) {
      if (this.#stop.signal.aborted) return
      const why = (error as Error).message.replace(/^cannot dial [^:\]]*(?:\]?:\d+)?: /, '')
      if (!this.#failures.has(name)) note(`forward ${name}: ${formatEndpoint(to)} does not answer: ${why}`)
      this.#failures.set(name, why)
    }
  }
}

/** Undefined where there is nothing to ask: UDP alone, no port that stands for all, or switched off. */
function healthEndpoint({ healthMs, protocols, to, match }: ForwardConfig): Endpoint | undefined {
  if (healthMs === 0 || !protocols.includes('tcp')) return undefined
  if (to.port !== 0) return to
  const [only, ...others] = match.ports
  return only !== undefined && others.length === 0 && only.from === only.to
    ? { address: to.address, port: only.from }
    : undefined
}

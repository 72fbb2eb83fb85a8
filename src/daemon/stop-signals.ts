/**
 * Told by SIGTERM or SIGINT: to stop, and at the second one to stop at once. SIGQUIT: to stop at once. SIGHUP is a
 * SIGTERM when `hasTerminal`, since then the terminal was closed; to a daemon, and under nohup(1), it means nothing.
 */
export class StopSignals {
  readonly #stop = new AbortController()
  readonly #stopNow = new AbortController()
  readonly #listeners: ReadonlyMap<NodeJS.Signals, () => void>

  constructor({ hasTerminal }: { hasTerminal: boolean }) {
    const stop = (): void => (this.#stop.signal.aborted ? this.#stopNow : this.#stop).abort()
    const quit = (): void => {
      this.#stop.abort()
      this.#stopNow.abort()
    }
    this.#listeners = new Map([
      ['SIGTERM', stop],
      ['SIGINT', stop],
      ['SIGHUP', hasTerminal ? stop : () => {}], // without a listener it would end the process
      ['SIGQUIT', quit],
    ])
    for (const [name, listener] of this.#listeners) process.on(name, listener)
  }

  /** Aborted by the first signal. */
  get stop(): AbortSignal {
    return this.#stop.signal
  }

  /** Aborted by the second, or by SIGQUIT. */
  get stopNow(): AbortSignal {
    return this.#stopNow.signal
  }

  /** As if a signal had come. */
  request(): void {
    this.#stop.abort()
  }

  /** From now on the signals end the process again. */
  [Symbol.dispose](): void {
    for (const [name, listener] of this.#listeners) process.off(name, listener)
  }
}

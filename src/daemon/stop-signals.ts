/** Told by SIGTERM, SIGINT or SIGHUP: to stop, and at the second one to stop at once. */
export class StopSignals {
  readonly #stop = new AbortController()
  readonly #stopNow = new AbortController()
  readonly #listener = (): void => {
    if (this.#stop.signal.aborted) this.#stopNow.abort()
    else this.#stop.abort()
  }

  constructor() {
    for (const name of SIGNALS) process.on(name, this.#listener)
  }

  /** Aborted by the first signal. */
  get stop(): AbortSignal {
    return this.#stop.signal
  }

  /** Aborted by the second. */
  get stopNow(): AbortSignal {
    return this.#stopNow.signal
  }

  /** As if a signal had come. */
  request(): void {
    this.#stop.abort()
  }

  /** From now on the signals end the process again. */
  [Symbol.dispose](): void {
    for (const name of SIGNALS) process.off(name, this.#listener)
  }
}

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

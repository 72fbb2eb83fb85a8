/** What a hook sees; the signal is made when it is asked for. */
export abstract class HookView {
  #controller: AbortController | undefined
  #isLate = false

  /** Aborted when nobody waits for the hook any more. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#isLate) this.#controller.abort()
    return this.#controller.signal
  }

  abort(): void {
    this.#isLate = true
    this.#controller?.abort()
  }
}

import { note } from './print.ts'

const FLUSH_MS = 30_000 // for a reader that is merely slow

/**
 * Whether stdout took what was written. `limpid plan | head` is no error: what reads our data had enough. A disk that is
 * full is one, unless the command `serves`: then its output is not what matters. A stderr
 * that is gone has nobody to tell.
 */
export class Output {
  readonly #serves: boolean
  #failure: string | undefined

  constructor(serves: boolean) {
    this.#serves = serves
    process.stderr.on('error', () => {})
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') return
      this.#failure ??= error.code ?? error.message
    })
  }

  /** What the process exits with, given the command's own exit code. Waits until everything is written, or has failed. */
  async exitCode(code: number): Promise<number> {
    if (this.#serves) return code
    await this.#written()
    if (this.#failure === undefined) return code
    note(`limpid: cannot write to stdout: ${this.#failure}`)
    return code === 0 ? 1 : code
  }

  async #written(): Promise<void> {
    const { stdout } = process
    await new Promise((resolve) => setImmediate(resolve)) // a failed write is told in the next tick
    if (stdout.writableLength === 0 || stdout.destroyed) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, FLUSH_MS)
      const done = (): void => {
        clearTimeout(timer)
        resolve()
      }
      stdout.write('', done)
      stdout.once('error', done)
    })
  }
}

import { fileURLToPath } from 'node:url'
import { thrownText } from '../errors.ts'
import { Seldom } from '../policy/seldom.ts'

const OURS = fileURLToPath(new URL('..', import.meta.url))
const TELL_EVERY_MS = 10_000

/**
 * From now on errors that the user's code lets go (a promise that nobody awaits, a timer of its own) do not end this process: they are
 * told, at most one each 10 s. What was thrown from our own code still ends it: nobody knows what is left undone then.
 */
export function surviveStrayErrors(note: (line: string) => void): Disposable {
  const letGo = new Seldom(TELL_EVERY_MS)
  const tell = (error: unknown): void => {
    const times = letGo.happened(performance.now())
    if (times === undefined) return
    const often = times === 1 ? '' : ` (${times} since it was last told)`
    note(`nobody caught an error of the configuration's code${often}: ${thrownText(error)}`)
  }
  const onException = (error: unknown): void => {
    tell(error)
    if (!isOurs(error)) return
    process.off('uncaughtException', onException)
    throw error
  }
  process.on('unhandledRejection', tell)
  process.on('uncaughtException', onException)
  return {
    [Symbol.dispose]: () => {
      process.off('unhandledRejection', tell)
      process.off('uncaughtException', onException)
    },
  }
}

/** Whether the function that threw, or the first known one that called it, is Limpid's. */
function isOurs(error: unknown): boolean {
  const stack = error instanceof Error ? String(error.stack) : ''
  const frame = stack.split('\n').find((line) => /^\s+at .*(?:file:\/\/|\/)/.test(line) && !line.includes('node:'))
  return frame?.includes(OURS) === true
}

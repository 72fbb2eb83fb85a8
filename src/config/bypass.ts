import { formatPrefix } from '../net/prefix.ts'
import type { Problem } from './problem.ts'
import type { Config } from './types.ts'

type Asked = Pick<Config, 'listeners' | 'bypass' | 'rules'>

/** A bypass is a rule of the kernel about what listeners would take. Paths are absolute. */
export function* bypassProblems({ listeners, bypass, rules }: Asked): Generator<Problem> {
  if (bypass.length === 0) return
  if (!rules.install) {
    yield { path: ['bypass'], message: 'bypass needs the kernel rules, which are switched off' }
  } else if (!listeners.some(({ intercept }) => intercept !== 'none')) {
    yield { path: ['bypass'], message: 'bypass has no meaning: no listener takes packets that could go by it' }
  }
}

/** What is legal there, yet may surprise: one line each. */
export function bypassNotes({ listeners, bypass }: Pick<Config, 'listeners' | 'bypass'>): string[] {
  const taking = listeners.filter(({ intercept }) => intercept !== 'none')
  return ([4, 6] as const).flatMap((family) => {
    const [first, ...others] = bypass.filter((prefix) => prefix.family === family)
    if (first === undefined) return []
    if (!taking.some(({ families }) => families.includes(family))) {
      const more = others.length === 0 ? '' : ` and ${others.length} more`
      return [`bypass ${formatPrefix(first)}${more}: no listener takes IPv${family}: it passes by anyway`]
    }
    const all = [first, ...others].find(({ length }) => length === 0)
    return all === undefined ? [] : [`bypass ${formatPrefix(all)}: no listener gets an IPv${family} flow`]
  })
}

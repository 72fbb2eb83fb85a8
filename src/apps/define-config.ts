import type { z } from 'zod'
import { checkConfig } from './parse.ts'
import { ConfigError, type Problem, problemText } from './problem.ts'
import type { FILE_SCHEMA } from './schema.ts'
import type { Config } from './types.ts'

/** What limpid.yaml says, as an object: the same keys, the same values. */
export type ConfigInput = z.input<typeof FILE_SCHEMA>

/**
 * The configuration of a program that embeds Limpid, checked like a file's, complete and frozen.
 * @throws LimpidError LIMPID_CONFIG with the paths of all that is wrong: `listeners[0].ports: expected …, found …; …`.
 */
export function defineConfig(input: ConfigInput): Config {
  return checkConfig({
    value: input,
    error: (problems) =>
      new ConfigError(
        problems.map((problem) => `${pathText(problem)}: ${problemText(problem)}`),
        { inFull: true },
      ),
  })
}

function pathText({ path }: Problem): string {
  const text = path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`)).join('')
  return text === '' ? 'config' : text.replace(/^\./, '')
}

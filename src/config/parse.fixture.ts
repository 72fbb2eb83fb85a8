import assert from 'node:assert/strict'
import { parseConfig } from './parse.ts'
import { ConfigError } from './problem.ts'

/** The problems of a file, without its name. */
export function problemsOf(text: string): readonly string[] {
  try {
    parseConfig(text, 'f')
    return []
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    return error.problems.map((problem) => problem.replace(/^f:/, ''))
  }
}

/** A file with one listener, which has these lines from line 3, column 5. */
export function listener(...lines: string[]): string {
  return ['listeners:', '  - name: web', ...lines.map((line) => `    ${line}`)].join('\n')
}

/** The same with one forward. */
export function forward(...lines: string[]): string {
  return ['forwards:', '  - name: dns', ...lines.map((line) => `    ${line}`)].join('\n')
}

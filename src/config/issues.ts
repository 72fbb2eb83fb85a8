import { nearest } from './nearest.ts'
import { expectedText, MAX_PROBLEMS, type Problem } from './problem.ts'
import { FILE_SCHEMA } from './schema.ts'
import type * as z from './zod.ts'

/** What one complaint of `schema` about `root` says to the operator. */
export function issueProblems(issue: z.core.$ZodIssue, root: unknown, schema: unknown = FILE_SCHEMA): Problem[] {
  const path = issue.path as (string | number)[]
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(path, schema)
    return issue.keys.slice(0, MAX_PROBLEMS).map((key) => {
      const suggestion = ALIASES[key] !== undefined && known.includes(ALIASES[key]) ? ALIASES[key] : nearest(key, known)
      const expected = suggestion === undefined ? `one of ${known.join(', ')}` : 'a known key'
      return {
        path: [...path, key],
        at: 'key',
        message: `expected ${expected}, found "${key.slice(0, 60)}"`,
        suggestion,
      }
    })
  }
  const found = valueAt(root, path)
  const missing = found === undefined && typeof path.at(-1) === 'string'
  const expected = missing ? `"${path.at(-1)}", ${issue.message}` : issue.message
  const { suggestion, hint } = (issue.code === 'custom' ? issue.params : undefined) ?? NO_PARAMS
  return [{ path, message: expectedText(expected, found, hint), suggestion }]
}

/** What value() of the schema adds to a complaint. */
const NO_PARAMS: { suggestion?: string; hint?: string } = {}

/** Words that other tools and our own flags use. */
const ALIASES: Readonly<Record<string, string | undefined>> = {
  from: 'interfaces',
  interface: 'interfaces',
  upstream: 'to',
  target: 'to',
  port: 'ports',
  mode: 'intercept',
  bind: 'listen',
  families: 'family',
  action: 'then',
  default: 'otherwise',
  domains: 'hosts',
}

/** The value at `path`; a list that was written as its only element is that element. */
function valueAt(root: unknown, path: readonly (string | number)[]): unknown {
  let value = root
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return typeof step === 'number' ? value : undefined
    value = (value as Record<string | number, unknown>)[step]
  }
  return value
}

/** The keys that the schema knows in the map at `path`. */
function knownKeys(path: readonly (string | number)[], root: unknown): string[] {
  let schema = root
  for (const step of path) {
    schema = unwrap(schema)
    schema = typeof step === 'number' ? (schema as { element: unknown }).element : shapeOf(schema)[step]
  }
  return Object.keys(shapeOf(unwrap(schema)))
}

function unwrap(schema: unknown): unknown {
  const { unwrap: inner, out } = schema as { unwrap?: () => unknown; out?: unknown }
  if (out !== undefined) return out // of a pipe: what judged the keys
  return inner === undefined || 'element' in (schema as object) ? schema : unwrap(inner.call(schema))
}

function shapeOf(schema: unknown): Record<string, unknown> {
  return (schema as { shape: Record<string, unknown> }).shape
}

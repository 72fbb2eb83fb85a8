import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml'
import type { z } from 'zod'
import type { Family } from '../net/address.ts'
import { buildListener, deepFreeze } from './build.ts'
import { DEFAULT_LIMITS, DEFAULT_RULES } from './defaults.ts'
import { MAX_CONFIG_BYTES } from './limits.ts'
import { nearest } from './nearest.ts'
import { ConfigError, describeValue, type Problem, problemText } from './problem.ts'
import { FILE_SCHEMA, type FileInput } from './schema.ts'
import { problemsTogether } from './together.ts'
import type { Config } from './types.ts'

export interface ParseOptions {
  /** The families that this host has, for listeners which do not say; both when left out. */
  readonly hostFamilies?: readonly Family[]
}

const MAX_ALIASES = 100 // each may stand for the whole file: 100 of them are the "billion laughs" of YAML
const MAX_DEPTH = 32 // a listener's timeouts are at 4
const MAX_PROBLEMS = 50

/**
 * The configuration that `text` (YAML 1.2) describes, checked as a whole and frozen. `fileName` is for messages.
 * @throws ConfigError with every problem as `file:line:column: expected …, found …`.
 */
export function parseConfig(text: string, fileName: string, options: ParseOptions = {}): Config {
  if (Buffer.byteLength(text) > MAX_CONFIG_BYTES) {
    throw new ConfigError([
      `${fileName}:1:1: expected at most ${MAX_CONFIG_BYTES} bytes, found ${Buffer.byteLength(text)}`,
    ])
  }
  const source = readYaml(text, fileName)
  const parsed = FILE_SCHEMA.safeParse(source.value)
  if (!parsed.success)
    throw source.error(
      parsed.error.issues.slice(0, MAX_PROBLEMS).flatMap((issue) => issueProblems(issue, source.value)),
    )
  const problems: Problem[] = []
  const config = buildConfig(parsed.data, options.hostFamilies ?? [4, 6], problems)
  problems.push(...problemsTogether(config))
  if (problems.length > 0) throw source.error(problems)
  return deepFreeze(config)
}

function buildConfig(input: FileInput, hostFamilies: readonly Family[], problems: Problem[]): Config {
  const rules = { ...DEFAULT_RULES, ...defined(input.rules ?? {}) }
  const listeners = input.listeners.map((listener, index) =>
    buildListener(
      { ...listener, timeouts: defined(listener.timeouts ?? {}) },
      {
        index,
        hostFamilies,
        rulesInstalled: rules.install,
        report: (problem) => problems.push({ ...problem, path: ['listeners', index, ...problem.path] }),
      },
    ),
  )
  return { listeners, limits: { ...DEFAULT_LIMITS, ...defined(input.limits ?? {}) }, rules }
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

function defined<T extends object>(record: T): Defined<T> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as Defined<T>
}

interface YamlSource {
  readonly value: unknown
  /** All problems, each with its place in the file, in the order of the file. */
  error(problems: readonly Problem[]): ConfigError
}

function readYaml(text: string, fileName: string): YamlSource {
  const lines = new LineCounter()
  const place = (offset: number): string => {
    const { line, col } = lines.linePos(offset)
    return `${fileName}:${Math.max(1, line)}:${Math.max(1, col)}`
  }
  checkNesting(text, fileName)
  // uniqueKeys compares every key with every other: 1 MiB of keys would take hours. See duplicateKeys().
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: false, prettyErrors: false, stringKeys: true })
  const broken = [...document.errors, ...document.warnings]
  if (broken.length > 0) {
    throw new ConfigError(broken.slice(0, MAX_PROBLEMS).map((error) => `${place(error.pos[0])}: ${error.message}`))
  }
  const error = (problems: readonly Problem[]): ConfigError => {
    const placed = problems.slice(0, MAX_PROBLEMS).map((problem) => ({ problem, offset: offsetOf(document, problem) }))
    placed.sort((a, b) => a.offset - b.offset)
    return new ConfigError(placed.map(({ problem, offset }) => `${place(offset)}: ${problemText(problem)}`))
  }
  const twice = duplicateKeys(document)
  if (twice.length > 0) {
    throw new ConfigError(
      twice.slice(0, MAX_PROBLEMS).map(({ key, offset }) => `${place(offset)}: key "${key}" is given twice`),
    )
  }
  try {
    return { value: document.toJS({ maxAliasCount: MAX_ALIASES }), error }
  } catch (cause) {
    throw new ConfigError([`${fileName}:1:1: expected at most ${MAX_ALIASES} aliases, found more`], cause)
  }
}

/** Refuses text that would exhaust the parser's stack: flow collections by level, block collections by indentation. */
function checkNesting(text: string, fileName: string): void {
  let depth = 0
  for (const token of new Lexer().lex(text)) {
    if (token === '[' || token === '{') depth++
    else if (token === ']' || token === '}') depth--
    if (depth > MAX_DEPTH)
      throw new ConfigError([`${fileName}:1:1: expected at most ${MAX_DEPTH} levels of [ and {, found more`])
  }
  if (/^[ \-?:]{257}/m.test(text)) {
    throw new ConfigError([`${fileName}:1:1: expected an indentation of at most 256 columns, found more`])
  }
}

function duplicateKeys(document: Document): { key: string; offset: number }[] {
  const found: { key: string; offset: number }[] = []
  visit(document, {
    Map(_, map) {
      const seen = new Set<unknown>()
      for (const { key } of map.items) {
        if (!isScalar(key)) continue
        if (seen.has(key.value)) found.push({ key: String(key.value), offset: key.range?.[0] ?? 0 })
        seen.add(key.value)
      }
    },
  })
  return found
}

/** Where a problem stands in the text: the deepest node on its path that is written there. */
function offsetOf(document: Document, problem: Problem): number {
  let node: unknown = document.contents
  let offset = (document.contents as Node | null)?.range?.[0] ?? 0
  for (const [index, step] of problem.path.entries()) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && key.value === step)
      if (pair === undefined) break
      const keyAt = (pair.key as Node).range?.[0]
      const last = index === problem.path.length - 1
      const value = pair.value as Node | null
      offset = (last && problem.at === 'key' ? keyAt : (value?.range?.[0] ?? keyAt)) ?? offset
      node = value
    } else if (isSeq(node)) {
      node = node.items[Number(step)]
      offset = (node as Node | undefined)?.range?.[0] ?? offset
    } else {
      break
    }
  }
  return offset
}

function issueProblems(issue: z.core.$ZodIssue, root: unknown): Problem[] {
  const path = issue.path as (string | number)[]
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(path)
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
  const suggestion = issue.code === 'custom' ? (issue.params?.suggestion as string | undefined) : undefined
  return [{ path, message: `expected ${expected}, found ${describeValue(found)}`, suggestion }]
}

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
function knownKeys(path: readonly (string | number)[]): string[] {
  let schema: unknown = FILE_SCHEMA
  for (const step of path) {
    schema = unwrap(schema)
    schema = typeof step === 'number' ? (schema as { element: unknown }).element : shapeOf(schema)[step]
  }
  return Object.keys(shapeOf(unwrap(schema)))
}

function unwrap(schema: unknown): unknown {
  const inner = (schema as { unwrap?: () => unknown; element?: unknown }).unwrap
  return inner === undefined || 'element' in (schema as object) ? schema : inner.call(schema)
}

function shapeOf(schema: unknown): Record<string, unknown> {
  return (schema as { shape: Record<string, unknown> }).shape
}

import { ConfigError, type ConfigSource, MAX_PROBLEMS, type Problem, problemText } from './problem.ts'
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
} from './yaml.ts'

const MAX_ALIASES = 100 // each may stand for the whole file: 100 of them are the "billion laughs" of YAML
const MAX_DEPTH = 32 // a listener's timeouts are at 4

/**
 * Reads one YAML 1.2 document, in bounded time whatever it holds. `fileName` is for messages.
 * @throws ConfigError for broken syntax, a key given twice, and what would exhaust the parser.
 */
export function readYaml(text: string, fileName: string): ConfigSource {
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
    throw new ConfigError([`${fileName}:1:1: expected at most ${MAX_ALIASES} aliases, found more`], { cause })
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

import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { LimpidError } from '../errors.ts'
import { deepFreeze } from './build.ts'
import { type ParseOptions, parseConfig } from './parse.ts'
import { type PolicySurroundings, parsePolicy } from './policy-file.ts'
import type { PolicyConfig, PolicyRule } from './policy-types.ts'
import { ConfigError } from './problem.ts'
import type { Config } from './types.ts'

const PARSER = fileURLToPath(new URL('./parser-main.js', import.meta.url))
const SMALL_BYTES = 8_192 // some hundred rules: parsed in less time than a thread needs to begin
const PARSE_MS = 120_000 // the worst files of 1 MiB have been seen to take a minute on a busy machine; 10,000 rules take 5 s
const UNWANTED = 'nobody waits for it any more'
const HEAP_MB = 1_024 // the worst files of 1 MiB have been seen to need half of it

/** What the thread is to parse. */
export type Text =
  | { readonly kind: 'config'; readonly text: string; readonly fileName: string; readonly options: ParseOptions }
  | {
      readonly kind: 'policy'
      readonly text: string
      readonly fileName: string
      readonly surroundings: PolicySurroundings
    }

/** What it answers: all but the rules, then the rules, some at a time; each piece when it is asked for. */
export type Piece =
  | { readonly kind: 'wrong'; readonly problems: readonly string[] }
  | { readonly kind: 'frame'; readonly value: Config | PolicyConfig }
  | { readonly kind: 'rules'; readonly rules: readonly PolicyRule[] }
  | { readonly kind: 'end' }

interface Parsed<T> {
  /** Without its rules. */
  readonly frame: T
  readonly rules: readonly PolicyRule[]
}

/**
 * parseConfig() in a thread of its own, so that flows go on meanwhile: the thread is there for one text, and bounded in time and memory. A
 * text that is small is parsed here.
 * @throws ConfigError as parseConfig(); LimpidError LIMPID_CONFIG beyond the bounds.
 */
export async function parseConfigApart(text: string, fileName: string, options: ParseOptions = {}): Promise<Config> {
  if (isSmall(text)) return parseConfig(text, fileName, options)
  const { frame, rules } = await parsedApart<Config>({ kind: 'config', text, fileName, options })
  return deepFreeze({ ...frame, policy: { ...frame.policy, rules } })
}

/** parsePolicy() in the same way, until `signal` says that nobody wants it any more. @throws as parseConfigApart() */
export async function parsePolicyApart(
  text: string,
  fileName: string,
  { gateway, lists }: PolicySurroundings,
  signal?: AbortSignal,
): Promise<PolicyConfig> {
  if (isSmall(text)) return parsePolicy(text, fileName, { gateway, lists })
  const { listeners, rules: install, apps = {} } = gateway
  const names = Object.fromEntries(Object.keys(apps).map((name) => [name, true])) // apps are functions, which cannot be sent
  const surroundings = { gateway: { listeners, rules: install, apps: names }, lists }
  const { frame, rules } = await parsedApart<PolicyConfig>({ kind: 'policy', text, fileName, surroundings }, signal)
  return deepFreeze({ ...frame, rules })
}

function isSmall(text: string): boolean {
  return Buffer.byteLength(text) <= SMALL_BYTES
}

async function parsedApart<T extends Config | PolicyConfig>(
  text: Text,
  signal = new AbortController().signal,
): Promise<Parsed<T>> {
  if (signal.aborted) throw unparsed(text, UNWANTED, signal.reason)
  const parser = new Worker(PARSER, { workerData: text, resourceLimits: { maxOldGenerationSizeMb: HEAP_MB } })
  parser.unref()
  const late = AbortSignal.timeout(PARSE_MS)
  try {
    return await collected<T>(parser, AbortSignal.any([late, signal]))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') {
      throw unparsed(text, `it needs more than ${HEAP_MB} MiB of memory`, error)
    }
    if (signal.aborted) throw unparsed(text, UNWANTED, error)
    throw late.aborted ? unparsed(text, `it has not been parsed in ${PARSE_MS} ms`, error) : error
  } finally {
    await parser.terminate()
  }
}

function collected<T>(parser: Worker, end: AbortSignal): Promise<Parsed<T>> {
  return new Promise((resolve, reject) => {
    let frame: T | undefined
    const rules: PolicyRule[] = []
    const onPiece = async (piece: Piece): Promise<void> => {
      if (piece.kind === 'wrong') return reject(new ConfigError(piece.problems))
      if (piece.kind === 'end') return resolve({ frame: frame!, rules })
      if (piece.kind === 'frame') frame = piece.value as T
      else for (const rule of piece.rules) rules.push(deepFreeze(rule))
      await setImmediate() // flows have their turn between two pieces
      parser.postMessage('more')
    }
    parser.on('message', (piece: Piece) => void onPiece(piece))
    parser.once('error', reject)
    parser.once('exit', (code) => reject(new Error(`the parser ended with ${code}`)))
    end.addEventListener('abort', () => reject(end.reason), { once: true })
  })
}

function unparsed({ fileName }: Text, why: string, cause: unknown): LimpidError {
  return new LimpidError('LIMPID_CONFIG', `cannot read ${fileName}: ${why}`, { cause })
}

import { parseDuration } from '../config/duration.ts'
import { NAME } from '../config/name.ts'
import { checkConfig, type ParseOptions } from '../config/parse.ts'
import { BUILT_IN_APPS } from '../config/policy.ts'
import { ConfigError, expectedText, type Problem, problemText } from '../config/problem.ts'
import type { FILE_SCHEMA } from '../config/schema.ts'
import type { Config } from '../config/types.ts'
import type * as z from '../config/zod.ts'
import type { StreamApp } from '../proxy/app.ts'
import type { Hooks, ReadyHooks } from '../proxy/hooks.ts'
import { hasIpv6 } from '../sys/host.ts'

/** What limpid.yaml says, as an object: the same keys, the same values; and what only a program can have: functions, and apps. */
export type ConfigInput = z.input<typeof FILE_SCHEMA> & {
  readonly hooks?: Hooks
  /** What rules with `then: handle` may name, beside `http`. */
  readonly apps?: Readonly<Record<string, StreamApp>>
}

/** The configuration of a program: that of a file, and perhaps hooks and apps. */
export type ProgramConfig = Config & {
  readonly hooks?: ReadyHooks
  /** By the name that rules have for them. */
  readonly apps?: Readonly<Record<string, StreamApp>>
  /** The file that it was loaded from: each worker loads it for itself. */
  readonly program?: string
}

const DEFAULT_DEADLINE_MS = 1_000
const LONGEST_DEADLINE_MS = 60_000
const DEFAULT_COMPUTING_MS = 2_000 // a client whose SYN is lost meanwhile sends it again after 1 s and 3 s (RFC 6298 §2)
const SHORTEST_COMPUTING_MS = 500 // a collection of a large heap, or a machine that is busy, is no endless loop
const LONGEST_COMPUTING_MS = 60_000
const DEFAULT_MOST_WAITING = 4_096 // some 2 kB each, and a client behind each
const MAX_WAITING = 1_000_000

/**
 * The configuration of a program that embeds Limpid, or of `limpid run -c limpid.config.ts`: checked like a file's, complete and frozen.
 * @throws LimpidError LIMPID_CONFIG with the paths of all that is wrong: `listeners[0].ports: expected …, found …; …`.
 */
export function defineConfig(
  input: ConfigInput,
  options: ParseOptions = { hostFamilies: hasIpv6() ? [4, 6] : [4] },
): ProgramConfig {
  const { hooks, apps = {}, ...keys } = Object(input) as ConfigInput
  const value = typeof input === 'object' && input !== null && !Array.isArray(input) ? keys : input
  const error = (problems: readonly Problem[]): ConfigError =>
    new ConfigError(
      problems.map((problem) => `${pathText(problem)}: ${problemText(problem)}`),
      { inFull: true },
    )
  const problems: Problem[] = []
  checkApps(apps, (path, message) => problems.push({ path: ['apps', ...path], message }))
  if (problems.length > 0) throw error(problems)
  const names = Object.keys(apps)
  const config = checkConfig({ value, error }, { ...options, apps: names })
  const own = names.length === 0 ? {} : { apps: Object.freeze({ ...apps }) }
  if (hooks === undefined) return names.length === 0 ? config : Object.freeze({ ...config, ...own })
  const ready = readyHooks(hooks, (path, message) => problems.push({ path: ['hooks', ...path], message }))
  if (problems.length > 0) throw error(problems)
  return Object.freeze({ ...config, ...own, hooks: { ...ready, apps: [...BUILT_IN_APPS, ...names] } })
}

const MAX_APPS = 64

function checkApps(apps: unknown, report: (path: string[], message: string) => void): void {
  if (typeof apps !== 'object' || apps === null) {
    report([], expectedText('an object with apps', apps, undefined))
    return
  }
  const entries = Object.entries(apps)
  if (entries.length > MAX_APPS) report([], `expected at most ${MAX_APPS} apps`)
  for (const [name, app] of entries) {
    if (!NAME.safeParse(name).success) report([name], 'expected a name of at most 32 letters, digits, ".", "_" and "-"')
    else if (BUILT_IN_APPS.some((one) => one === name)) report([name], `expected another name: ${name} is Limpid's own`)
    else if (typeof Object(app).serve !== 'function') {
      report([name], expectedText('an app: an object with the function serve', app, undefined))
    }
  }
}

const KNOWN: Readonly<Record<keyof Hooks, true>> = {
  onFlow: true,
  onDns: true,
  onClose: true,
  onHttpRequest: true,
  hookDeadline: true,
  hookComputing: true,
  onHookFailure: true,
  mostWaiting: true,
}

/** Hooks keep their `this`: an object, or an instance of a class, that has state of its own. */
function readyHooks(hooks: Hooks, report: (path: string[], message: string) => void): Omit<ReadyHooks, 'apps'> {
  if (typeof hooks !== 'object' || hooks === null) report([], expectedText('an object with hooks', hooks, undefined))
  const found: Hooks = Object(hooks)
  const hook = <K extends 'onFlow' | 'onDns' | 'onClose' | 'onHttpRequest'>(key: K): Hooks[K] => {
    const written: unknown = found[key]
    if (written !== undefined && typeof written !== 'function') {
      report([key], expectedText('a function', written, undefined))
      return undefined
    }
    return found[key]?.bind(found) as Hooks[K]
  }
  const isPlain = [Object.prototype, null].includes(Object.getPrototypeOf(found)) // an instance may have fields of its own
  for (const key of Object.keys(found)) {
    if (isPlain && !(key in KNOWN)) report([key], `expected one of ${Object.keys(KNOWN).join(', ')}, found "${key}"`)
  }
  const { hookDeadline, hookComputing, onHookFailure = 'reject', mostWaiting = DEFAULT_MOST_WAITING } = found
  const deadlineMs = msOf(hookDeadline, DEFAULT_DEADLINE_MS)
  if (deadlineMs < 1 || deadlineMs > LONGEST_DEADLINE_MS) {
    report(['hookDeadline'], expectedText('a duration from 1ms to 1m', hookDeadline, undefined))
  }
  const computingMs = hookComputing === 'off' ? 0 : msOf(hookComputing, DEFAULT_COMPUTING_MS)
  if (hookComputing !== 'off' && (computingMs < SHORTEST_COMPUTING_MS || computingMs > LONGEST_COMPUTING_MS)) {
    report(['hookComputing'], expectedText('a duration from 500ms to 1m, or off', hookComputing, undefined))
  }
  if (onHookFailure !== 'reject' && onHookFailure !== 'forward') {
    report(['onHookFailure'], expectedText('reject or forward', onHookFailure, undefined))
  }
  if (!Number.isInteger(mostWaiting) || mostWaiting < 1 || mostWaiting > MAX_WAITING) {
    report(['mostWaiting'], expectedText(`a number from 1 to ${MAX_WAITING}`, mostWaiting, undefined))
  }
  return Object.freeze({
    onFlow: hook('onFlow'),
    onDns: hook('onDns'),
    onClose: hook('onClose'),
    onHttpRequest: hook('onHttpRequest'),
    deadlineMs,
    computingMs,
    onFailure: onHookFailure,
    mostWaiting,
  })
}

/** -1 for what is no duration. */
function msOf(written: unknown, otherwise: number): number {
  return written === undefined ? otherwise : (parseDuration(String(written)) ?? -1)
}

function pathText({ path }: Problem): string {
  const text = path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`)).join('')
  return text === '' ? 'config' : text.replace(/^\./, '')
}

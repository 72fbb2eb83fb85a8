import { dirname, isAbsolute, join } from 'node:path'
import type { Family } from '../net/address.ts'
import { buildListener, deepFreeze } from './build.ts'
import { DEFAULT_LIMITS, DEFAULT_RULES, DEFAULT_WORKERS } from './defaults.ts'
import { buildForward } from './forward.ts'
import { issueProblems } from './issues.ts'
import { MAX_CONFIG_BYTES } from './limits.ts'
import { BUILT_IN_APPS, buildPolicy } from './policy.ts'
import { ConfigError, type ConfigSource, MAX_PROBLEMS, missing, type Problem } from './problem.ts'
import { FILE_SCHEMA, type FileInput } from './schema.ts'
import { buildSharing } from './sharing.ts'
import { problemsTogether } from './together.ts'
import type { Config } from './types.ts'
import { readYaml } from './yaml-source.ts'

export interface ParseOptions {
  /** The families that this host has, for listeners which do not say; both when left out. */
  readonly hostFamilies?: readonly Family[]
  /** Names of the listeners that run, where the policy is for them: a rule for another one would decide nothing. */
  readonly policyListeners?: readonly string[] | undefined
  /** Only the policy counts: a file without listeners and forwards is complete, and rules may name any listener then. */
  readonly policyAlone?: boolean | undefined
  /** Names of apps that rules may name beside those that Limpid has; of a program. */
  readonly apps?: readonly string[] | undefined
}

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
  const config = checkConfig(readYaml(text, fileName), options)
  if (Object.values(config.policy.lists).every(isAbsolute)) return config
  const lists = Object.entries(config.policy.lists).map(([name, path]) => [name, besideFile(path, fileName)])
  return deepFreeze({ ...config, policy: { ...config.policy, lists: Object.fromEntries(lists) } })
}

/** Whoever writes a file names others as they lie beside it, from wherever it will be read. */
function besideFile(path: string, fileName: string): string {
  return isAbsolute(path) ? path : join(dirname(fileName), path)
}

/** The frozen configuration of what was written. @throws ConfigError (the source's) with every problem. */
export function checkConfig(source: ConfigSource, options: ParseOptions = {}): Config {
  const parsed = FILE_SCHEMA.safeParse(source.value)
  if (!parsed.success) {
    const issues = parsed.error.issues.slice(0, MAX_PROBLEMS)
    throw source.error(issues.flatMap((issue) => issueProblems(issue, source.value)))
  }
  const problems: Problem[] = []
  const config = buildConfig(parsed.data, options, problems)
  problems.push(...problemsTogether(config))
  if (problems.length > 0) throw source.error(problems)
  return deepFreeze(config)
}

function buildConfig(
  input: FileInput,
  { hostFamilies = [4, 6], policyListeners, policyAlone = false, apps = [] }: ParseOptions,
  problems: Problem[],
): Config {
  const rules = { ...DEFAULT_RULES, ...defined(input.rules ?? {}) }
  const hasNone = input.listeners === undefined && input.forwards === undefined
  if (hasNone && !policyAlone) {
    problems.push(missing('listeners', 'a configuration needs listeners, or forwards'))
  }
  const listeners = (input.listeners ?? []).map((listener, index) =>
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
  const forwards = (input.forwards ?? []).map((forward, index) =>
    buildForward(forward, index, (problem) =>
      problems.push({ ...problem, path: ['forwards', index, ...problem.path] }),
    ),
  )
  const policy = buildPolicy(input.policy, {
    listeners: policyListeners ?? (hasNone && policyAlone ? undefined : listeners.map(({ name }) => name)),
    apps: [...BUILT_IN_APPS, ...apps],
    markMask: rules.markMask,
    report: (problem) => problems.push({ ...problem, path: ['policy', ...problem.path] }),
  })
  if (input.policy !== undefined && input.policyFrom !== undefined) {
    problems.push({ path: ['policyFrom'], at: 'key', message: 'expected "policy" or "policyFrom", found both' })
  }
  return {
    listeners,
    forwards,
    bypass: input.bypass ?? [],
    policy,
    ...buildSharing(input, (problem) => problems.push(problem)),
    workers: input.workers ?? DEFAULT_WORKERS,
    ioUring: input.ioUring ?? true,
    limits: { ...DEFAULT_LIMITS, ...defined(input.limits ?? {}) },
    rules,
  }
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

function defined<T extends object>(record: T): Defined<T> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as Defined<T>
}

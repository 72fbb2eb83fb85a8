import type { Family } from '../net/address.ts'
import { buildListener, deepFreeze } from './build.ts'
import { bypassProblems } from './bypass.ts'
import { DEFAULT_LIMITS, DEFAULT_RULES, DEFAULT_WORKERS } from './defaults.ts'
import { flagValue, throwAsUsage, usageError } from './flags.ts'
import { NO_POLICY } from './policy.ts'
import type { Config } from './types.ts'
import {
  BACKEND,
  FAMILY,
  INTERCEPT,
  INTERFACE,
  LISTEN,
  ON_DOWN,
  PATH,
  PORTS,
  PREFIX,
  PROTOCOL,
  SOURCE,
  TARGET,
  WORKERS,
} from './values.ts'

/** The flags of `limpid run` without a file, as they were written. */
export interface QuickOptions {
  readonly intercept: string
  /** `forwarded`, `local`, `bridged`, or several with commas. */
  readonly path?: readonly string[] | undefined
  /** `tcp`, `udp`, or both with a comma. */
  readonly protocol?: string | undefined
  readonly from?: readonly string[] | undefined
  /** `80,443,8000-8100` or `all`. */
  readonly ports?: string | undefined
  readonly family?: string | undefined
  readonly source?: string | undefined
  readonly to?: string | undefined
  readonly listen?: readonly string[] | undefined
  readonly onDown?: string | undefined
  /** `10.0.0.0/8,fd00::/8`, or several such lists. */
  readonly bypass?: readonly string[] | undefined
  readonly backend?: string | undefined
  readonly workers?: string | undefined
  readonly ioUring?: boolean | undefined
  /** false: `--no-rules`. */
  readonly rules: boolean
}

const FLAG_OF: Readonly<Record<string, string>> = {
  paths: '--path',
  protocols: '--protocol',
  interfaces: '--from',
  ports: '--ports',
  family: '--family',
  source: '--source',
  to: '--to',
  listen: '--listen',
  onDown: '--on-down',
}

/**
 * One listener from flags: all ports, both families, any interface but lo, when left out. Frozen.
 * @throws LimpidError LIMPID_USAGE, with the flag that is wrong.
 */
export function quickConfig(options: QuickOptions, hostFamilies: readonly Family[] = [4, 6]): Config {
  const intercept = flagValue('--intercept', INTERCEPT, options.intercept)
  const listener = buildListener(
    {
      name: intercept,
      intercept,
      paths: options.path?.flatMap((names) => names.split(',').map((name) => flagValue('--path', PATH, name.trim()))),
      protocols: options.protocol?.split(',').map((name) => flagValue('--protocol', PROTOCOL, name.trim())),
      interfaces: options.from?.flatMap((names) =>
        names.split(',').map((name) => flagValue('--from', INTERFACE, name.trim())),
      ),
      ports: options.ports?.split(',').map((text) => flagValue('--ports', PORTS, text.trim())),
      family: flagValue('--family', FAMILY, options.family),
      source: flagValue('--source', SOURCE, options.source),
      to: flagValue('--to', TARGET, options.to),
      listen: options.listen?.map((text) => flagValue('--listen', LISTEN, text)),
      onDown: flagValue('--on-down', ON_DOWN, options.onDown),
    },
    { index: 0, hostFamilies, rulesInstalled: options.rules, report: throwAsUsage(FLAG_OF) },
  )
  const config = {
    listeners: [listener],
    forwards: [],
    bypass: (options.bypass ?? []).flatMap((list) =>
      list.split(',').map((text) => flagValue('--bypass', PREFIX, text.trim())),
    ),
    policy: NO_POLICY,
    workers: flagValue('--workers', WORKERS, options.workers) ?? DEFAULT_WORKERS,
    ioUring: options.ioUring ?? true,
    limits: DEFAULT_LIMITS,
    rules: {
      ...DEFAULT_RULES,
      install: options.rules,
      backend: flagValue('--backend', BACKEND, options.backend) ?? DEFAULT_RULES.backend,
    },
  }
  for (const problem of bypassProblems(config)) throw usageError('--bypass', problem.message)
  return deepFreeze(config)
}

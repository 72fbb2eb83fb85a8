import type { Command } from 'commander'
import type { ProgramConfig } from '../apps/define-config.ts'
import { deepFreeze } from '../config/build.ts'
import { isProgramFile } from '../config/find.ts'
import { flagValue } from '../config/flags.ts'
import { quickConfig } from '../config/quick.ts'
import { BACKEND, WORKERS } from '../config/values.ts'
import type { Reread } from '../daemon/reloads.ts'
import { LimpidError } from '../errors.ts'
import { configFile, loadConfig } from './config-file.ts'
import { hostFamilies } from './host-families.ts'

/** `limpid rules install`. */
function commandLine(command: Command): string {
  return command.parent === null ? command.name() : `${commandLine(command.parent)} ${command.name()}`
}

export interface QuickFlags {
  config?: string
  intercept?: string
  path?: string[]
  protocol?: string
  from?: string[]
  ports?: string
  family?: string
  source?: string
  to?: string
  listen?: string[]
  onDown?: string
  bypass?: string[]
  backend?: string
  workers?: string
  ioUring: boolean
  rules: boolean
}

const QUICK_ONLY = [
  'path',
  'protocol',
  'from',
  'ports',
  'family',
  'source',
  'to',
  'listen',
  'onDown',
  'bypass',
] as const

/** The flags that `run`, `plan` and `rules` share: a file, or the quick form. `--protocol` is left to a command that has its own. */
export function addConfigFlags(
  command: Command,
  options: { readonly protocol: boolean } = { protocol: true },
): Command {
  if (options.protocol) command.option('--protocol <list>', 'tcp, udp or tcp,udp (tcp)')
  return command
    .option('-c, --config <file>', 'limpid.yaml; without it and --intercept the usual places are searched')
    .option(
      '--intercept <how>',
      'instead of a file: tproxy, redirect, dnat or mark; or none (clients dial the listener itself)',
    )
    .option('--path <paths...>', 'forwarded (the default), local: made on this host, bridged: crossing a bridge')
    .option('--from <iface...>', 'receiving interfaces, such as eth0,eth1 (any but lo)')
    .option('--ports <list>', 'original destination ports, such as 80,443,8000-8100 (all)')
    .option('--family <family>', '4, 6 or both')
    .option('--source <source>', 'whose address the server sees: proxy, client, client-port or an address (proxy)')
    .option('--to <host:port>', 'dial this instead of the original destination; a host alone keeps the port')
    .option(
      '--listen <addr:port...>',
      'where the listener waits: an address and port, or a port (50080; with tproxy on loopback)',
    )
    .option(
      '--on-down <what>',
      'if Limpid dies, traffic passes by (open) or stays dropped (closed); a clean stop lets it pass (open)',
    )
    .option('--bypass <cidr...>', 'destinations that the kernel forwards by itself, such as 10.0.0.0/8,fd00::/8 (none)')
    .option('--backend <program>', 'what makes the rules: nft, iptables or auto (auto)')
    .option('--workers <count>', 'processes that relay: a number, or auto for one on each core (1)')
    .option('--no-io-uring', 'one system call at a time, also where the kernel lets us have many in one')
    .option('--no-rules', 'leave the kernel rules to somebody else')
}

export interface OpenedConfig {
  readonly config: ProgramConfig
  readonly reread: Reread
}

/** The configuration that the flags of `command` ask for. @throws LimpidError LIMPID_USAGE or LIMPID_CONFIG. */
export async function configOf(flags: QuickFlags, command: Command): Promise<ProgramConfig> {
  return (await openConfig(flags, command)).config
}

/** The same, and how its file is read again; undefined for the quick form. */
export async function openConfig(flags: QuickFlags, command: Command): Promise<OpenedConfig> {
  if (flags.intercept === undefined) {
    const stray = QUICK_ONLY.find((name) => flags[name] !== undefined)
    if (stray !== undefined) {
      const flag = stray === 'onDown' ? '--on-down' : `--${stray}`
      throw new LimpidError('LIMPID_USAGE', `${flag} is part of the quick form, which begins with --intercept`, {
        cure: flags.config === undefined ? 'add --intercept tproxy' : `write it into ${flags.config}`,
      })
    }
    const path = configFile(flags.config, `${commandLine(command)} --intercept tproxy`)
    return {
      config: withFlags(await loadConfig(path), flags),
      reread: async ({ listeners }) => {
        refuseProgram(path)
        const policyListeners = listeners.map(({ name }) => name)
        return withFlags(await loadConfig(path, { policyListeners, apart: true }), flags)
      },
    }
  }
  if (flags.config !== undefined) {
    throw new LimpidError('LIMPID_USAGE', '-c and --intercept exclude each other', {
      cure: `write the listener into ${flags.config}, or leave -c out`,
    })
  }
  return { config: quickConfig({ ...flags, intercept: flags.intercept }, hostFamilies()), reread: undefined }
}

/** Code that runs keeps state, and cannot be taken back. */
function refuseProgram(path: string): void {
  if (!isProgramFile(path)) return
  throw new LimpidError('LIMPID_CONFIG', `${path} is code, and is read at the start alone`, {
    cure: 'start Limpid again',
  })
}

/** A file's configuration, with what flags say of it. */
function withFlags(config: ProgramConfig, flags: QuickFlags): ProgramConfig {
  const backend = flagValue('--backend', BACKEND, flags.backend) ?? config.rules.backend
  const workers = flagValue('--workers', WORKERS, flags.workers) ?? config.workers
  const rules = { ...config.rules, backend, install: flags.rules && config.rules.install }
  return deepFreeze({ ...config, workers, ioUring: flags.ioUring && config.ioUring, rules })
}

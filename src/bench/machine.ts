import { availableParallelism, cpus, release } from 'node:os'
import { fileURLToPath } from 'node:url'
import { firstLine, isInstalled, run } from '../sys/program.ts'

/** What figures depend on besides the code. */
export interface MachineFacts {
  readonly kernel: string
  readonly cores: number
  readonly processor: string
  readonly node: string
  /** undefined where it is not installed. */
  readonly haproxy: string | undefined
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export async function machineFacts(): Promise<MachineFacts> {
  const version = isInstalled('haproxy') ? firstLine((await run('haproxy', ['-v'])).stdout) : undefined
  return {
    kernel: /^[\d.]+/.exec(release())?.[0] ?? release(), // without what a distributor adds
    cores: availableParallelism(),
    processor: cpus()[0]?.model ?? 'unknown',
    node: process.versions.node,
    haproxy: version === undefined ? undefined : (/version (\S+)/.exec(version)?.[1] ?? version),
  }
}

/** The revision of the checkout, with `-changed` where files differ from it; `unknown` without git. */
export async function revision(): Promise<string> {
  if (!isInstalled('git')) return 'unknown'
  const head = await run('git', ['-C', ROOT, 'rev-parse', '--short', 'HEAD'])
  if (head.code !== 0) return 'unknown'
  const status = await run('git', ['-C', ROOT, 'status', '--porcelain', '--', 'src', 'bin', 'package-lock.json'])
  return `${head.stdout.trim()}${status.stdout === '' ? '' : '-changed'}`
}

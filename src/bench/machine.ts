import { availableParallelism, cpus, release } from 'node:os'
import { fileURLToPath } from 'node:url'
import { isInstalled, run } from '../sys/program.ts'

/** What figures depend on besides the code. */
export interface MachineFacts {
  readonly kernel: string
  readonly cores: number
  readonly processor: string
  readonly node: string
  /** The versions of the other programs that are installed. */
  readonly others: Readonly<Record<string, string>>
}

/** How each is asked; a version is the first number in the answer. */
const VERSION_FLAG = { haproxy: '-v', nginx: '-v', dnsmasq: '--version', dnsperf: '-h' } as const
const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export async function machineFacts(): Promise<MachineFacts> {
  const others: Record<string, string> = {}
  for (const [program, flag] of Object.entries(VERSION_FLAG)) {
    const version = isInstalled(program) ? await versionOf(program, flag) : undefined
    if (version !== undefined) others[program] = version
  }
  return {
    kernel: /^[\d.]+/.exec(release())?.[0] ?? release(), // without what a distributor adds
    cores: availableParallelism(),
    processor: cpus()[0]?.model ?? 'unknown',
    node: process.versions.node,
    others,
  }
}

async function versionOf(program: string, flag: string): Promise<string | undefined> {
  const { stdout, stderr } = await run(program, [flag])
  return /(?:version[: ]*|nginx\/)(\d\S*)/i.exec(stdout + stderr)?.[1]
}

/** The revision of the checkout, with `-changed` where files differ from it; `unknown` without git. */
export async function revision(): Promise<string> {
  if (!isInstalled('git')) return 'unknown'
  const head = await run('git', ['-C', ROOT, 'rev-parse', '--short', 'HEAD'])
  if (head.code !== 0) return 'unknown'
  const status = await run('git', ['-C', ROOT, 'status', '--porcelain', '--', 'src', 'bin', 'package-lock.json'])
  return `${head.stdout.trim()}${status.stdout === '' ? '' : '-changed'}`
}

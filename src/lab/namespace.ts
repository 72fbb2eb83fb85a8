import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants } from 'node:os'
import { LimpidError } from '../errors.ts'
import { findProgram, run } from '../sys/program.ts'

const INSIDE = 'LIMPID_LAB_INSIDE'
const LIFELINE_FD = 3
const UNSHARE = ['--user', '--map-root-user', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
const EXIT_INTERRUPTED = 128 + constants.signals.SIGINT

/** What a person needs to enter the lab from outside. */
export interface InsideFacts {
  /** The lab's process as the host sees it; 0 when it could not be learnt. */
  readonly hostPid: number
}

/**
 * Continues the calling program inside user, network, mount and pid namespaces of its own, as root of them; needs no
 * privilege outside. Outside it never returns: it runs the same program again inside, passes its standard streams on,
 * and exits with its exit code. Inside it returns at once.
 *
 * Nothing is left behind whatever happens: the inner process is pid 1 of its namespace, so all that it started ends
 * with it, and it ends when its lifeline (a pipe from the outer process) closes, even if that was killed.
 * @throws LimpidError LIMPID_NAMESPACE when this user may not make namespaces.
 */
export async function enterNamespaces(): Promise<InsideFacts> {
  if (process.env[INSIDE] === '1') return prepareInside()
  const unshare = findProgram('unshare')
  const probe = await run(unshare, [...UNSHARE, '--', findProgram('true')], { timeoutMs: 10_000 })
  if (probe.code !== 0) throw forbidden(probe.stderr)
  const child = spawn(
    unshare,
    [...UNSHARE, '--', process.execPath, ...process.execArgv, process.argv[1]!, ...process.argv.slice(2)],
    { stdio: ['inherit', 'inherit', 'inherit', 'pipe'], env: { ...process.env, [INSIDE]: '1' } },
  )
  const lifeline = child.stdio[LIFELINE_FD] as Socket
  lifeline.on('error', () => {}) // the inner process may be gone first
  child.once('spawn', () => lifeline.write(`${JSON.stringify({ hostPid: innerPid(child.pid!) })}\n`))
  let interrupted = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      interrupted = true
      lifeline.destroy()
    })
  }
  return new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => process.exit(interrupted ? EXIT_INTERRUPTED : (code ?? 1)))
  })
}

/** unshare waits for its one child, which may take a moment to appear. */
function innerPid(unsharePid: number): number {
  const until = performance.now() + 500
  while (performance.now() < until) {
    try {
      const children = readFileSync(`/proc/${unsharePid}/task/${unsharePid}/children`, 'latin1').trim()
      if (children !== '') return Number(children.split(' ')[0])
    } catch {
      return 0
    }
  }
  return 0
}

async function prepareInside(): Promise<InsideFacts> {
  delete process.env[INSIDE] // what we start is inside already and must not take itself for the lab
  const facts = await new Promise<InsideFacts>((resolve) => {
    const lifeline = new Socket({ fd: LIFELINE_FD, readable: true, writable: false })
    lifeline.on('error', () => {})
    lifeline.once('close', () => process.kill(process.pid, 'SIGKILL'))
    lifeline.once('close', () => process.exit(EXIT_INTERRUPTED)) // pid 1 does not die of its own SIGKILL
    lifeline.once('data', (line) => {
      lifeline.unref()
      resolve(JSON.parse(line.toString()) as InsideFacts)
    })
  })
  // state files of the programs under test go here, not to the host's /run
  const mounted = await run(findProgram('mount'), ['-t', 'tmpfs', 'tmpfs', '/run'], { timeoutMs: 5_000 })
  if (mounted.code !== 0) throw forbidden(mounted.stderr)
  return facts
}

function forbidden(reason: string): LimpidError {
  return new LimpidError('LIMPID_NAMESPACE', `cannot make namespaces for the lab: ${reason.trim()}`, {
    cure: 'run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces > 0',
  })
}

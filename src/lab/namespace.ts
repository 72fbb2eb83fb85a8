import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants } from 'node:os'
import { LimpidError } from '../errors.ts'
import { findProgram, run } from '../sys/program.ts'

const INSIDE = 'LIMPID_LAB_INSIDE'
const LIFELINE_FD = 3
const UNSHARE = ['--user', '--map-root-user', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
/**
 * Pid 1 must reap what loses its parent, which Node does not do: else a killed program's child is a zombie for ever.
 * The trap leaves Ctrl-C to the program.
 */
const REAPER = ['sh', '-c', 'trap : INT; "$@"; exit "$?"', 'sh']
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const GRACE_MS = 3_000 // for the inner program to end after a signal; it only has sockets to close
const ORPHANED = 128 + constants.signals.SIGHUP

/** What a person needs to enter the lab from outside. */
export interface InsideFacts {
  /** The lab's process as the host sees it; 0 when it could not be learnt. */
  readonly hostPid: number
}

/**
 * Continues the calling program inside user, network, mount and pid namespaces of its own, as root of them; needs no
 * privilege outside. Outside it never returns: it runs the same program again inside, passes its standard streams and
 * signals on, and exits with its exit code (128 + signal when it died of one). Inside it returns at once.
 *
 * Nothing is left behind whatever happens. All processes of the lab end with pid 1 of its pid namespace
 * (pid_namespaces(7)), which the kernel kills when the outer process dies (PR_SET_PDEATHSIG, outer → unshare → pid 1);
 * namespaces and mounts go with the last process. The inner program also ends when its lifeline (a socket pair to the
 * outer process) closes.
 * @throws LimpidError LIMPID_NAMESPACE when this user may not make namespaces; LIMPID_PROGRAM when unshare is missing.
 */
export async function enterNamespaces(): Promise<InsideFacts> {
  if (process.env[INSIDE] === '1') return prepareInside()
  const setpriv = findProgram('setpriv')
  const makeNamespaces = ['--pdeathsig', 'KILL', '--', findProgram('unshare'), ...UNSHARE, '--']
  const probe = await run(setpriv, [...makeNamespaces, findProgram('true')], { timeoutMs: 10_000 })
  if (probe.code !== 0) throw forbidden(probe.stderr)
  const program = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  const child = spawn(setpriv, [...makeNamespaces, ...REAPER, ...program], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...process.env, [INSIDE]: '1' },
  })
  const lifeline = child.stdio[LIFELINE_FD] as Socket
  lifeline.on('error', () => {}) // the inner process may be gone first
  lifeline.once('data', () => {
    const hostPid = innerPid(child)
    forwardSignals(child, lifeline)
    lifeline.write(`${JSON.stringify({ hostPid } satisfies InsideFacts)}\n`)
  })
  return new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal ?? 'SIGKILL']))
  })
}

/** The program inside as seen from here: unshare (which setpriv became) → sh → program. 0 when /proc does not tell. */
function innerPid(child: ChildProcess): number {
  try {
    return onlyChild(onlyChild(child.pid!))
  } catch {
    return 0
  }
}

function onlyChild(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim())
}

/**
 * A signal from the terminal reaches the inner program without us; one that was sent to us alone does not. So it is told
 * by the lifeline, where it does no harm when it comes twice: a second real signal could hit the program while it exits
 * and turn its exit code into 130. If it does not make the program end in time, the program is killed.
 */
function forwardSignals(child: ChildProcess, lifeline: Socket): void {
  for (const signal of FORWARDED) {
    process.on(signal, () => {
      lifeline.write(`${signal}\n`)
      setTimeout(() => child.kill('SIGKILL'), GRACE_MS).unref()
    })
  }
}

/** As if the signal had come from the kernel: to those who listen for it, or else it ends the process. */
function receiveSignal(line: Buffer): void {
  const signal = FORWARDED.find((name) => line.includes(name))
  if (signal !== undefined && !process.emit(signal, signal)) process.kill(process.pid, signal)
}

async function prepareInside(): Promise<InsideFacts> {
  delete process.env[INSIDE] // what we start is inside already and must not take itself for the lab
  const facts = await new Promise<InsideFacts>((resolve) => {
    const lifeline = new Socket({ fd: LIFELINE_FD, readable: true, writable: true })
    lifeline.on('error', () => {})
    lifeline.once('close', () => process.exit(ORPHANED))
    lifeline.once('data', (line) => {
      lifeline.unref()
      lifeline.on('data', receiveSignal)
      resolve(JSON.parse(line.toString()) as InsideFacts)
    })
    lifeline.write('inside\n')
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

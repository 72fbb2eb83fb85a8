import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { LimpidError } from '../errors.ts'

/** Where Debian keeps them although an ordinary user's PATH does not name it. */
const SYSTEM_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin']

/** Debian packages of the programs that Limpid starts. */
const PACKAGES: Readonly<Record<string, string>> = {
  'ebtables-restore': 'iptables',
  'ebtables-save': 'iptables',
  ip: 'iproute2',
  'ip6tables-restore': 'iptables',
  'ip6tables-save': 'iptables',
  iptables: 'iptables',
  'iptables-restore': 'iptables',
  'iptables-save': 'iptables',
  mount: 'mount',
  nft: 'nftables',
  setpriv: 'util-linux',
  ss: 'iproute2',
  unshare: 'util-linux',
}

const DEFAULT_TIMEOUT_MS = 10_000
const MAX_OUTPUT_BYTES = 32 * 1024 * 1024 // a listing of an nft table with 10 000 prefixes takes a quarter of a MiB

export interface ProgramResult {
  /** The exit code; 128 + the signal's number is not used: a program that died of a signal has -1. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** Written to its stdin; without it stdin is empty. */
  readonly input?: string | undefined
  readonly timeoutMs?: number | undefined
}

/** LIMPID_PATH, where it is set, is all there is. */
function searchedFolders(): string[] {
  const { PATH = '', LIMPID_PATH } = process.env
  const folders = (LIMPID_PATH ?? PATH).split(delimiter).filter((folder) => folder !== '')
  return LIMPID_PATH === undefined ? [...folders, ...SYSTEM_FOLDERS] : folders
}

/**
 * The full path of a program: PATH first, then where Debian keeps system programs.
 * @throws LimpidError LIMPID_PROGRAM that names the Debian package and the command that installs it.
 */
export function findProgram(name: string): string {
  for (const folder of searchedFolders()) {
    const path = join(folder, name)
    if (isExecutable(path)) return path
  }
  const wanted = PACKAGES[name]
  throw new LimpidError('LIMPID_PROGRAM', `cannot find the program ${name}`, {
    cure:
      wanted === undefined
        ? 'install it or put its folder into PATH'
        : `install Debian's package ${wanted}: apt-get install ${wanted}`,
  })
}

/** Whether findProgram() finds it. */
export function isInstalled(program: string): boolean {
  try {
    return findProgram(program) !== ''
  } catch {
    return false
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/**
 * Runs a program to its end; its messages come in English. `program` is a path or a name for `findProgram`.
 * @throws LimpidError LIMPID_PROGRAM when it cannot be started, does not end in time, or says more than 32 MiB.
 */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<ProgramResult> {
  const path = program.includes('/') ? program : findProgram(program)
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
  return await new Promise((resolve, reject) => {
    const child = spawn(path, args, { stdio: 'pipe', env: { ...process.env, LC_ALL: 'C' } })
    const output = { stdout: [] as Buffer[], stderr: [] as Buffer[], bytes: 0 }
    const fail = (why: string, cause?: unknown) => {
      clearTimeout(timer)
      child.kill('SIGKILL')
      reject(new LimpidError('LIMPID_PROGRAM', `${commandLine(program, args)}: ${why}`, { cause }))
    }
    const timer = setTimeout(() => fail(`no end after ${timeoutMs} ms`), timeoutMs)
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].on('data', (chunk: Buffer) => {
        output[name].push(chunk)
        output.bytes += chunk.length
        if (output.bytes > MAX_OUTPUT_BYTES) fail(`more than ${MAX_OUTPUT_BYTES} bytes of output`)
      })
    }
    child.once('error', (error) => fail(`cannot start: ${error.message}`, error))
    child.once('close', (code) => {
      clearTimeout(timer)
      const text = (name: 'stdout' | 'stderr') => Buffer.concat(output[name]).toString()
      resolve({ code: code ?? -1, stdout: text('stdout'), stderr: text('stderr') })
    })
    child.stdin.on('error', () => {}) // it may end without reading; its exit code tells
    child.stdin.end(options.input ?? '')
  })
}

/** As `run`, for a program whose failure is an error: LIMPID_PROGRAM with the first line that it wrote to stderr. */
export async function mustRun(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, options)
  if (code === 0) return stdout
  throw new LimpidError('LIMPID_PROGRAM', `${commandLine(program, args)}: ${firstLine(stderr) ?? `exit code ${code}`}`)
}

/** Closes a child's standard input, behind `lastWords`, and waits for its end; kills it after `timeoutMs`. */
export async function endByPipe(child: ChildProcess, timeoutMs: number, lastWords = ''): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  child.ref()
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    child.once('exit', () => {
      clearTimeout(timer)
      resolve()
    })
    child.stdin?.end(lastWords)
  })
}

/** The first line with text in it. */
export function firstLine(text: string): string | undefined {
  return text
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line !== '')
}

function commandLine(program: string, args: readonly string[]): string {
  return [program.slice(program.lastIndexOf('/') + 1), ...args].join(' ')
}

import { chmodSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RulesConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { netNamespaceInode } from '../sys/host.ts'
import type { SysctlChange } from './plan.ts'

/** Whether the rules go when the process that installed them does, or stay until `limpid rules remove`. */
export type Owner = 'process' | 'persistent'

/** What was put into the kernel, written before the first change and removed after the last one is undone. */
export interface Journal {
  readonly version: 1
  readonly bootId: string
  readonly owner: Owner
  /** The process that installed; with its start time, since pids come again. */
  readonly pid: number
  readonly startTime: string
  readonly rules: RulesConfig
  readonly sysctls: readonly SysctlChange[]
  /** nft's version and what it said about our nft tables right after install: '' until then. */
  readonly nftVersion: string
  readonly tableListing: string
  readonly guardListing: string
}

/**
 * The journal of the calling thread's network namespace: sysctls and rules live and die with it, so the file's name holds
 * its inode. Under LIMPID_STATE_DIR, else /run/limpid, else (where that cannot be written) below XDG_RUNTIME_DIR or the
 * folder for temporary files, in a folder that only this user can write.
 */
export class JournalFile {
  readonly path: string
  /** Where the text lies while nft reads it. */
  readonly textPath: string
  readonly #nextPath: string

  constructor(folder = stateFolder(), namespace = netNamespaceInode()) {
    this.path = join(folder, `rules-${namespace}.json`)
    this.textPath = join(folder, `rules-${namespace}.nft`)
    this.#nextPath = `${this.path}.next`
  }

  /** The journal there is; undefined for none, one of an earlier boot, or one that cannot be understood. */
  read(): Journal | undefined {
    try {
      const journal = JSON.parse(readFileSync(this.path, 'utf8')) as Journal
      return journal.version === 1 && journal.bootId === bootId() ? journal : undefined
    } catch {
      return undefined
    }
  }

  /** Replaces it in one step, so that whoever reads it finds the old one or the new one. */
  write(journal: Journal): void {
    writeFileSync(this.#nextPath, JSON.stringify(journal), { mode: 0o600 })
    renameSync(this.#nextPath, this.path)
  }

  /** Removes it, and what a killed process may have left beside it. */
  remove(): void {
    for (const path of [this.#nextPath, this.textPath, this.path]) rmSync(path, { force: true })
  }
}

/** The fields of a journal that say who writes it. */
export function journalOf(owner: Owner, rules: RulesConfig, sysctls: readonly SysctlChange[]): Journal {
  return {
    version: 1,
    bootId: bootId(),
    owner,
    pid: process.pid,
    startTime: startTime(process.pid) ?? '',
    rules,
    sysctls,
    nftVersion: '',
    tableListing: '',
    guardListing: '',
  }
}

/** Whether the process that wrote the journal still lives. */
export function isWriterAlive(journal: Journal): boolean {
  return journal.startTime !== '' && startTime(journal.pid) === journal.startTime
}

/** Clock ticks from boot to the start of a process (proc(5), stat field 22); undefined when there is none, or a zombie. */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // the name in parentheses may hold anything
    return fields[0] === 'Z' ? undefined : fields[22 - 3]
  } catch {
    return undefined
  }
}

/** The folder for state files; made when it is missing. */
export function stateFolder(): string {
  const named = process.env.LIMPID_STATE_DIR
  const user = process.getuid?.() ?? 0
  const runtime = process.env.XDG_RUNTIME_DIR
  const candidates = named
    ? [named]
    : ['/run/limpid', ...(runtime ? [join(runtime, 'limpid')] : []), join(tmpdir(), `limpid-${user}`)]
  let why = ''
  for (const folder of candidates) {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      const found = lstatSync(folder)
      if (!found.isDirectory() || found.uid !== user) throw new Error(`${folder} is not a folder of uid ${user}`)
      if ((found.mode & 0o022) !== 0) chmodSync(folder, 0o700)
      return folder
    } catch (error) {
      why ||= (error as Error).message
    }
  }
  throw new LimpidError('LIMPID_RULES_FAILED', `cannot keep a record of the rules: ${why}`, {
    cure: 'set LIMPID_STATE_DIR to a folder that this user can write',
  })
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
}

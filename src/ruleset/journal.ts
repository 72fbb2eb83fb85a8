import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { RulesConfig } from '../config/types.ts'
import { netNamespaceInode } from '../sys/host.ts'
import type { CleanerProcess } from './cleaner.ts'
import { stateFolder, stateFolders, trustProblem } from './state-folder.ts'
import type { SysctlChange } from './sysctls.ts'

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
  /** The child that removes chains of iptables when that process is gone. */
  readonly cleaner?: CleanerProcess
  /** The backend's version and what it said about our rules right after install: '' until then. */
  readonly programVersion: string
  readonly tableListing: string
  readonly guardListing: string
}

/**
 * The journal of the calling thread's network namespace: sysctls and rules live and die with it, so the file's name holds
 * its inode.
 */
export class JournalFile {
  readonly path: string
  /** Where the text lies while nft reads it. */
  readonly textPath: string
  /** The same of a change to what it has loaded. */
  readonly changePath: string
  readonly #folder: string
  readonly #nextPath: string

  private constructor(folder: string) {
    const namespace = netNamespaceInode()
    this.path = join(folder, `rules-${namespace}.json`)
    this.textPath = join(folder, `rules-${namespace}.nft`)
    this.changePath = join(folder, `rules-${namespace}-change.nft`)
    this.#folder = folder
    this.#nextPath = `${this.path}.next`
  }

  /** To be written: makes the state folder where it is missing. @throws LimpidError LIMPID_RULES_FAILED when it cannot. */
  static make(): JournalFile {
    return new JournalFile(stateFolder())
  }

  /** To be read or removed: the one there is, wherever it may have been put. Changes nothing. */
  static find(): JournalFile {
    const files = stateFolders().map((folder) => new JournalFile(folder))
    return files.find((file) => file.read() !== undefined) ?? files[0]!
  }

  /** The journal there is; undefined for none, one of an earlier boot, or one that cannot be understood. */
  read(): Journal | undefined {
    if (trustProblem(this.#folder) !== undefined) return undefined
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
    for (const path of [this.#nextPath, this.textPath, this.changePath, this.path])
      if (existsSync(path)) rmSync(path, { force: true })
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
    programVersion: '',
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

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
}

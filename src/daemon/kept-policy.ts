import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { LISTS_FOLDER, listsIn, POLICY_FILE, readPolicyFolderApart } from '../config/policy-folder.ts'
import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { trustProblem } from '../ruleset/state-folder.ts'

const REVISION_FILE = 'revision'

/**
 * A folder of this user's alone with the last good policy that came from elsewhere, and the files of its lists: what a start goes on with when
 * nobody can be asked. Each file changes in one step, and is on the disk then.
 */
export class KeptPolicy {
  readonly folder: string

  /** Makes the folder. @throws LimpidError LIMPID_POLICY_SOURCE when it cannot be one. */
  constructor(folder: string) {
    this.folder = folder
    try {
      mkdirSync(join(folder, LISTS_FOLDER), { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw keepError(folder, (cause as NodeJS.ErrnoException).code, cause)
    }
    for (const one of [folder, join(folder, LISTS_FOLDER)]) {
      const problem = trustProblem(one)
      if (problem !== undefined) throw keepError(folder, problem)
    }
  }

  /** When it was taken; undefined when nothing is kept. */
  get since(): Date | undefined {
    return statSync(join(this.folder, POLICY_FILE), { throwIfNoEntry: false })?.mtime
  }

  get revision(): number | undefined {
    try {
      return Number(readFileSync(join(this.folder, REVISION_FILE), 'utf8'))
    } catch {
      return undefined
    }
  }

  /** The files of the lists, by their names. */
  get lists(): Readonly<Record<string, string>> {
    return Object.fromEntries(listsIn(this.folder).map((name) => [name, join(this.folder, LISTS_FOLDER, name)]))
  }

  /** @throws LimpidError LIMPID_CONFIG */
  async read(gateway: Config, signal: AbortSignal): Promise<PolicyConfig> {
    return await readPolicyFolderApart(this.folder, gateway, signal)
  }

  /** `name`: a NAME. @throws LimpidError LIMPID_POLICY_SOURCE */
  keepList(name: string, bytes: Uint8Array): void {
    if (!this.hasList(name, bytes)) this.#write(join(LISTS_FOLDER, name), bytes)
  }

  hasList(name: string, bytes: Uint8Array): boolean {
    const path = join(this.folder, LISTS_FOLDER, name)
    const size = statSync(path, { throwIfNoEntry: false })?.size
    return size === bytes.length && readFileSync(path).equals(bytes)
  }

  /** And forgets the lists that are not among `lists`. @throws LimpidError LIMPID_POLICY_SOURCE */
  keepPolicy(text: string, revision: number, lists: ReadonlySet<string>): void {
    this.#write(POLICY_FILE, Buffer.from(text))
    this.#write(REVISION_FILE, Buffer.from(`${revision}\n`))
    for (const name of listsIn(this.folder)) if (!lists.has(name)) rmSync(join(this.folder, LISTS_FOLDER, name))
  }

  #write(name: string, bytes: Uint8Array): void {
    const path = join(this.folder, name)
    const fresh = join(this.folder, '.new')
    try {
      const fd = openSync(
        fresh,
        constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
        0o600,
      )
      try {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
        fsyncSync(fd) // before its name leads there
      } finally {
        closeSync(fd)
      }
      renameSync(fresh, path)
    } catch (cause) {
      rmSync(fresh, { force: true })
      throw keepError(this.folder, (cause as NodeJS.ErrnoException).code, cause)
    }
  }
}

function keepError(folder: string, why: string | undefined, cause?: unknown): LimpidError {
  return new LimpidError('LIMPID_POLICY_SOURCE', `cannot keep the shared policy in ${folder}: ${why}`, {
    cure: 'name a folder that only this user can write: policyFrom: { keep: … }',
    cause,
  })
}

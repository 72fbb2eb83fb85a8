import { accessSync, constants, lstatSync, mkdirSync, type Stats, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { LimpidError } from '../errors.ts'

/**
 * The folders that may hold state files, best first: LIMPID_STATE_DIR alone where it is set, else /run/limpid, a folder
 * below XDG_RUNTIME_DIR, and one of this user's below that for temporary files. Absolute: nft does not know our folder.
 */
export function stateFolders(): string[] {
  const named = process.env.LIMPID_STATE_DIR
  if (named) return [resolve(named)]
  const runtime = process.env.XDG_RUNTIME_DIR
  return ['/run/limpid', ...(runtime ? [join(runtime, 'limpid')] : []), join(tmpdir(), `limpid-${ownUid()}`)].map(
    (folder) => resolve(folder),
  )
}

/**
 * The first of them that can be written, made when it is missing. Never changes one that is there.
 * @throws LimpidError LIMPID_RULES_FAILED that says what is wrong with the first.
 */
export function stateFolder(): string {
  let why: string | undefined
  for (const folder of stateFolders()) {
    const problem = makingProblem(folder)
    if (problem === undefined) return folder
    why ??= problem
  }
  throw new LimpidError('LIMPID_RULES_FAILED', `cannot keep a record of the rules: ${why}`, {
    cure: 'set LIMPID_STATE_DIR to a folder that only this user can write',
  })
}

/** Why what lies in a folder is not to be believed: it is not a folder of this user, or others can write it. */
export function trustProblem(folder: string): string | undefined {
  try {
    return statsProblem(folder, lstatSync(folder))
  } catch (error) {
    return (error as Error).message
  }
}

function makingProblem(folder: string): string | undefined {
  try {
    makeFolder(folder)
    accessSync(folder, constants.W_OK) // a read-only file system tells
  } catch (error) {
    return (error as Error).message
  }
  return trustProblem(folder)
}

/** Not mkdir's `recursive`: Node 20 never comes back from it where a folder is there but takes no new one, as /proc. */
function makeFolder(folder: string): void {
  const found = statsOf(folder)
  if (found?.isDirectory()) return
  if (found !== undefined) throw new Error(`${folder} is not a folder`)
  const parent = dirname(folder)
  if (parent !== folder) makeFolder(parent)
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (code !== 'EEXIST') throw new Error(`cannot make the folder ${folder}: ${code}`, { cause: error }) // made meanwhile
  }
}

/** Undefined when there is nothing, also where a parent is a file. */
function statsOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined
    throw error
  }
}

function statsProblem(folder: string, found: Stats): string | undefined {
  if (!found.isDirectory()) return `${folder} is not a folder`
  if (found.uid !== ownUid()) return `${folder} is not a folder of uid ${ownUid()}`
  if ((found.mode & 0o022) !== 0) return `others can write the folder ${folder} (chmod go-w ${folder})`
  return undefined
}

function ownUid(): number {
  return process.getuid?.() ?? 0
}

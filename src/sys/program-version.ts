import { statSync } from 'node:fs'
import { findProgram, mustRun } from './program.ts'

/** By the file that was asked: a program may be replaced while we run. */
const known = new Map<string, Promise<string>>()

/**
 * What a program answers to `--version`, asked once for each file that it is.
 * @throws LimpidError LIMPID_PROGRAM when it is not there, or does not answer.
 */
export async function versionOf(program: string): Promise<string> {
  const path = findProgram(program)
  const { dev, ino, size, mtimeMs } = statSync(path)
  const file = [path, dev, ino, size, mtimeMs].join(' ')
  const version = known.get(file) ?? mustRun(path, ['--version']).then((text) => text.trim())
  known.set(file, version)
  version.catch(() => known.delete(file)) // it may answer the next time
  return await version
}

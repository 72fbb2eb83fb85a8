import { accessSync, closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { extname, join } from 'node:path'
import { LimpidError } from '../errors.ts'
import { MAX_CONFIG_BYTES } from './limits.ts'
import { distrustConfig } from './trusted-file.ts'

/** Where a configuration is looked for when no flag names it, first to last. */
export function configPaths(env: NodeJS.ProcessEnv): string[] {
  return configFolders(env).flatMap((folder) => CONFIG_NAMES.map((name) => join(folder, name)))
}

/** In each folder, the first that is there. */
export const CONFIG_NAMES = ['limpid.yaml', 'limpid.config.ts', 'limpid.config.mjs', 'limpid.config.js']

/** Whether a configuration is code, by its name. */
export function isProgramFile(path: string): boolean {
  return ['.ts', '.mts', '.js', '.mjs'].includes(extname(path))
}

export function configFolders(env: NodeJS.ProcessEnv): string[] {
  const home = env.XDG_CONFIG_HOME ?? (env.HOME === undefined ? undefined : join(env.HOME, '.config'))
  return ['/etc/limpid', ...(home === undefined ? [] : [join(home, 'limpid')])]
}

/**
 * The file to read: `flag`, else $LIMPID_CONFIG, else the first of configPaths() that is there; undefined when none is.
 */
export function findConfig(flag: string | undefined, env: NodeJS.ProcessEnv): string | undefined {
  return flag ?? (env.LIMPID_CONFIG || undefined) ?? configPaths(env).find(isThere)
}

function isThere(path: string): boolean {
  try {
    accessSync(path, constants.F_OK)
    return true
  } catch {
    return false
  }
}

/**
 * The text of a configuration file. `decides`: what it says will be done, not only told: so others must not have written it.
 * @throws LimpidError LIMPID_CONFIG when it cannot be read, is too large, or can be written by others.
 */
export function readConfig(path: string, { decides = false }: { readonly decides?: boolean } = {}): string {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK) // a FIFO would wait for its writer
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'there is no such file' : code
    throw new LimpidError('LIMPID_CONFIG', `cannot read ${path}: ${why}`, { cure: 'name another with -c', cause })
  }
  try {
    const stat = fstatSync(fd)
    if (stat.isDirectory()) throw unreadable(path, 'it is a directory')
    const why = decides ? distrustConfig(stat) : undefined
    if (why !== undefined) {
      const cure = `let it belong to root or to you, and nobody else write it: chmod go-w ${path}`
      throw new LimpidError('LIMPID_CONFIG', `${path} is not followed: ${why}`, { cure })
    }
    if (stat.size > MAX_CONFIG_BYTES) throw unreadable(path, `${stat.size} bytes are more than ${MAX_CONFIG_BYTES}`)
    return new TextDecoder('utf-8', { fatal: true }).decode(readBounded(fd, path))
  } catch (cause) {
    if (cause instanceof LimpidError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    throw unreadable(path, code === 'ERR_ENCODING_INVALID_ENCODED_DATA' ? 'it is not UTF-8' : String(code), cause)
  } finally {
    closeSync(fd)
  }
}

/** Also for what has no size: /dev/stdin, process substitution. */
function readBounded(fd: number, path: string): Uint8Array {
  const bytes = Buffer.alloc(MAX_CONFIG_BYTES + 1)
  let length = 0
  for (;;) {
    const count = readSync(fd, bytes, length, bytes.length - length, null)
    length += count
    if (length > MAX_CONFIG_BYTES) throw unreadable(path, `more than ${MAX_CONFIG_BYTES} bytes`)
    if (count === 0) return bytes.subarray(0, length)
  }
}

function unreadable(path: string, why: string, cause?: unknown): LimpidError {
  return new LimpidError('LIMPID_CONFIG', `cannot read ${path}: ${why}`, { cause })
}

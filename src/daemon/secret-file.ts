import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { distrust } from '../config/trust.ts'
import { LimpidError } from '../errors.ts'

const MAX_BYTES = 65_536

/** A file that tells others who we are, or us who they are. @throws LimpidError LIMPID_CONFIG when it cannot be read, or others can write it. */
export function readSecret(path: string): Buffer {
  try {
    const fd = openSync(path, 'r')
    try {
      const stats = fstatSync(fd)
      const why = distrust(stats, process.geteuid!())
      if (why !== undefined) throw new LimpidError('LIMPID_CONFIG', `${path}: ${why}`, { cure: `chmod go-w ${path}` })
      if (!stats.isFile() || stats.size > MAX_BYTES) {
        throw new LimpidError('LIMPID_CONFIG', `${path}: it is not a file of at most ${MAX_BYTES} bytes`)
      }
      return readFileSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    if (cause instanceof LimpidError) throw cause
    throw new LimpidError('LIMPID_CONFIG', `cannot read ${path}: ${(cause as NodeJS.ErrnoException).code}`, { cause })
  }
}

import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { distrust } from '../config/trust.ts'
import { ListError } from './list-error.ts'

/** Bytes of one list: two million lines of a hosts file. */
export const MAX_LIST_BYTES = 64 * 1024 * 1024

const READ_BYTES = 1024 * 1024 // hashed in one turn of the event loop: a millisecond or two

export interface ListBytes {
  readonly bytes: Buffer
  /** SHA-256, to know the same content again. */
  readonly digest: string
}

/** The content of a list's file. @throws ListError when it cannot be read, is too large, or can be written by others. */
export async function readListFile(path: string): Promise<ListBytes> {
  let file: FileHandle | undefined
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK) // a FIFO would wait for its writer
    const stats = await file.stat()
    if (!stats.isFile()) throw new ListError([`${path}: it is not a file`])
    const why = distrust(stats, process.geteuid?.() ?? 0)
    if (why !== undefined) throw new ListError([`${path}: ${why}`], { cure: `chown root ${path}; chmod go-w ${path}` })
    return await readBounded(file, path, stats.size)
  } catch (cause) {
    if (cause instanceof ListError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    throw new ListError([`cannot read ${path}: ${code === 'ENOENT' ? 'there is no such file' : code}`], { cause })
  } finally {
    await file?.close()
  }
}

async function readBounded(file: FileHandle, path: string, size: number): Promise<ListBytes> {
  if (size > MAX_LIST_BYTES) throw new ListError([`${path}: ${size} bytes are more than ${MAX_LIST_BYTES}`])
  const bytes = Buffer.allocUnsafeSlow(size) // what is written to it meanwhile is read with the next change
  const hash = createHash('sha256')
  let length = 0
  while (length < size) {
    const { bytesRead } = await file.read(bytes, length, Math.min(READ_BYTES, size - length), length)
    if (bytesRead === 0) break
    hash.update(bytes.subarray(length, length + bytesRead))
    length += bytesRead
  }
  return { bytes: bytes.subarray(0, length), digest: hash.digest('hex') }
}

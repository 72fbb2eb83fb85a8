import type { Stats } from 'node:fs'

/**
 * Why a file must not decide what Limpid does: others than root and the running user can write it. Undefined when they cannot. Of a file
 * that is open already (fstat), so that it is this file that is read. Its folder need not be looked at: what others put in its place
 * is theirs.
 */
export function distrust({ uid, gid, mode }: Pick<Stats, 'uid' | 'gid' | 'mode'>, ownUid: number): string | undefined {
  if (uid !== 0 && uid !== ownUid) return `it belongs to uid ${uid}, not to root or uid ${ownUid}`
  if ((mode & 0o002) !== 0) return 'others can write it'
  if ((mode & 0o020) !== 0 && gid !== 0) return `its group, gid ${gid}, can write it`
  return undefined
}

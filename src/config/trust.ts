import type { Stats } from 'node:fs'

type Owned = Pick<Stats, 'uid' | 'gid' | 'mode'>

const STICKY = 0o1000 // who may write there may still not replace what is another's (inode(7))

/**
 * Why a file must not decide what Limpid does: others than root and the running user can write it. Undefined when they cannot. Of a file
 * that is open already (fstat), so that it is this file that is read. Its folder need not be looked at, unless it is code (see
 * distrustFolder): what others put in its place is theirs.
 */
export function distrust({ uid, gid, mode }: Owned, ownUid: number): string | undefined {
  if (uid !== 0 && uid !== ownUid) return `it belongs to uid ${uid}, not to root or uid ${ownUid}`
  if ((mode & 0o002) !== 0) return 'others can write it'
  if ((mode & 0o020) !== 0 && gid !== 0) return `its group, gid ${gid}, can write it`
  return undefined
}

/**
 * The same of a folder with code. `isOwn`: the one that the code lies in, where others could add files that it imports. Of a folder further up
 * it is enough that others cannot put another one in its place.
 */
export function distrustFolder(
  folder: Owned,
  ownUid: number,
  { isOwn }: { readonly isOwn: boolean },
): string | undefined {
  if (isOwn) return distrust(folder, ownUid)
  return (folder.mode & STICKY) !== 0 ? undefined : distrust({ ...folder, uid: ownUid }, ownUid)
}

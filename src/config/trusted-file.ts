import { readFileSync, type Stats } from 'node:fs'
import { distrust } from './trust.ts'

const ALL_UIDS = 0xffff_ffff // of the initial user namespace: user_namespaces(7)

/**
 * Why a configuration file that is open (fstat) must not decide what Limpid does; undefined: it may. Only asked of regular files: who gives a
 * pipe or a terminal as the configuration is there. In a user namespace all owners that it does not know look like one: who that is
 * cannot be told, and Limpid has no power over what is theirs; then it is enough that nobody else can write.
 */
export function distrustConfig(stats: Stats): string | undefined {
  if (!stats.isFile()) return undefined
  const ownUid = process.geteuid!()
  const isForeign = stats.uid !== 0 && stats.uid !== ownUid
  const isUnknown =
    isForeign && stats.uid === uidOfUnknown(readLine('/proc/self/uid_map'), readLine('/proc/sys/kernel/overflowuid'))
  return distrust(isUnknown ? { uid: ownUid, gid: stats.gid, mode: stats.mode } : stats, ownUid)
}

/** What the kernel shows for owners that a user namespace with this `uid_map` does not know; undefined where it knows all. */
export function uidOfUnknown(uidMap: string, overflowUid: string): number | undefined {
  const mapped = uidMap
    .trim()
    .split('\n')
    .reduce((sum, line) => sum + Number(line.trim().split(/\s+/)[2] ?? 0), 0)
  return mapped >= ALL_UIDS || overflowUid.trim() === '' ? undefined : Number(overflowUid)
}

/** Empty where there is no such file. */
function readLine(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

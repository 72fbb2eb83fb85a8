import { readdir, readFile, readlink } from 'node:fs/promises'
import type { Family } from '../net/address.ts'

const MAX_PROCESSES = 10_000

/** `dnsmasq (pid 123)`: who has a UDP socket bound to this port; undefined when nobody has, or we may not see it. */
export async function udpPortOwner(port: number, family: Family): Promise<string | undefined> {
  // a socket of IPv6 may have the port of both families
  const tables = family === 4 ? ['udp', 'udp6'] : ['udp6']
  const inodes = new Set<string>()
  for (const table of tables) for (const inode of await inodesOn(table, port)) inodes.add(inode)
  if (inodes.size === 0) return undefined
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== `${process.pid}`)
  for (const pid of pids.slice(0, MAX_PROCESSES)) {
    if (!(await holdsOne(pid, inodes))) continue
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?')
    return `${name.trim()} (pid ${pid})`
  }
  return undefined
}

/** Of proc_net_udp(5): `sl local_address rem_address st … inode`, the port in hexadecimal. */
async function inodesOn(table: string, port: number): Promise<string[]> {
  const text = await readFile(`/proc/self/net/${table}`, 'latin1').catch(() => '')
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(suffix) === true)
    .map((fields) => fields[9]!)
}

async function holdsOne(pid: string, inodes: ReadonlySet<string>): Promise<boolean> {
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => []) // it has ended, or is another user's
  for (const fd of fds) {
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')
    const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1]
    if (inode !== undefined && inodes.has(inode)) return true
  }
  return false
}

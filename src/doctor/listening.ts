import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { ListenerConfig, Protocol } from '../config/types.ts'
import { type Endpoint, familyOf, formatEndpoint } from '../net/address.ts'
import { printable } from '../net/printable.ts'
import { type Finding, note, ok, wrong } from './finding.ts'
import { type KernelSocket, readOpenSockets } from './kernel-sockets.ts'

/** Who listens at the places that the config names. */
export interface Listening {
  readonly listener: string
  readonly endpoint: Endpoint
  readonly protocol: Protocol
  /** The listening socket; undefined when there is none. */
  readonly socket: KernelSocket | undefined
  /** Its process, where /proc tells. */
  readonly holder: Holder | undefined
}

export interface Holder {
  readonly pid: number
  readonly name: string
}

export function readListening(listeners: readonly ListenerConfig[]): Listening[] {
  const sockets = { tcp: readOpenSockets('tcp'), udp: readOpenSockets('udp') }
  const found = listeners.flatMap(({ name, listen, protocols }) =>
    protocols.flatMap((protocol) =>
      listen.map((endpoint) => ({
        listener: name,
        endpoint,
        protocol,
        socket: sockets[protocol].find((socket) => serves(socket, endpoint)),
      })),
    ),
  )
  const holders = holdersOf(new Set(found.map(({ socket }) => socket?.inode).filter((inode) => inode !== undefined)))
  return found.map((each) => ({ ...each, holder: each.socket && holders.get(each.socket.inode) }))
}

export function listeningFindings(
  listening: readonly Listening[],
  rulesAreThere: boolean,
  runCommand: string,
): Finding[] {
  return listening.map(({ listener, endpoint, protocol, socket, holder }) => {
    const at = `${formatEndpoint(endpoint)}${protocol === 'udp' ? ' for UDP' : ''}`
    if (socket !== undefined) {
      return ok(
        'listener',
        `listener ${listener} waits at ${at}${holder === undefined ? '' : ` (${holder.name}, pid ${holder.pid})`}`,
      )
    }
    const what = `nothing listens at ${at} (listener ${listener})`
    if (!rulesAreThere) return note('listener', `${what}: Limpid is not running`, runCommand)
    return wrong('listener', `${what}, but its rules are installed: packets find no socket`, runCommand)
  })
}

function serves({ local }: KernelSocket, { address, port }: Endpoint): boolean {
  if (local.port !== port) return false
  if (local.address === address) return true
  return local.address === '::' || (local.address === '0.0.0.0' && familyOf(address) === 4)
}

/** The processes that hold these sockets, by inode; those that we may not look at are missing. */
function holdersOf(inodes: ReadonlySet<string>): Map<string, Holder> {
  const holders = new Map<string, Holder>()
  for (const pid of inodes.size === 0 ? [] : readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    for (const inode of socketsOf(pid)) {
      if (inodes.has(inode) && !holders.has(inode)) holders.set(inode, { pid: Number(pid), name: nameOf(pid) })
    }
    if (holders.size === inodes.size) break
  }
  return holders
}

function socketsOf(pid: string): string[] {
  try {
    const links = readdirSync(`/proc/${pid}/fd`).map((fd) => tryReadlink(`/proc/${pid}/fd/${fd}`))
    return links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1]).filter((inode) => inode !== undefined)
  } catch {
    return [] // another user's, or gone
  }
}

function tryReadlink(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

function nameOf(pid: string): string {
  try {
    return printable(readFileSync(`/proc/${pid}/comm`, 'latin1').trim()) // its user has chosen it
  } catch {
    return '?'
  }
}

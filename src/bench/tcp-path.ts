import { once } from 'node:events'
import { LimpidError } from '../errors.ts'
import { ADDRESSES } from '../lab/topology.ts'
import { kindOf, type Raise, READY_TIMEOUT_MS } from './on-topology.ts'
import { BULK_PORT } from './ports.ts'
import type { Subject, SubjectKind } from './suite.ts'

const programUrl = (name: string): string => new URL(`./${name}.js`, import.meta.url).pathname
/** Apart, so that the bulk that one sends does not delay the other's replies. */
const SERVER_PROCESSES = [programUrl('server-process'), programUrl('echo-server-process')]

/** Where a subject's traffic must be seen to go. */
export interface Path {
  /** Whose address the server sees. */
  readonly source: 'client' | 'proxy'
  /** Whether X has sockets of the flow. */
  readonly isProxied: boolean
}

export const PROXIED: Path = { source: 'client', isProxied: true }
export const FORWARDED: Path = { source: 'client', isProxied: false }

/** A subject with the servers on Z running, and its path verified. */
export function tcpKind(name: string, path: Path, raise: Raise): SubjectKind {
  return kindOf(name, raise, { servers: SERVER_PROCESSES, verify: (subject) => verifyPath(subject, path) })
}

/**
 * Holds one connection open and looks: the server must see the right address, and the proxy's host must have an established
 * socket of its own if, and only if, it is to be proxied.
 * @throws LimpidError LIMPID_LAB when the figures would be those of something else.
 */
async function verifyPath({ name, topology, dialled }: Subject, { source, isProxied }: Path): Promise<void> {
  const { x, y, z } = topology
  const { y: client, xz: proxy } = ADDRESSES[4]
  const expected = source === 'client' ? client : proxy
  const socket = y.connect({ address: dialled, port: BULK_PORT })
  try {
    await once(socket, 'readable', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) })
    const seen = await z.run('ss', ['-Htn', 'state', 'established', `sport = :${BULK_PORT}`])
    if (!seen.includes(` ${expected}:`)) {
      throw new LimpidError('LIMPID_LAB', `${name}: the server sees ${seen.trim()} instead of ${expected}`)
    }
    const taken = await x.run('ss', ['-Htn', 'state', 'established', `sport = :${BULK_PORT}`])
    if ((taken !== '') !== isProxied) {
      throw new LimpidError('LIMPID_LAB', `${name}: traffic goes ${taken === '' ? 'past' : 'through'} a proxy`)
    }
  } finally {
    socket.destroy()
  }
}

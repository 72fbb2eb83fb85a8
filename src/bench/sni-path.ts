import { LimpidError } from '../errors.ts'
import { ADDRESSES } from '../lab/topology.ts'
import { HELD_NAME, helloFor, SERVER_NAMES } from './client-hello.ts'
import { kindOf, type Raise, READY_TIMEOUT_MS } from './on-topology.ts'
import { NAMED_PORTS, TLS_PORT } from './ports.ts'
import type { Subject, SubjectKind } from './suite.ts'

const SERVER_PROCESS = new URL('./hello-server-process.js', import.meta.url).pathname
const HELD_PORT = NAMED_PORTS + SERVER_NAMES.length
const POLL_MS = 20

/** Every name with its server's port on Z. */
export const ROUTES: readonly (readonly [name: string, port: number])[] = [...SERVER_NAMES, HELD_NAME].map(
  (name, i) => [name, NAMED_PORTS + i] as const,
)

/** A subject that routes by server name, with the servers on Z running, and its path verified. */
export function sniKind(name: string, raise: Raise): SubjectKind {
  return kindOf(name, raise, { servers: [SERVER_PROCESS], verify: verifyPath })
}

/**
 * Holds one routed connection open and looks: the server of its name must see the client's address, and the proxy must have it.
 * @throws LimpidError LIMPID_LAB when the figures would be those of something else.
 */
async function verifyPath({ name, topology, dialled }: Subject): Promise<void> {
  const { x, y, z } = topology
  const socket = y.connect({ address: dialled, port: TLS_PORT })
  socket.on('error', () => {}) // nothing is seen, then
  try {
    socket.write(helloFor(HELD_NAME))
    const deadlineAt = performance.now() + READY_TIMEOUT_MS
    let seen = ''
    while (seen === '' && performance.now() < deadlineAt) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      seen = await z.run('ss', ['-Htn', 'state', 'established', `sport = :${HELD_PORT}`])
    }
    if (!seen.includes(` ${ADDRESSES[4].y}:`)) {
      throw new LimpidError('LIMPID_LAB', `${name}: the server of ${HELD_NAME} sees ${seen.trim() || 'nobody'}`)
    }
    const taken = await x.run('ss', ['-Htn', 'state', 'established', `sport = :${TLS_PORT}`])
    if (taken === '') throw new LimpidError('LIMPID_LAB', `${name}: traffic goes past the proxy`)
  } finally {
    socket.destroy()
  }
}

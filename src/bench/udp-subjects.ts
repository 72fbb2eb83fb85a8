import { LimpidError } from '../errors.ts'
import { ADDRESSES, X_TO_Y } from '../lab/topology.ts'
import { noNginx, raiseNginx } from './nginx.ts'
import { forwarding, kindOf, type Raise, startLimpid } from './on-topology.ts'
import { UDP_PORT } from './ports.ts'
import type { Subject, SubjectKind } from './suite.ts'
import { runUdpLoad } from './udp-load.ts'

const { xy: PROXY, z: SERVER } = ADDRESSES[4]

const INTERCEPTED = [
  ...['--intercept', 'tproxy', '--protocol', 'udp', '--from', X_TO_Y, '--family', '4', '--ports', String(UDP_PORT)],
  ...['--source', 'client', '--listen', '127.0.0.1:50080'],
]
/** Clients dial X, as they must with nginx. */
const DIALLED = [
  ...['--intercept', 'none', '--protocol', 'udp', '--listen', `${PROXY}:${UDP_PORT}`],
  ...['--to', `${SERVER}:${UDP_PORT}`, '--source', 'client'],
]

export const UDP_SUBJECTS: readonly SubjectKind[] = [
  kind('limpid', (topology, env) => startLimpid(topology, INTERCEPTED, { name: 'limpid', dialled: SERVER }, env)),
  kind('limpid-none', (topology, env) => startLimpid(topology, DIALLED, { name: 'limpid-none', dialled: PROXY }, env)),
  { ...kind('nginx', (topology) => raiseNginx(topology, 'udp', [UDP_PORT])), missing: noNginx },
  kind('forwarding', async (topology) => forwarding(topology)),
]

function kind(name: string, raise: Raise): SubjectKind {
  return kindOf(name, raise, { verify: verifyPath })
}

const TRIAL = { sessions: 4, size: 64, burst: 1, window: 4, isEcho: true }
const TRIAL_SECONDS = 0.2

/**
 * Sends some requests, and looks: the server sees the client's address, the client has its replies from where it sent to (both
 * is the load's to verify), and the proxy's host has sockets of these sessions if, and only if, there is a proxy.
 * @throws LimpidError LIMPID_LAB when the figures would be those of something else.
 */
async function verifyPath(subject: Subject): Promise<void> {
  const { name, topology, pid } = subject
  await runUdpLoad(subject, TRIAL, TRIAL_SECONDS)
  const taken = await topology.x.run('ss', ['-Hun', 'state', 'established', `dport = :${UDP_PORT}`])
  if ((taken !== '') !== (pid !== undefined)) {
    throw new LimpidError('LIMPID_LAB', `${name}: traffic goes ${taken === '' ? 'past' : 'through'} a proxy`)
  }
}

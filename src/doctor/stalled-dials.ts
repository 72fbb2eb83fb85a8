import { formatEndpoint } from '../net/address.ts'
import { type Finding, note } from './finding.ts'
import type { KernelSocket } from './kernel-sockets.ts'

/**
 * Our SYNs to servers, from addresses that are not this host's, that nobody has answered though they were sent again. From here
 * a dead server, a filter and a missing route back look alike.
 */
export function stalledDialFindings(
  sockets: readonly KernelSocket[],
  own: ReadonlySet<string>,
  doctorCommand: string,
): Finding[] {
  const stalled = sockets.filter(
    ({ state, local, retransmits }) => state === 'SYN-SENT' && retransmits > 0 && !own.has(local.address),
  )
  const byServer = new Map<string, KernelSocket[]>()
  for (const socket of stalled) {
    const server = formatEndpoint(socket.remote)
    byServer.set(server, [...(byServer.get(server) ?? []), socket])
  }
  return [...byServer].map(([server, sockets]) => {
    const [{ local }] = sockets as [KernelSocket]
    const dials = sockets.length === 1 ? '1 dial' : `${sockets.length} dials`
    const what = `${dials} to ${server} with a client's address ${sockets.length === 1 ? 'gets' : 'get'} no answer`
    return note(
      'server',
      `${what}: the server is down, filtered, or has no route back to ${local.address} through this host`,
      `${doctorCommand} --server ${server} (tells which)`,
    )
  })
}

/** What the server's operator must do; `through`: the address by which the server reaches this host. */
export function returnRouteCommand(server: string, client: string, through = 'THIS-HOST'): string {
  return `on ${server}: ip route add ${client} via ${through} (better: the clients' whole network)`
}

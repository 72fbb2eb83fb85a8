import { formatEndpoint } from '../net/address.ts'
import { type Finding, wrong } from './finding.ts'
import type { KernelSocket } from './kernel-sockets.ts'

/** Our SYNs to servers, from addresses that are not this host's, that nobody has answered though they were sent again. */
export function stalledDialFindings(sockets: readonly KernelSocket[], own: ReadonlySet<string>): Finding[] {
  const stalled = sockets.filter(
    ({ state, local, retransmits }) => state === 'SYN-SENT' && retransmits > 0 && !own.has(local.address),
  )
  const byServer = new Map<string, KernelSocket[]>()
  for (const socket of stalled)
    byServer.set(socket.remote.address, [...(byServer.get(socket.remote.address) ?? []), socket])
  return [...byServer].map(([server, sockets]) => {
    const [{ local, remote }] = sockets as [KernelSocket]
    const what = `${sockets.length} dials to ${formatEndpoint(remote)} with a client's address (${local.address}) get no answer`
    return wrong(
      'server',
      `${what}: ${server} has no route to ${local.address} through this host`,
      returnRouteCommand(server, local.address),
    )
  })
}

/** What the server's operator must do; `through`: the address by which the server reaches this host. */
export function returnRouteCommand(server: string, client: string, through = 'THIS-HOST'): string {
  return `on ${server}: ip route add ${client} via ${through} (better: the clients' whole network)`
}

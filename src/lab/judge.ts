import { type Endpoint, type Family, formatEndpoint, sameEndpoint } from '../net/address.ts'
import type { KnowsRow } from '../ruleset/knows.ts'
import type { Sight } from './exchange.ts'
import type { Knowledge } from './report.ts'
import { acceptedEndpoint, dialledEndpoint, type Scenario, serverEndpoint } from './scenarios.ts'
import type { SocketRow } from './sockets.ts'
import { ADDRESSES, type Addresses, BRIDGE_ADDRESSES } from './topology.ts'

/** Both topologies', by family. */
const HOSTS = ([ADDRESSES, BRIDGE_ADDRESSES] satisfies Addresses[]).flatMap((addresses) => [addresses[4], addresses[6]])

/** Every address of X, of both families and topologies. */
export const X_ADDRESSES: ReadonlySet<string> = new Set(HOSTS.flatMap(({ xy, xz }) => [xy, xz]))

/** The row of a prediction for this scenario. */
export function predictedKnowledge(rows: readonly KnowsRow[], scenario: Scenario, family: Family): Knowledge {
  const local = scenario.client === 'x'
  const row = rows.find((row) => row.family === family && row.clientDials === scenario.dials && row.local === local)
  if (row === undefined) return { clientSees: 'nobody', serverSees: 'nobody', verdict: 'nothing is predicted' }
  return { clientSees: row.clientSees, serverSees: row.serverSees, verdict: row.verdict }
}

/** What both ends saw, in the words of the prediction. */
export function observedKnowledge(sight: Sight, predicted: Knowledge): Knowledge {
  const clientSees = ownerOf(sight.clientSees.address)
  const known = ownerOf(sight.serverSees.address)
  const serverSees = known === 'client' && sight.serverSees.port === sight.client.port ? 'client:port' : known
  const same = clientSees === predicted.clientSees && serverSees === predicted.serverSees
  return {
    clientSees,
    serverSees,
    verdict: same ? predicted.verdict : `Y knows ${hostName(clientSees)}; Z knows ${hostName(serverSees)}`,
  }
}

/** Each way in which an observation is not what the scenario and the prediction say; empty when it is. */
export function judge(
  scenario: Scenario,
  family: Family,
  seen: { readonly sight: Sight; readonly sockets: readonly SocketRow[] },
  predicted: Knowledge,
): string[] {
  const { sight } = seen
  const observed = observedKnowledge(sight, predicted)
  const differences: string[] = []
  for (const [host, side] of [
    ['Y', 'clientSees'],
    ['Z', 'serverSees'],
  ] as const) {
    if (observed[side] !== predicted[side]) {
      differences.push(
        `${host} sees ${hostName(observed[side])}: ${formatEndpoint(sight[side])}; predicted: ${hostName(predicted[side])}`,
      )
    }
  }
  differences.push(...socketDifferences(scenario, family, seen))
  return differences
}

function socketDifferences(
  scenario: Scenario,
  family: Family,
  { sight, sockets }: { readonly sight: Sight; readonly sockets: readonly SocketRow[] },
): string[] {
  const differences: string[] = []
  const dialled = dialledEndpoint(scenario, family)
  const accepted = acceptedEndpoint(scenario, family)
  if (accepted === undefined) {
    const stray = sockets.find(({ peer }) => sameEndpoint(peer, sight.client))
    if (stray !== undefined) {
      differences.push(
        `ss on X shows a socket with the peer ${formatEndpoint(stray.peer)}; predicted: none, the kernel passes packets on`,
      )
    }
  } else {
    for (const [local, peer] of [
      [accepted, sight.client],
      [sight.serverSees, serverEndpoint(scenario, family)],
    ] as const) {
      if (!isEstablished(sockets, local, peer)) {
        differences.push(`ss on X shows no socket ${formatEndpoint(local)} with the peer ${formatEndpoint(peer)}`)
      }
    }
  }
  if (!scenario.listensOnDialledPort && listensOn(sockets, dialled.port)) {
    differences.push(`something on X listens on port ${dialled.port}; predicted: nothing, its packets are intercepted`)
  }
  return differences
}

function isEstablished(sockets: readonly SocketRow[], local: Endpoint, peer: Endpoint): boolean {
  return sockets.some((row) => row.state === 'ESTAB' && sameEndpoint(row.local, local) && sameEndpoint(row.peer, peer))
}

/** True when a socket listens on this port, at whatever address. */
export function listensOn(sockets: readonly SocketRow[], port: number): boolean {
  return sockets.some((row) => row.state === 'LISTEN' && row.local.port === port)
}

/** Whose address it is, as a role; the address itself when it is of none of the three hosts. */
function ownerOf(address: string): string {
  if (HOSTS.some(({ y }) => address === y)) return 'client'
  if (HOSTS.some(({ z }) => address === z)) return 'server'
  return X_ADDRESSES.has(address) ? 'proxy' : address
}

const HOST_NAMES: Readonly<Record<string, string>> = {
  client: 'Y',
  'client:port': 'Y with its port',
  proxy: 'X',
  server: 'Z',
}

/** `X` for `proxy`, and so on; other text stays. */
export function hostName(role: string): string {
  return HOST_NAMES[role] ?? role
}

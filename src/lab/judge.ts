import { type Endpoint, type Family, formatEndpoint, sameEndpoint } from '../net/address.ts'
import type { KnowsRow } from '../ruleset/knows.ts'
import type { Sight } from './exchange.ts'
import { hostName, ownerOf } from './owners.ts'
import type { Evidence, Knowledge } from './report.ts'
import { listensOn } from './roles.ts'
import { acceptedEndpoint, dialledEndpoint, type FlowScenario, serverEndpoint } from './scenario.ts'
import type { SocketRow } from './sockets.ts'

/** The row of a prediction for this scenario. */
export function predictedKnowledge(rows: readonly KnowsRow[], scenario: FlowScenario, family: Family): Knowledge {
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
  scenario: FlowScenario,
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

/** Those pieces of evidence that are not as predicted. */
export function evidenceDifferences(evidence: readonly Evidence[]): string[] {
  return evidence
    .filter(({ predicted, observed }) => observed !== predicted)
    .map(({ what, predicted, observed }) => `${what}: ${observed}; predicted: ${predicted}`)
}

function socketDifferences(
  scenario: FlowScenario,
  family: Family,
  { sight, sockets }: { readonly sight: Sight; readonly sockets: readonly SocketRow[] },
): string[] {
  if (!scenario.hasSockets) return straySocket(sockets, sight)
  const { port } = dialledEndpoint(scenario, family)
  const missing = expectedSockets(scenario, family, sight).filter((ends) => !isShown(sockets, ends))
  const differences = missing.map(({ local, peer }) => {
    const withPeer = peer === undefined ? '' : ` with the peer ${formatEndpoint(peer)}`
    return `ss on X shows no socket ${formatEndpoint(local)}${withPeer}`
  })
  const listens = listensOn(sockets, port)
  if (listens && !scenario.listensOnDialledPort) {
    differences.push(`something on X listens on port ${port}; predicted: nothing, its packets are intercepted`)
  }
  if (!listens && scenario.listensOnDialledPort) differences.push(`ss on X shows nothing that listens on port ${port}`)
  return differences
}

function straySocket(sockets: readonly SocketRow[], { client }: Sight): string[] {
  const stray = sockets.find(({ peer }) => sameEndpoint(peer, client))
  if (stray === undefined) return []
  const shown = formatEndpoint(stray.peer)
  return [`ss on X shows a socket with the peer ${shown}; predicted: none, the kernel passes packets on`]
}

interface Ends {
  readonly local: Endpoint
  /** Undefined for a socket that is not connected. */
  readonly peer?: Endpoint
}

/** The flow's sockets on X. Datagrams to a client leave by the listener where it has the port that was asked, else by a socket of its own. */
function expectedSockets(scenario: FlowScenario, family: Family, { client, serverSees }: Sight): Ends[] {
  const accepted = acceptedEndpoint(scenario, family)
  const upstream = { local: serverSees, peer: serverEndpoint(scenario, family) }
  if (scenario.protocol === 'tcp') return [{ local: accepted, peer: client }, upstream]
  return scenario.listensOnDialledPort ? [upstream] : [{ local: accepted }, upstream]
}

function isShown(sockets: readonly SocketRow[], { local, peer }: Ends): boolean {
  const state = peer === undefined ? 'UNCONN' : 'ESTAB'
  return sockets.some(
    (row) =>
      row.state === state && sameEndpoint(row.local, local) && (peer === undefined || sameEndpoint(row.peer, peer)),
  )
}

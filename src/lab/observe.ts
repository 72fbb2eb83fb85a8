import type { ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, formatEndpoint, sameEndpoint } from '../net/address.ts'
import type { KnowsRow } from '../ruleset/knows.ts'
import { Exchange, greetingServer, type Sight } from './exchange.ts'
import { LimpidProcess } from './limpid-process.ts'
import type { Knowledge, LabRun } from './report.ts'
import { LISTEN_PORT, relayArguments, type Scenario, SERVER_PORT, scenarioConfig } from './scenarios.ts'
import { type SocketRow, tcpSockets } from './sockets.ts'
import { ADDRESSES, type Topology } from './topology.ts'

/** Says who will know whom: predictKnows, or another one in a test. */
export type Predict = (listener: ListenerConfig, own: ReadonlySet<string>) => readonly KnowsRow[]

const X_ADDRESSES: ReadonlySet<string> = new Set([4, 6].flatMap((family) => xAddresses(family as Family)))

function xAddresses(family: Family): string[] {
  return [ADDRESSES[family].xy, ADDRESSES[family].xz]
}

/**
 * Runs one scenario over one family: starts `limpid relay` on X as an operator does, lets Y dial, looks at X's sockets
 * while the connection is open, and compares what both ends saw with the prediction. Never throws for what a network
 * or the proxy does: that is a difference.
 */
export async function observe(
  topology: Topology,
  scenario: Scenario,
  family: Family,
  predict: Predict,
): Promise<LabRun> {
  const startedAt = performance.now()
  const addresses = ADDRESSES[family]
  const args = relayArguments(scenario, family)
  const dialled = scenario.intercepts
    ? { address: addresses.z, port: SERVER_PORT }
    : { address: addresses.xy, port: LISTEN_PORT }
  const seen: Seen = { sockets: [] }
  const differences: string[] = []
  const predicted = predictedKnowledge(scenario, family, predict)
  try {
    await look(topology, args, dialled, seen)
    differences.push(...judge(scenario, dialled, seen, predicted))
  } catch (error) {
    differences.push(error instanceof LimpidError ? error.message : String(error))
  }
  return {
    scenario: scenario.name,
    title: scenario.title,
    family,
    command: ['limpid', ...args].join(' '),
    dialled,
    sockets: seen.sockets,
    ...seen.sight,
    predicted,
    ...(seen.sight === undefined ? {} : { observed: observedKnowledge(seen.sight, predicted) }),
    ...(seen.bytes === undefined ? {} : { bytes: seen.bytes }),
    differences,
    passed: differences.length === 0,
    durationMs: performance.now() - startedAt,
  }
}

interface Seen {
  sockets: readonly SocketRow[]
  sight?: Sight
  bytes?: number
}

async function look(topology: Topology, args: string[], dialled: Endpoint, seen: Seen): Promise<void> {
  const { x, y, z } = topology
  const server = greetingServer(z, { address: args.at(-2)!, port: SERVER_PORT })
  let limpid: LimpidProcess | undefined
  let exchange: Exchange | undefined
  try {
    limpid = await LimpidProcess.start(x, args)
    exchange = await Exchange.open(y, dialled)
    seen.sight = exchange.sight
    seen.sockets = await tcpSockets(x)
    seen.bytes = await exchange.finish()
  } finally {
    exchange?.close()
    server.close()
    const code = await limpid?.stop()
    if (code !== undefined && code !== 0) {
      // biome-ignore lint/correctness/noUnsafeFinally: what went wrong before is most likely told by its stderr
      throw new LimpidError('LIMPID_LAB', `limpid ended with ${code}: ${limpid?.stderr}`)
    }
  }
}

function predictedKnowledge(scenario: Scenario, family: Family, predict: Predict): Knowledge {
  const dials = scenario.intercepts ? 'server' : 'proxy'
  const [listener] = scenarioConfig(scenario, family).listeners
  const row = predict(listener!, X_ADDRESSES).find((row) => row.family === family && row.clientDials === dials)
  if (row === undefined) {
    return { clientSees: 'nobody', serverSees: 'nobody', verdict: `no prediction for a client that dials the ${dials}` }
  }
  return { clientSees: row.clientSees, serverSees: row.serverSees, verdict: row.verdict }
}

function observedKnowledge(sight: Sight, predicted: Knowledge): Knowledge {
  const clientSees = who(sight.clientSees.address)
  const known = who(sight.serverSees.address)
  const samePort = sight.serverSees.port === sight.client.port
  const serverSees = known === 'client' && samePort ? 'client:port' : known
  const same = clientSees === predicted.clientSees && serverSees === predicted.serverSees
  const verdict = same ? predicted.verdict : `Y knows ${letter(clientSees)}; Z knows ${letter(known)}`
  return { clientSees, serverSees, verdict }
}

/** Whose address it is; the address itself when it is of none of the three hosts. */
function who(address: string): string {
  for (const family of [4, 6] as const) {
    if (address === ADDRESSES[family].y) return 'client'
    if (address === ADDRESSES[family].z) return 'server'
  }
  return X_ADDRESSES.has(address) ? 'proxy' : address
}

/** `X` for `proxy`, and so on. */
export function letter(role: string): string {
  const letters: Record<string, string> = { proxy: 'X', client: 'Y', 'client:port': 'Y, with its port', server: 'Z' }
  return letters[role] ?? role
}

function judge(scenario: Scenario, dialled: Endpoint, seen: Seen, predicted: Knowledge): string[] {
  const sight = seen.sight!
  const observed = observedKnowledge(sight, predicted)
  const differences: string[] = []
  if (observed.clientSees !== predicted.clientSees) {
    differences.push(`Y sees ${letter(observed.clientSees)}; predicted: ${letter(predicted.clientSees)}`)
  }
  if (observed.serverSees !== predicted.serverSees) {
    differences.push(`Z sees ${letter(observed.serverSees)}; predicted: ${letter(predicted.serverSees)}`)
  }
  for (const [local, peer, what] of [
    [dialled, sight.client, 'towards Y'],
    [sight.serverSees, { address: who(dialled.address) === 'server' ? dialled.address : '', port: SERVER_PORT }, 'towards Z'],
  ] as const) {
    const found = seen.sockets.some((row) => {
      const samePeer = peer.address === '' ? row.peer.port === peer.port : sameEndpoint(row.peer, peer)
      return row.state === 'ESTAB' && sameEndpoint(row.local, local) && samePeer
    })
    if (!found) differences.push(`ss on X shows no socket ${what} with the local address ${formatEndpoint(local)}`)
  }
  if (scenario.intercepts && listensOn(seen.sockets, dialled.port)) {
    differences.push(`something on X listens on port ${dialled.port}; predicted: nothing, the packets are intercepted`)
  }
  return differences
}

/** True when a socket listens on this port, at whatever address. */
export function listensOn(sockets: readonly SocketRow[], port: number): boolean {
  return sockets.some((row) => row.state === 'LISTEN' && row.local.port === port)
}

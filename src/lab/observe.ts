import { writeFileSync } from 'node:fs'
import type { ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Family, sameEndpoint } from '../net/address.ts'
import { type KnowsRow, predictForward } from '../ruleset/knows.ts'
import { Exchange, greetingServer, type Sight } from './exchange.ts'
import { judge, observedKnowledge, predictedKnowledge, X_ADDRESSES } from './judge.ts'
import { LimpidProcess } from './limpid-process.ts'
import type { LabRun } from './report.ts'
import { CONFIG_FILE, dialledEndpoint, type Scenario, serverEndpoint } from './scenarios.ts'
import { type SocketRow, tcpSockets } from './sockets.ts'
import type { Topology } from './topology.ts'

/** Says who will know whom: predictKnows, or another one in a test. */
export type Predict = (listener: ListenerConfig, own: ReadonlySet<string>) => readonly KnowsRow[]

/** What was seen before something went wrong, or all of it. */
interface Seen {
  sockets: readonly SocketRow[]
  sight?: Sight
  bytes?: number
}

/**
 * Runs one scenario over one family: starts limpid on X as an operator does, lets the client dial, looks at X's sockets
 * while the connection is open, and compares what both ends saw with the prediction. What goes wrong is a difference,
 * not an exception.
 */
export async function observe(
  topology: Topology,
  scenario: Scenario,
  family: Family,
  predict: Predict,
): Promise<LabRun> {
  const startedAt = performance.now()
  const { listeners, forwards } = scenario.config(family)
  const rows = [...listeners.flatMap((listener) => predict(listener, X_ADDRESSES)), ...forwards.map(predictForward)]
  const predicted = predictedKnowledge(rows, scenario, family)
  const seen: Seen = { sockets: [] }
  const differences: string[] = []
  try {
    await look(topology, scenario, family, seen)
  } catch (error) {
    differences.push((error instanceof LimpidError ? error.message : String(error)).trimEnd())
  }
  const { sight, sockets } = seen
  if (sight !== undefined) differences.push(...judge(scenario, family, { sight, sockets }, predicted))
  return {
    scenario: scenario.name,
    title: scenario.title,
    family,
    command: ['limpid', ...scenario.command(family)].join(' '),
    ...(scenario.file === undefined ? {} : { file: scenario.file(family) }),
    dialled: dialledEndpoint(scenario, family),
    sockets,
    ...sight,
    predicted,
    ...(sight === undefined ? {} : { observed: observedKnowledge(sight, predicted) }),
    ...(seen.bytes === undefined ? {} : { bytes: seen.bytes }),
    differences,
    passed: differences.length === 0,
    durationMs: performance.now() - startedAt,
  }
}

async function look(topology: Topology, scenario: Scenario, family: Family, seen: Seen): Promise<void> {
  const { x, y, z } = topology
  const client = scenario.client === 'x' ? x : y
  const server = greetingServer(z, serverEndpoint(scenario, family))
  try {
    const limpid = await LimpidProcess.start(x, commandOf(scenario, family))
    try {
      await converse(x, await Exchange.open(client, dialledEndpoint(scenario, family)), seen)
    } catch (cause) {
      throw new LimpidError('LIMPID_LAB', `${(cause as Error).message}${said(limpid)}`, { cause })
    } finally {
      await limpid.stop()
    }
    const code = await limpid.exited
    if (code !== 0) throw new LimpidError('LIMPID_LAB', `limpid ended with exit code ${code}${said(limpid)}`)
  } finally {
    server.close()
  }
}

/** The file goes to /run, which is the lab's own (enterNamespaces). */
function commandOf(scenario: Scenario, family: Family): string[] {
  const command = [...scenario.command(family)]
  if (scenario.file === undefined) return command
  const path = `/run/limpid-lab-${scenario.name}-${family}.yaml`
  writeFileSync(path, scenario.file(family))
  return command.map((word) => (word === CONFIG_FILE ? path : word))
}

async function converse(x: Topology['x'], exchange: Exchange, seen: Seen): Promise<void> {
  try {
    seen.sight = exchange.sight
    seen.sockets = flowLast(await tcpSockets(x), exchange.sight)
    seen.bytes = await exchange.finish()
  } finally {
    exchange.close()
  }
}

function said(limpid: LimpidProcess): string {
  const text = limpid.stderr.trim()
  return text === '' ? '; limpid said nothing' : `; limpid said:\n${text}`
}

/** Listening sockets, then the flow's from the client's side to the server's: the way its bytes go. */
function flowLast(sockets: readonly SocketRow[], { client }: Sight): SocketRow[] {
  const place = (row: SocketRow): number => (row.state === 'LISTEN' ? 0 : sameEndpoint(row.peer, client) ? 1 : 2)
  return sockets.toSorted((a, b) => place(a) - place(b))
}

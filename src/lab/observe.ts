import { writeFileSync } from 'node:fs'
import type { ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import type { Family } from '../net/address.ts'
import { type KnowsRow, predictForward } from '../ruleset/knows.ts'
import type { Carried, Exchange, Sight } from './exchange.ts'
import { evidenceDifferences, judge, observedKnowledge, predictedKnowledge } from './judge.ts'
import { LimpidProcess } from './limpid-process.ts'
import { X_ADDRESSES } from './owners.ts'
import type { LabRun } from './report.ts'
import { type Role, roleOf } from './roles.ts'
import { CONFIG_FILE, clientAddress, dialledEndpoint, type FlowScenario, serverEndpoint } from './scenario.ts'
import { type SocketRow, socketsOf } from './sockets.ts'
import type { Topology } from './topology.ts'

/** Says who will know whom: predictKnows, or another one in a test. */
export type Predict = (listener: ListenerConfig, own: ReadonlySet<string>) => readonly KnowsRow[]

/** What was seen before something went wrong, or all of it. */
interface Seen extends Carried {
  sockets: readonly SocketRow[]
  sight?: Sight
}

/**
 * Runs one scenario over one family: starts limpid on X as an operator does, lets the client dial, looks at X's sockets
 * while the flow is open, and compares what both ends saw with the prediction. What goes wrong is a difference,
 * not an exception.
 */
export async function observe(
  topology: Topology,
  scenario: FlowScenario,
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
    differences.push(whatFailed(error))
  }
  const { sight, sockets, bytes, evidence } = seen
  if (sight !== undefined) differences.push(...judge(scenario, family, { sight, sockets }, predicted))
  differences.push(...evidenceDifferences(evidence ?? []))
  return {
    scenario: scenario.name,
    title: scenario.title,
    family,
    protocol: scenario.protocol,
    command: ['limpid', ...scenario.command(family)].join(' '),
    ...(scenario.file === undefined ? {} : { file: scenario.file(family) }),
    dialled: dialledEndpoint(scenario, family),
    sockets,
    ...sight,
    predicted,
    ...(sight === undefined ? {} : { observed: observedKnowledge(sight, predicted) }),
    ...(bytes === undefined ? {} : { bytes }),
    ...(evidence === undefined ? {} : { evidence }),
    differences,
    passed: differences.length === 0,
    durationMs: performance.now() - startedAt,
  }
}

/** An error as a line of the report. */
export function whatFailed(error: unknown): string {
  return (error instanceof LimpidError ? error.message : String(error)).trimEnd()
}

async function look(topology: Topology, scenario: FlowScenario, family: Family, seen: Seen): Promise<void> {
  const { x, y, z } = topology
  const client = scenario.client === 'x' ? x : y
  const service = scenario.serve(z, serverEndpoint(scenario, family))
  try {
    const limpid = await LimpidProcess.start(x, commandOf(scenario, family))
    try {
      const dialled = dialledEndpoint(scenario, family)
      const exchange = await service.open(client, dialled, clientAddress(scenario, family))
      await converse(topology, scenario, exchange, seen)
    } catch (cause) {
      throw new LimpidError('LIMPID_LAB', `${(cause as Error).message}${said(limpid)}`, { cause })
    } finally {
      await limpid.stop()
    }
    const code = await limpid.exited
    if (code !== 0) throw new LimpidError('LIMPID_LAB', `limpid ended with exit code ${code}${said(limpid)}`)
  } finally {
    service.close()
  }
}

/** The file goes to /run, which is the lab's own (enterNamespaces). */
function commandOf(scenario: FlowScenario, family: Family): string[] {
  const command = [...scenario.command(family)]
  if (scenario.file === undefined) return command
  const path = `/run/limpid-lab-${scenario.name}-${family}.yaml`
  writeFileSync(path, scenario.file(family))
  return command.map((word) => (word === CONFIG_FILE ? path : word))
}

async function converse({ x }: Topology, { protocol }: FlowScenario, exchange: Exchange, seen: Seen): Promise<void> {
  try {
    seen.sight = exchange.sight
    seen.sockets = flowLast(await socketsOf(x, protocol), exchange.sight)
    Object.assign(seen, await exchange.finish())
  } finally {
    exchange.close()
  }
}

function said(limpid: LimpidProcess): string {
  const text = limpid.stderr.trim()
  return text === '' ? '; limpid said nothing' : `; limpid said:\n${text}`
}

const ORDER: readonly Role[] = ['listens', 'towards-client', 'towards-server']

/** Listening sockets, then the flow's from the client's side to the server's: the way its bytes go. */
function flowLast(sockets: readonly SocketRow[], { client }: Sight): SocketRow[] {
  const place = (row: SocketRow): number => ORDER.indexOf(roleOf(row, client))
  return sockets.toSorted((a, b) => place(a) - place(b))
}

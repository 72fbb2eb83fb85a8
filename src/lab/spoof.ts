import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import { senderOf } from './datagram-client.ts'
import { inTime } from './exchange.ts'
import { type datagramLine, FrameCapture, lineOf } from './frame-capture.ts'
import { evidenceDifferences } from './judge.ts'
import { whatFailed } from './observe.ts'
import { ownerOf } from './owners.ts'
import type { Evidence, Knowledge, LabRun } from './report.ts'
import type { SpoofScenario } from './scenario.ts'
import { type Topology, Z_TO_X } from './topology.ts'

const EXAMPLE = 'examples/foreign-datagram.mjs'
const EXAMPLE_PATH = fileURLToPath(new URL(`../../${EXAMPLE}`, import.meta.url))
const PAYLOAD_BYTES = 'hello from somebody else'.length // as the example has it

/** Says what a capture at Z will show: datagramLine, or another one in a test. */
export type PredictCapture = typeof datagramLine

/**
 * Lets X send a datagram from an address that is none of X's, by the example of the library, and compares what Z's socket and a
 * capture on Z's interface show with the prediction.
 */
export async function observeSpoof(
  topology: Topology,
  scenario: SpoofScenario,
  family: Family,
  predict: PredictCapture,
): Promise<LabRun> {
  const startedAt = performance.now()
  const from = scenario.from(family)
  const to = scenario.to(family)
  const args = [from.address, from.port, to.address, to.port].map(String)
  const predicted = knowledgeOf(from)
  const line = predict(from, to, PAYLOAD_BYTES)
  const differences: string[] = []
  let seen: { readonly sender: Endpoint; readonly line: string } | undefined
  try {
    seen = await atForeignAddress(topology, to, () => send(topology, to, args))
  } catch (error) {
    differences.push(whatFailed(error))
  }
  const evidence: Evidence[] = seen === undefined ? [] : [{ what: 'Z captures', predicted: line, observed: seen.line }]
  differences.push(...evidenceDifferences(evidence))
  if (seen !== undefined && formatEndpoint(seen.sender) !== formatEndpoint(from)) {
    differences.push(`Z sees ${formatEndpoint(seen.sender)}; predicted: ${formatEndpoint(from)}`)
  }
  return {
    scenario: scenario.name,
    title: scenario.title,
    family,
    protocol: 'udp',
    command: ['node', EXAMPLE, ...args].join(' '),
    sentFrom: from,
    dialled: to,
    sockets: [],
    predicted,
    ...(seen === undefined ? {} : { serverSees: seen.sender, observed: knowledgeOf(seen.sender) }),
    evidence,
    differences,
    passed: differences.length === 0,
    durationMs: performance.now() - startedAt,
  }
}

function knowledgeOf({ address }: Endpoint): Knowledge {
  const owner = ownerOf(address)
  const verdict = owner === 'proxy' ? 'Z knows X' : `Z knows ${owner}, neither X nor Y`
  return { clientSees: 'nobody', serverSees: owner, verdict }
}

/** Z has the address, and X a route to it, while `work` goes on. */
async function atForeignAddress<T>({ x, z, addresses }: Topology, { address }: Endpoint, work: () => Promise<T>) {
  const family = familyOf(address)
  const host = `${address}/${family === 4 ? 32 : 128}`
  const nodad = family === 6 ? ['nodad'] : [] // else the address is not usable for a while
  await z.run('ip', ['address', 'add', host, 'dev', Z_TO_X, ...nodad])
  await x.run('ip', ['route', 'add', host, 'via', addresses[family].z])
  try {
    return await work()
  } finally {
    await x.run('ip', ['route', 'del', host])
    await z.run('ip', ['address', 'del', host, 'dev', Z_TO_X])
  }
}

/** Runs the example on X. Gives what Z's socket says of the sender, and the line of the capture. */
async function send({ x, z }: Topology, to: Endpoint, args: readonly string[]) {
  const [link] = JSON.parse(await z.run('ip', ['-json', 'link', 'show', Z_TO_X])) as [{ ifindex: number }]
  using capture = new FrameCapture(z, link.ifindex)
  const socket = z.datagramSocket(to)
  try {
    const heard = new Promise<Endpoint>((resolve) => socket.once('message', (_, info) => resolve(senderOf(info))))
    await x.run(process.execPath, [EXAMPLE_PATH, ...args])
    const sender = await inTime(heard, `a datagram at ${formatEndpoint(to)}`)
    const line = capture
      .frames()
      .map(lineOf)
      .find((text) => text !== undefined)
    if (line === undefined) throw new LimpidError('LIMPID_LAB', `the capture at Z has no datagram`)
    return { sender, line }
  } finally {
    socket.close()
  }
}

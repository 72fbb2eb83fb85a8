import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { sleep } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const FLOOD = fileURLToPath(new URL('./flood.fixture.js', import.meta.url))
const PER_SECOND = 100_000
/** LIMPID_SOAK_SECONDS: as long as it takes, by `npm run soak`. */
const SECONDS = Number(process.env.LIMPID_SOAK_SECONDS ?? 2)
const SESSIONS = 8_000
const LEGITIMATE = 40
const ASK_EVERY_MS = 100
const MAX_GROWTH_BYTES = 200_000_000 // 8,000 sessions, records of those that ended on their way to a reader, and V8's slack

test(`T14: while ${PER_SECOND} datagrams a second come, each from another client, running sessions have all their answers, and memory is bounded`, async (t) => {
  const topology = await raiseTopology()
  try {
    const { x, z } = topology
    for (const key of ['all', 'default', X_TO_Y]) x.setSysctls({ [`net.ipv4.conf.${key}.rp_filter`]: '0' })
    await using echo = await DatagramPeer.echo(z, { address: '10.0.4.2', port: 5_300 })
    await using silent = await DatagramPeer.open(z, { address: '10.0.4.2', port: 5_301 })
    silent.socket.setRecvBufferSize(1) // what it hears does not matter
    const limpid = await LimpidProcess.start(x, ['run', '-c', configFile(topology)])
    await using clients = await Clients.open(topology, echo)
    for (let i = 0; i < 6; i++) await clients.ask() // from a few datagrams on it is a conversation
    const memory = limpid.anonymousBytes()
    const args = [FLOOD, '10.0.4.2', '5301', `${PER_SECOND}`, `${SECONDS}`]
    const flood = runFlood(topology, args)
    let asked = 0
    while (!flood.isOver()) {
      await clients.ask()
      asked++
      await sleep(ASK_EVERY_MS)
    }
    const { sent } = JSON.parse(await flood.said) as { sent: number }
    const stats = await limpid.stats()
    const grown = limpid.anonymousBytes() - memory
    t.diagnostic(
      `${sent} datagrams in ${SECONDS} s; ${asked} rounds of ${LEGITIMATE} questions, ${clients.unanswered} unanswered; ` +
        `${stats.flowsTotal} sessions, ${stats.evictions} evicted; dropped: ${JSON.stringify(stats.datagramsDropped)}; ` +
        `${Math.round(grown / 1e6)} MB more`,
    )
    assert.ok(sent > (PER_SECOND * SECONDS) / 10, `the flood was one: ${sent}`)
    assert.equal(clients.unanswered, 0, 'running sessions go on')
    assert.ok(stats.sessionsOpen <= SESSIONS)
    assert.ok(grown < MAX_GROWTH_BYTES, `${grown} bytes more`)
    const reasons = Object.keys(stats.datagramsDropped)
    assert.ok(
      reasons.every((reason) => ['session-rate', 'session-limit', 'listener-buffer'].includes(reason)),
      reasons.join(),
    )
    assert.equal(await limpid.stop(), 0, limpid.stderr)
    const unread = Number(/(\d+) flow lines? dropped, nobody read/.exec(limpid.stderr)?.[1] ?? 0) // T31: we are slow as well
    await limpid.recorded(stats.flowsTotal - unread)
    const total = Number(/stopped: (\d+) flows/.exec(limpid.stderr)?.[1])
    assert.equal(limpid.records.length + unread, total, 'each session was told, and once')
  } finally {
    await topology.close()
  }
})

function configFile({ x }: Topology): string {
  const file = `/run/limpid-flood-${x.namespaceFd}.yaml` // /run is the lab's own
  const listener = { protocols: 'udp', ports: [5_300, 5_301], interfaces: X_TO_Y, source: 'proxy' }
  writeFileSync(file, JSON.stringify({ listeners: [listener], limits: { sessions: SESSIONS } }))
  return file
}

function runFlood({ y }: Topology, args: readonly string[]) {
  const child = y.spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const said = new Promise<string>((resolve) => child.once('close', () => resolve(text)))
  return { said, isOver: () => child.exitCode !== null || child.signalCode !== null }
}

/** Clients with a session each, which were there before. */
class Clients implements AsyncDisposable {
  readonly #peers: readonly DatagramPeer[]
  readonly #server: DatagramPeer
  unanswered = 0

  private constructor(peers: readonly DatagramPeer[], server: DatagramPeer) {
    this.#peers = peers
    this.#server = server
  }

  static async open({ y }: Topology, server: DatagramPeer): Promise<Clients> {
    const open = () => DatagramPeer.open(y, { address: '10.0.3.1', port: 0 }, server.address)
    return new Clients(await Promise.all(Array.from({ length: LEGITIMATE }, open)), server)
  }

  /** One question each. */
  async ask(): Promise<void> {
    const answers = this.#peers.map(async (peer) => {
      peer.send('question')
      if ((await peer.next(2_000)) === undefined) this.unanswered++
    })
    await Promise.all(answers)
    this.#server.skip()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const peer of this.#peers) await peer[Symbol.asyncDispose]()
  }
}

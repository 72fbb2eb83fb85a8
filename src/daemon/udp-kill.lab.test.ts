import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { BurstPeer } from '../lab/burst.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'

await enterNamespaces()

const PORT = 5_000
const OPEN_MS = 3_000 // behind a SIGKILL
const FAMILIES: readonly Family[] = [4, 6]
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

/** A client that sends a number every few milliseconds, and the server, which sends back what it gets. */
class Traffic implements Disposable {
  readonly #family: Family
  readonly #server: BurstPeer
  readonly #client: BurstPeer
  readonly #timer: NodeJS.Timeout
  sent = 0
  /** Those that came to the server by Limpid: from its address. */
  readonly through: number[] = []
  /** Those that came from the client's own. */
  readonly past: number[] = []
  readonly answers: number[] = []
  readonly strangers: string[] = []

  constructor(family: Family) {
    const { y, z } = ADDRESSES[family]
    const server: Endpoint = { address: z, port: PORT }
    this.#family = family
    this.#server = new BurstPeer(lab.z, server)
    this.#client = new BurstPeer(lab.y, { address: y, port: 0 })
    this.#timer = setInterval(() => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32BE(++this.sent)
      this.#client.send([{ bytes, to: server }])
      this.#take(formatEndpoint(server))
    }, 2)
  }

  #take(server: string): void {
    const arrived = this.#server.receive()
    for (const { bytes, from } of arrived) {
      const side = from.address === ADDRESSES[this.#family].xz ? this.through : this.past
      side.push(bytes.readUInt32BE())
    }
    this.#server.send(arrived.map(({ bytes, from }) => ({ bytes, to: from })))
    for (const { bytes, from } of this.#client.receive()) {
      if (formatEndpoint(from) === server) this.answers.push(bytes.readUInt32BE())
      else this.strangers.push(formatEndpoint(from))
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#server[Symbol.dispose]()
    this.#client[Symbol.dispose]()
  }
}

describe('T25: killed while sessions run', () => {
  for (const backend of ['nft', 'iptables']) {
    for (const onDown of ['open', 'closed']) {
      const what = onDown === 'open' ? 'the kernel forwards at once' : 'no datagram of a client passes'
      test(`${backend}, ${onDown}: ${what}; after a restart the sessions are served again`, async () => {
        const how = ['--intercept', 'tproxy', '--protocol', 'udp', '--ports', `${PORT}`, '--source', 'proxy']
        const args = ['run', ...how, '--on-down', onDown, '--backend', backend]
        const first = await LimpidProcess.start(lab.x, args)
        const all = FAMILIES.map((family) => new Traffic(family))
        try {
          for (const one of all) await until(() => one.answers.length > 20, 'answers through Limpid')
          const killedAt = all.map(({ sent }) => sent)
          await first.stop('SIGKILL')
          if (onDown === 'open') {
            for (const one of all) await until(() => one.past.length > 20, 'datagrams past Limpid', OPEN_MS)
            const lost = all.map(({ past }, i) => past[0]! - killedAt[i]!)
            console.log(`${backend}, open: the first to pass is the ${lost.join(' and the ')}th behind the kill`)
          } else await sleep(500)
          for (const one of all) if (onDown === 'closed') assert.deepEqual(one.past, [])
          const second = await LimpidProcess.start(lab.x, args)
          const servedAt = all.map(({ sent }) => sent)
          for (const [i, one] of all.entries()) {
            await until(() => (one.through.at(-1) ?? 0) > servedAt[i]! + 20, 'datagrams through Limpid again')
            await until(() => (one.answers.at(-1) ?? 0) > servedAt[i]! + 20, 'answers again')
            const stray = one.past.filter((number) => number > servedAt[i]!)
            assert.deepEqual(stray, [], 'none passes by any more')
            if (onDown === 'closed') assert.deepEqual(one.past, [], 'none ever passed')
            assert.deepEqual(one.strangers, [])
          }
          assert.equal(await second.stop(), 0, second.stderr)
        } finally {
          for (const one of all) one[Symbol.dispose]()
        }
      })
    }
  }
})

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { mutated, queryFor } from '../../inspect/dns.fixture.ts'
import { randomNumbers } from '../../inspect/fuzz.fixture.ts'
import { DatagramPeer } from '../../lab/datagram.fixture.ts'
import { LimpidProcess } from '../../lab/limpid-process.ts'
import { ADDRESSES, type Topology } from '../../lab/topology.ts'
import type { ProxyStats } from '../../proxy/stats.ts'
import { DNS_DROP_REASONS } from './counters.ts'
import { ForgedSender } from './forged-sender.fixture.ts'

const SERVER = { address: ADDRESSES[4].z, port: 53 }
const MAX_AT_ONCE = 512 // they fit the listener's buffer: what is lost would be lost in the app
const RANDOM_SHARE = 4 // every fourth datagram is random bytes
const MAX_RANDOM_BYTES = 600
const PROBE_MS = 2_000
const MEMORY_SAMPLES = 50
const DNS =
  '{ cache: { entries: 10000 }, rules: [{ suffixes: com, then: nxdomain }, { names: www.example.org, types: TXT, then: answer, answers: { txt: x } }] }'

export interface FloodReport {
  /** Malformed, or as good as. */
  readonly sent: number
  /** Queries that mean it, sent meanwhile: their number, how many had to be sent twice, how many had no answer. */
  readonly probes: { readonly asked: number; readonly again: number; readonly lost: number }
  /** Resident bytes of the process's own: after each tenth, and the most that was seen. */
  readonly memory: { readonly tenths: readonly number[]; readonly most: number }
  readonly cpuSeconds: number
  readonly stats: ProxyStats
}

/**
 * Sends `count` mutated messages and random bytes at the DNS of `limpid run` on X, from forged addresses; its server answers those
 * that reach it as badly. Up to MAX_AT_ONCE at once, and then a query that must be answered: how fast that is is up to the machine.
 */
export async function flood(lab: Topology, count: number, seed: number): Promise<FloodReport> {
  const random = randomNumbers(seed)
  const file = '/run/flood.yaml' // the lab's own
  writeFileSync(
    file,
    `listeners:\n  - { name: dns, protocols: udp, ports: 53, source: client, family: 4, dns: ${DNS} }\n`,
  )
  await lab.x.run('ip', ['route', 'replace', '10.9.0.0/16', 'via', ADDRESSES[4].y])
  await lab.y.run('ip', ['route', 'replace', 'blackhole', '10.9.0.0/16'])
  await using _server = await badServer(lab, random)
  await using prober = new Prober(await DatagramPeer.open(lab.y, { address: ADDRESSES[4].y, port: 0 }))
  using sender = new ForgedSender(lab.y, SERVER, random)
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  limpid.child.stdout!.removeAllListeners().resume() // a line for each session: nobody reads them here
  try {
    const memory = { tenths: [] as number[], most: 0 }
    let sent = 0
    for (let sample = 1; sent < count; sample++) {
      while (sent < Math.min(count, (count * sample) / MEMORY_SAMPLES)) {
        const some = Math.min(1 + random(MAX_AT_ONCE), count - sent)
        await sender.send(some, () => datagram(random))
        sent += some
        await prober.ask()
      }
      const bytes = limpid.anonymousBytes()
      memory.most = Math.max(memory.most, bytes)
      if (sample % (MEMORY_SAMPLES / 10) === 0) memory.tenths.push(bytes)
    }
    const { asked, again, lost } = prober
    return {
      sent,
      probes: { asked, again, lost },
      memory,
      cpuSeconds: limpid.cpuSeconds(),
      stats: await limpid.stats(),
    }
  } finally {
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  }
}

/** Everything that was sent is somewhere in the counters, once. */
export function assertSums({ sent, probes, stats }: FloodReport): void {
  const app = stats.apps.dns!
  const { datagramsDropped } = stats
  const sum = (counts: Readonly<Record<string, number | undefined>>, names: readonly string[]): number =>
    names.reduce((total, name) => total + (counts[name] ?? 0), 0)
  const came = app.queries! + sum(datagramsDropped, ['listener-buffer'])
  assert.equal(came, sent + probes.asked + probes.again, 'what was sent, came')
  const turnedDown = sum(app, DNS_DROP_REASONS)
  const byRule = app['dns-rule']! // counted among the ruled as well
  assert.equal(app.queries, app.forwarded! + app.cacheHits! + app.ruled! + turnedDown - byRule, 'each has one fate')
  const noSession = sum(datagramsDropped, BEFORE_A_SESSION)
  assert.equal(app.forwarded, stats.datagramsClientToUpstream + noSession, 'what goes on has a session, or a reason')
  const badAnswers = sum(app, ['answersUnasked', 'answersMismatched', 'answersMalformed'])
  assert.equal(datagramsDropped.app ?? 0, turnedDown + badAnswers, 'the proxy counts what the app drops')
  assert.equal(app.answers, stats.datagramsUpstreamToClient)
}

const BEFORE_A_SESSION = [
  ...['loop', 'source', 'session-limit', 'client-limit', 'session-rate', 'stopping', 'dial-failed', 'reply-address'],
] as const

function datagram(random: (below: number) => number): Uint8Array {
  if (random(RANDOM_SHARE) > 0) return mutated(random)
  return Uint8Array.from({ length: random(MAX_RANDOM_BYTES) }, () => random(256))
}

/** Answers the prober as it should, and all others by a mutated message under their id. */
async function badServer({ z }: Topology, random: (below: number) => number): Promise<AsyncDisposable> {
  const server = await DatagramPeer.open(z, SERVER)
  server.socket.on('message', (bytes, { address, port }) => {
    server.heard.length = 0 // there is no end to them
    const answer = address === ADDRESSES[4].y ? goodAnswer(bytes) : mutated(random).slice()
    if (address !== ADDRESSES[4].y && random(8) > 0) answer.set(bytes.subarray(0, Math.min(2, answer.length)))
    server.socket.send(answer, port, address)
  })
  return server
}

/** With the record's name by a pointer. */
function goodAnswer(query: Buffer): Uint8Array {
  const answer = Buffer.concat([query, Buffer.from('c00c000100010000012c0004c0000207', 'hex')])
  answer[2] = 0x85
  answer[3] = 0x80
  answer.writeUInt16BE(1, 6)
  return answer
}

/** One who asks as programs do: again when there is no answer in time. */
class Prober implements AsyncDisposable {
  asked = 0
  again = 0
  lost = 0
  readonly #peer: DatagramPeer

  constructor(peer: DatagramPeer) {
    this.#peer = peer
  }

  async ask(): Promise<void> {
    const id = this.asked++ & 0xffff
    const query = queryFor(`p${id % 1_000}.example`, { id }) // names come again: some answers are kept ones
    for (const isSecond of [false, true]) {
      if (isSecond) this.again++
      this.#peer.send(query, SERVER)
      if (await this.#hasAnswer(id)) return
    }
    this.lost++
  }

  async #hasAnswer(id: number): Promise<boolean> {
    const deadlineAt = performance.now() + PROBE_MS
    for (;;) {
      const heard = await this.#peer.next(deadlineAt - performance.now())
      if (heard === undefined) return false
      const isRight = heard.bytes.readUInt16BE(0) === id && heard.bytes.subarray(-4).equals(ADDRESS)
      if (isRight && heard.from.address === SERVER.address) return true
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#peer[Symbol.asyncDispose]()
  }
}

const ADDRESS = Buffer.from('c0000207', 'hex')

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { type Frame, FrameCapture } from '../lab/frame-capture.ts'
import type { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, type Topology, X_BRIDGE, X_TO_Y } from '../lab/topology.ts'
import { drained, type LabServer, pattern, receiveAll, serve, sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, sameEndpoint } from '../net/address.ts'
import { domainOf, encodeSockaddr } from '../sys/sockaddr.ts'
import { sendDatagram, sendFrame, taggedSyn } from './bridge.fixture.ts'
import { ARRIVES_MS, connects, kernelState } from './matrix.fixture.ts'

await enterNamespaces()

const RUN = ['run', '--intercept', 'tproxy', '--path', 'bridged', '--source', 'client', '--ports', '80']
const FAMILIES = [4, 6] as const
const WEB = 80
const OTHER = 81
const BULK_SEED = 3
const BULK_MAX_BYTES = 2_000_000_000
const BULK_BEFORE_BYTES = 1_000_000 // on the way before anything else begins
const FLOWS = 50
const GONE_MS = 10_000 // how soon is held by daemon/kill
const VLAN = 7
const TAGGED = 5
const UNROUTED_HOPS = 64 // net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit

let lab: Topology
const servers: LabServer[] = []

before(async () => {
  lab = await raiseBridge()
  for (const [host, end] of [
    [lab.y, 'y'],
    [lab.z, 'z'],
  ] as const) {
    for (const family of FAMILIES) {
      for (const port of [WEB, OTHER]) servers.push(await serve(host, at(family, end, port), repeat))
    }
  }
})

after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
})

function at(family: Family, end: 'y' | 'z', port: number): Endpoint {
  return { address: lab.addresses[family][end], port }
}

function repeat(socket: ReturnType<Host['connect']>): void {
  socket.pipe(socket)
}

test('R9: TCP across an idle bridge is taken; neither end hears of an address of X, and nothing is left', async () => {
  const pristine = await kernelState(lab.x)
  assert.deepEqual(bridgeNetfilter(), ['1', '1'], 'as the kernel has them')
  await whileRunning([], async (limpid) => {
    assert.deepEqual(bridgeNetfilter(), ['0', '0'])
    using atY = new FrameCapture(lab.y)
    using atZ = new FrameCapture(lab.z)
    for (const family of FAMILIES) {
      for (const host of [lab.x, lab.y, lab.z]) await host.run('ip', ['neigh', 'flush', 'all'])
      const record = await exchange(family, limpid)
      assert.equal(record.client.address, lab.addresses[family].y)
      assert.equal(record.sourceAddr?.address, lab.addresses[family].y)
      assert.equal(peersOf(family, 'z', WEB).at(-1)!.address, lab.addresses[family].y, "the server's peer")
      assert.ok(!sameEndpoint(peersOf(family, 'z', WEB).at(-1)!, record.client), 'by a connection of its own')
    }
    for (const capture of [atY, atZ]) {
      const frames = capture.frames()
      for (const kind of ['ipv4', 'ipv6']) {
        assert.ok(frames.filter((frame) => frame.kind === kind && frame.protocol === 'tcp').length >= 8, kind)
      }
      assert.deepEqual(frames.filter(tellsOfX), [])
    }
  })
  assert.deepEqual(bridgeNetfilter(), ['1', '1'])
  assert.equal(await kernelState(lab.x), pristine, 'nothing is left')
})

test('TCP across a busy bridge is taken, and the bytes of the busy connection, which is not, are whole', async () => {
  await whileRunning([], async (limpid) => {
    for (const family of FAMILIES) {
      const bulk = new Bulk(lab.y, at(family, 'z', OTHER))
      await until(() => bulk.bytes > BULK_BEFORE_BYTES, 'bulk')
      await Promise.all(Array.from({ length: FLOWS }, () => exchange(family)))
      await bulk.finish()
    }
    await limpid.recorded(FLOWS * FAMILIES.length)
    assert.equal((await limpid.stats()).flowsTotal, FLOWS * FAMILIES.length)
  })
})

test('ARP, neighbour discovery, ICMP, UDP and other TCP ports cross untouched, not routed', async () => {
  const mac = { y: await macOf(lab.y, 'y-x'), z: await macOf(lab.z, 'z-x') }
  await whileRunning([], async (limpid) => {
    for (const family of FAMILIES) {
      const { y, z } = lab.addresses[family]
      for (const host of [lab.y, lab.z]) await host.run('ip', ['neigh', 'flush', 'all'])
      using atY = new FrameCapture(lab.y)
      using atZ = new FrameCapture(lab.z)
      const own = await connects(lab.y, at(family, 'z', OTHER), ARRIVES_MS)
      const isOwn = (peer: Endpoint): boolean => own !== undefined && sameEndpoint(peer, own)
      await until(() => peersOf(family, 'z', OTHER).some(isOwn), 'very connection of Y at Z')
      sendDatagram(lab.y, domainOf(family), encodeSockaddr(at(family, 'z', WEB)))
      const unreachable = family === 4 ? 3 : 1 // RFC 792; RFC 4443 §3.1
      const isRefusal = (frame: Frame): boolean => frame.protocol === 'icmp' && frame.icmpType === unreachable
      await until(() => atY.frames().some(isRefusal), `ICMP answer over IPv${family}`)
      assert.match(await lab.y.run('ip', ['neigh', 'show', z]), new RegExp(mac.z), "Z's own MAC address")
      assert.match(await lab.z.run('ip', ['neigh', 'show', y]), new RegExp(mac.y), "Y's own MAC address")
      const fromY = atZ.frames().filter(({ source }) => source === y)
      const fromZ = atY.frames().filter(({ source }) => source === z)
      assert.ok(fromY.some(({ protocol, destinationPort }) => protocol === 'tcp' && destinationPort === OTHER))
      assert.ok(fromY.some(({ protocol, destinationPort }) => protocol === 'udp' && destinationPort === WEB))
      if (family === 6)
        assert.ok(
          fromY.some(({ icmpType }) => icmpType === 135),
          'a neighbour solicitation',
        )
      else assert.ok(atZ.frames().some(({ kind, from }) => kind === 'arp' && from === mac.y))
      for (const [frames, from] of [
        [fromY, mac.y],
        [fromZ, mac.z],
      ] as const) {
        assert.ok(frames.length > 0)
        assert.deepEqual(
          frames.filter((frame) => frame.from !== from || !hopsAreOwn(frame)),
          [],
        )
      }
    }
    assert.equal((await limpid.stats()).flowsTotal, 0)
  })
})

test('tagged frames cross with their tag, also those that look like an untagged flow which is taken', async () => {
  const { y } = lab.addresses[4]
  const to = at(4, 'z', WEB)
  await lab.z.run('nft', ['-f', '-'], {
    input: `table netdev tagged { chain in { type filter hook ingress device "z-x" priority 0
      vlan id ${VLAN} ip saddr ${y} tcp dport ${WEB} counter\n}\n}\n`,
  })
  const index = JSON.parse(await lab.y.run('ip', ['-j', 'link', 'show', 'y-x']))[0].ifindex as number
  const ends = { from: await macOf(lab.y, 'y-x'), to: await macOf(lab.z, 'z-x'), vlan: VLAN, destination: to }
  await whileRunning([], async (limpid) => {
    const socket = lab.y.connect(to)
    await once(socket, 'connect')
    const source = { address: y, port: socket.localPort! }
    const stranger = { ...source, port: source.port - 1 }
    for (let i = 0; i < TAGGED; i++) {
      for (const from of [source, stranger]) sendFrame(lab.y, index, taggedSyn({ ...ends, source: from }))
    }
    const counted = await lab.z.run('nft', ['list', 'table', 'netdev', 'tagged'])
    assert.match(counted, new RegExp(`counter packets ${2 * TAGGED} bytes`), counted)
    socket.end()
    await limpid.recorded(1)
    socket.destroy()
    assert.equal((await limpid.stats()).flowsTotal, 1)
  })
  await lab.z.run('nft', ['delete', 'table', 'netdev', 'tagged'])
})

for (const onDown of ['open', 'closed'] as const) {
  test(`killed with --on-down ${onDown}: Y ${onDown === 'open' ? 'reaches Z by itself' : 'does not reach Z'}; the next start serves, and its stop restores all`, async () => {
    const pristine = await kernelState(lab.x)
    const flags = ['--on-down', onDown]
    const first = await LimpidProcess.start(lab.x, [...RUN, ...flags])
    for (const family of FAMILIES) await exchange(family, first)
    await first.stop('SIGKILL')
    await ownedTablesGone()
    for (const family of FAMILIES) {
      await assertReaches(family, WEB, onDown === 'open')
      await assertReaches(family, OTHER, true)
    }
    await whileRunning(flags, async (second) => {
      for (const family of FAMILIES) await exchange(family, second)
      assert.deepEqual(bridgeNetfilter(), ['0', '0'])
    })
    for (const family of FAMILIES) await assertReaches(family, WEB, true)
    assert.deepEqual(bridgeNetfilter(), ['1', '1'])
    assert.equal(await kernelState(lab.x), pristine)
  })
}

for (const [from, taken] of [
  [X_TO_Y, { y: true, z: false }],
  [X_BRIDGE, { y: true, z: true }],
] as const) {
  test(`--from ${from} takes what comes in ${from === X_BRIDGE ? 'by any port of the bridge' : 'by that port alone'}`, async () => {
    await whileRunning(['--from', from], async (limpid) => {
      let flows = 0
      for (const family of FAMILIES) {
        for (const [host, name, other] of [
          [lab.y, 'y', 'z'],
          [lab.z, 'z', 'y'],
        ] as const) {
          const before = peersOf(family, other, WEB).length
          const own = await connects(host, at(family, other, WEB), ARRIVES_MS)
          assert.notEqual(own, undefined)
          await until(() => peersOf(family, other, WEB).length > before, 'connection')
          const isTaken = !sameEndpoint(peersOf(family, other, WEB).at(-1)!, own!)
          assert.equal(isTaken, taken[name], `from ${name} over IPv${family}`)
          flows += isTaken ? 1 : 0
        }
      }
      await limpid.recorded(flows)
      assert.equal((await limpid.stats()).flowsTotal, flows)
    })
  })
}

test('T2: what another port sends to X itself, for a network behind it, is not taken: X is no relay for it', async () => {
  const beyond = { 4: '10.77.0.1', 6: 'fd00:77::1' } as const
  const routes = FAMILIES.map((family) => [
    `-${family}`,
    'route',
    'add',
    beyond[family],
    'via',
    lab.addresses[family].xz,
  ])
  for (const route of routes) await lab.z.run('ip', route)
  try {
    await whileRunning(['--from', X_TO_Y], async (limpid) => {
      for (const family of FAMILIES) {
        const client = lab.z.connect({ address: beyond[family], port: WEB })
        client.on('error', () => {})
        await sleep(300)
        client.destroy()
      }
      const { flowsTotal, dials } = await limpid.stats()
      assert.deepEqual([flowsTotal, dials], [0, 0])
    })
  } finally {
    for (const route of routes) await lab.z.run('ip', route.with(2, 'del'))
  }
})

/** Sends as fast as it can until told to finish; the server says all of it again. */
class Bulk {
  readonly #socket
  readonly #received
  readonly #sent
  readonly #hash = createHash('sha256')
  #enough = false
  bytes = 0

  constructor(host: Host, to: Endpoint) {
    this.#socket = host.connect(to)
    this.#received = receiveAll(this.#socket)
    this.#sent = this.#send()
  }

  async #send(): Promise<void> {
    for (const chunk of pattern(BULK_SEED, BULK_MAX_BYTES)) {
      if (this.#enough || this.#socket.destroyed) break
      this.#hash.update(chunk)
      this.bytes += chunk.length
      if (!this.#socket.write(chunk)) await drained(this.#socket)
    }
    this.#socket.end()
  }

  /** What came back must be what was sent. */
  async finish(): Promise<void> {
    assert.ok(!this.#socket.destroyed, 'it was busy all the time')
    this.#enough = true
    await this.#sent
    const sent = { bytes: this.bytes, sha256: this.#hash.digest('hex'), failure: undefined }
    assert.deepEqual(await this.#received, sent)
    this.#socket.destroy()
  }
}

/** Runs `limpid run` on X; it must end well. */
async function whileRunning(flags: readonly string[], work: (limpid: LimpidProcess) => Promise<void>): Promise<void> {
  const limpid = await LimpidProcess.start(lab.x, [...RUN, ...flags])
  try {
    await work(limpid)
  } finally {
    await limpid.stop()
  }
  assert.equal(await limpid.exited, 0, limpid.stderr)
}

/** Y says something to Z and hears it again; with `limpid` the flow's record. */
async function exchange(family: Family, limpid?: LimpidProcess) {
  limpid?.skipRecords()
  const socket = lab.y.connect(at(family, 'z', WEB))
  const received = receiveAll(socket)
  socket.end('ping')
  const { bytes, failure } = await received
  socket.destroy()
  assert.deepEqual({ bytes, failure }, { bytes: 4, failure: undefined })
  return (await limpid?.nextRecord())!
}

/** Whether a connection of Y reaches Z itself. */
async function assertReaches(family: Family, port: number, expected: boolean): Promise<void> {
  const own = await connects(lab.y, at(family, 'z', port), expected ? ARRIVES_MS : undefined)
  assert.equal(own !== undefined, expected, `IPv${family}, port ${port}`)
  if (own !== undefined) {
    await until(() => peersOf(family, 'z', port).some((peer) => sameEndpoint(peer, own)), 'connection at Z itself')
  }
}

/** The kernel takes them away when the process that holds them has ended. */
async function ownedTablesGone(): Promise<void> {
  const deadlineAt = performance.now() + GONE_MS
  while (/limpid$/m.test(await lab.x.run('nft', ['list', 'tables']))) {
    assert.ok(performance.now() < deadlineAt, `tables of ours are left after ${GONE_MS} ms`)
    await sleep(10)
  }
}

function peersOf(family: Family, end: 'y' | 'z', port: number): Endpoint[] {
  return servers.find(({ endpoint }) => sameEndpoint(endpoint, at(family, end, port)))!.peers
}

function bridgeNetfilter(): string[] {
  return ['iptables', 'ip6tables'].map((name) => lab.x.sysctl(`net.bridge.bridge-nf-call-${name}`))
}

async function macOf(host: Host, name: string): Promise<string> {
  return JSON.parse(await host.run('ip', ['-j', 'link', 'show', name]))[0].address as string
}

/** An IP packet from or to an address that Y and Z could know X by. */
function tellsOfX({ protocol, source, destination }: Frame): boolean {
  if (protocol === 'other') return false // X as a host joins groups (IGMP, MLD), with Limpid or without
  return FAMILIES.some((family) => {
    const own = lab.addresses[family].xy
    return source === own || destination === own
  })
}

function hopsAreOwn({ hops, icmpType }: Frame): boolean {
  const isDiscovery = icmpType === 135 || icmpType === 136
  return hops === (isDiscovery ? 255 : UNROUTED_HOPS) // RFC 4861 §4.3
}

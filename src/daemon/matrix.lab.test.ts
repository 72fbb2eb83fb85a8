import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import type { Path } from '../config/types.ts'
import { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { OWN_PORTS, sleep } from '../lab/traffic.fixture.ts'
import {
  ARRIVES_MS,
  answersDirectly,
  assertCarried,
  BACKENDS,
  type BackendName,
  type Cell,
  configFile,
  connects,
  dialler,
  FAMILIES,
  GROUPS,
  KeepsDialling,
  kernelState,
  listenersOf,
  MODES,
  type Mode,
  PATHS,
  plantOthersRules,
  portOf,
  Servers,
  temporaryFolder,
} from './matrix.fixture.ts'

await enterNamespaces()

const STRANGER = { address: '10.0.5.1', gateway: '10.0.5.101' }
const folder = temporaryFolder()
const results = new Map<string, string>()
let slowestOpen = 0

after(() => {
  folder[Symbol.dispose]()
  console.log(`${table()}
A second ok: with conntrack off for all packets of the proxy's host.
After SIGKILL what is open reached the server itself within ${slowestOpen.toFixed(0)} ms.`)
})

describe('mode × path × family × backend', { concurrency: 2 }, () => {
  for (const backend of BACKENDS) {
    for (const path of PATHS) {
      for (const modes of GROUPS) {
        test(`${modes.join(' and ')}, ${path}, ${backend}: bytes, peers, original destination; open and closed after a kill; nothing left`, async () => {
          const topology = await (path === 'bridged' ? raiseBridge() : raiseTopology())
          topology.y.setSysctls(OWN_PORTS)
          const cell = { modes, path, backend, topology }
          tellResult(cell, 'FAILED')
          try {
            await tryCell(cell)
          } finally {
            await topology.close()
          }
          tellResult(cell, isFreeOfConntrack(cell) ? 'ok, ok' : 'ok')
        })
      }
    }
  }
})

function tellResult({ modes, path, backend }: Cell, result: string): void {
  for (const mode of modes) for (const family of FAMILIES) results.set(key(mode, path, backend, family), result)
}

async function tryCell(cell: Cell): Promise<void> {
  const { x } = cell.topology
  await using servers = await Servers.start(
    cell.topology,
    listenersOf(cell.modes).map(({ port }) => port),
  )
  await plantOthersRules(cell)
  const pristine = await kernelState(x)
  const run = ['run', '-c', configFile(cell, folder.path)]
  const first = await LimpidProcess.start(x, run)
  await assertAllCarried(cell, servers, first)
  await assertDown(cell, servers, first)
  if (isFreeOfConntrack(cell)) await notTracked(x)
  const second = await LimpidProcess.start(x, run)
  await assertAllCarried(cell, servers, second)
  if (isFreeOfConntrack(cell)) {
    assert.equal(x.sysctl('net.netfilter.nf_conntrack_count'), '0', 'conntrack knows of no connection')
    await x.run('nft', ['delete', 'table', 'inet', 'untracked'])
  }
  assert.equal(await second.stop(), 0, second.stderr)
  assert.equal(await kernelState(x), pristine, 'nothing is left')
}

test('iptables on the path local cannot do without conntrack: it knows a flow by its connmark', async () => {
  const topology = await raiseTopology()
  const cell: Cell = { modes: ['tproxy'], path: 'local', backend: 'iptables', topology }
  const port = portOf('tproxy', 'hides')
  try {
    await using servers = await Servers.start(topology, [port])
    await notTracked(topology.x)
    const limpid = await LimpidProcess.start(topology.x, ['run', '-c', configFile(cell, folder.path)])
    await answersDirectly(cell, 4, port, servers)
    assert.equal((await limpid.stats()).dials, 0)
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  } finally {
    await topology.close()
  }
})

for (const backend of BACKENDS) {
  test(`T2: from an interface that was not named, every mode, ${backend}: nothing is relayed, and no listener is to be dialled`, async () => {
    const topology = await raiseTopology()
    const stranger = await attachStranger(topology)
    const { x, addresses } = topology
    const { z, xy, xz } = addresses[4]
    try {
      const ports = MODES.map((mode) => portOf(mode, 'hides'))
      await using servers = await Servers.start(topology, ports)
      const limpid = await LimpidProcess.start(x, ['run', '-c', namedInterfaceFile(topology, backend)])
      for (const port of ports) {
        const client = await connects(stranger, { address: z, port }, ARRIVES_MS)
        assert.ok(client !== undefined, `${z}:${port} is reached`)
        await servers.untilPeer(4, port, client) // the server itself
      }
      const listening = MODES.map((mode) => listenPort(mode))
      const dialled = [STRANGER.gateway, xy, xz].flatMap((address) => listening.map((port) => ({ address, port })))
      const answered = await Promise.all(dialled.map(async (to) => ({ to, end: await connects(stranger, to) })))
      assert.deepEqual(
        answered.filter(({ end }) => end !== undefined),
        [],
        'they are refused',
      )
      const { dials, flowsTotal } = await limpid.stats()
      assert.deepEqual([dials, flowsTotal], [0, 0])
      assert.equal(await limpid.stop(), 0, limpid.stderr)
    } finally {
      await stranger.close()
      await topology.close()
    }
  })
}

/** A listener of every mode that takes what comes from Y alone. */
function namedInterfaceFile({ addresses }: Topology, backend: BackendName): string {
  const listeners = MODES.map((mode) => ({
    ...{ name: mode, intercept: mode, interfaces: X_TO_Y, ports: [portOf(mode, 'hides')], family: 4 },
    ...(mode === 'dnat' ? { listen: `${addresses[4].xy}:${listenPort(mode)}` } : {}),
    ...(mode === 'tproxy' || mode === 'redirect' ? { listen: `${listenPort(mode)}` } : {}),
  }))
  const file = join(folder.path, `named-${backend}.yaml`)
  writeFileSync(file, JSON.stringify({ listeners, rules: { backend } }))
  return file
}

/** Where its listener waits. */
function listenPort(mode: Mode): number {
  const port = portOf(mode, 'hides')
  return mode === 'mark' ? port : 50_000 + port
}

/** A host on a third interface of X. */
async function attachStranger({ x, z, addresses }: Topology): Promise<Host> {
  const stranger = await Host.create('W')
  await x.run('ip', ['link', 'add', 'x-w', 'type', 'veth', 'peer', 'name', 'w-x', 'netns', stranger.path])
  const near = [`address add ${STRANGER.gateway}/24 dev x-w`, 'link set x-w up']
  const far = [
    `address add ${STRANGER.address}/24 dev w-x`,
    'link set w-x up',
    `route add default via ${STRANGER.gateway}`,
  ]
  await x.run('ip', ['-batch', '-'], { input: near.join('\n') })
  await stranger.run('ip', ['-batch', '-'], { input: far.join('\n') })
  assert.match(await z.run('ip', ['route']), new RegExp(`default via ${addresses[4].xz}`))
  return stranger
}

for (const backend of BACKENDS) {
  for (const missing of ['tproxy', 'socket']) {
    test(`T35: ${backend}: a kernel without ${missing} is one sentence that offers redirect`, async () => {
      const x = await Host.create('X')
      try {
        const args = ['run', '--intercept', 'tproxy', '--ports', '80', '--backend', backend]
        const limpid = LimpidProcess.launch(x, args, { env: { LIMPID_PROBE_FAIL: missing } })
        assert.equal(await limpid.exited, 1)
        assert.match(limpid.stderr, /^LIMPID_KERNEL: [^\n]*--intercept redirect[^\n]*\n$/)
        assert.doesNotMatch(await kernelState(x), /limpid|proto 195|^-A/m)
      } finally {
        await x.close()
      }
    })
  }
}

/** On the path `local` iptables has nothing but conntrack's connmark to know a flow by: no set that fills itself. */
function isFreeOfConntrack({ modes, path, backend }: Cell): boolean {
  return modes.includes('tproxy') && !(backend === 'iptables' && path === 'local')
}

/** Conntrack off for all packets of the host. */
async function notTracked(x: Host): Promise<void> {
  const chains = ['prerouting', 'output'].map(
    (hook) => `chain ${hook} { type filter hook ${hook} priority raw; notrack\n}`,
  )
  await x.run('nft', ['-f', '-'], { input: `table inet untracked { ${chains.join('\n')}\n}\n` })
}

async function assertAllCarried(cell: Cell, servers: Servers, limpid: LimpidProcess): Promise<void> {
  for (const family of FAMILIES) {
    for (const tried of listenersOf(cell.modes)) await assertCarried(cell, family, tried, servers, limpid)
  }
}

/** Kills it while a client keeps dialling. How soon it must be open again is held by daemon/kill, where nothing runs beside it. */
async function assertDown(cell: Cell, servers: Servers, limpid: LimpidProcess): Promise<void> {
  const endpoints = (name: 'keeps' | 'closed') =>
    cell.modes.flatMap((mode) => FAMILIES.map((family) => ({ family, port: portOf(mode, name) })))
  const [open, closed] = [endpoints('keeps'), endpoints('closed')]
  const to = ({ family, port }: (typeof open)[number]) => ({ address: cell.topology.addresses[family].z, port })
  const clients = new KeepsDialling(dialler(cell), [...open, ...closed].map(to))
  await sleep(100)
  await limpid.stop('SIGKILL')
  await sleep(30) // what was dialled before has arrived
  const reached = () => closed.map(({ family, port }) => servers.peers(family, port).length)
  const reachedBefore = reached()
  try {
    const opened = await Promise.all(open.map(({ family, port }) => answersDirectly(cell, family, port, servers)))
    slowestOpen = Math.max(slowestOpen, ...opened)
    const ends = await Promise.all(closed.map((endpoint) => connects(dialler(cell), to(endpoint))))
    assert.deepEqual(new Set(ends), new Set([undefined]), 'nobody answers behind what is closed')
  } finally {
    clients.stop()
  }
  assert.deepEqual(reached(), reachedBefore, 'nothing gets through to what is closed')
  if (cell.path === 'local') return // client and proxy have the same address
  for (const { family, port } of closed) {
    const { y } = cell.topology.addresses[family]
    assert.ok(!servers.peers(family, port).some(({ address }) => address === y), 'nor did it at any moment')
  }
}

function key(mode: Mode, path: Path, backend: BackendName, family: number): string {
  return [mode, path, backend, family].join(' ')
}

/** Mode × path × family × backend. */
function table(): string {
  const columns = BACKENDS.flatMap((backend: BackendName) => FAMILIES.map((family) => ({ backend, family })))
  const heading = ['mode', 'path', ...columns.map(({ backend, family }) => `${backend} IPv${family}`)]
  const rows = MODES.flatMap((mode) =>
    PATHS.map((path) => [
      mode,
      path,
      ...columns.map(({ backend, family }) => results.get(key(mode, path, backend, family)) ?? 'not run'),
    ]),
  )
  const widths = heading.map((_, i) => Math.max(...[heading, ...rows].map((row) => row[i]!.length)))
  return [heading, ...rows]
    .map((row) =>
      row
        .map((text, i) => text.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

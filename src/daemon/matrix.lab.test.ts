import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { sleep } from '../lab/traffic.fixture.ts'
import {
  answersDirectly,
  assertCarried,
  BACKENDS,
  type BackendName,
  type Cell,
  configFile,
  connects,
  dialler,
  FAMILIES,
  KeepsDialling,
  kernelState,
  LISTENERS,
  MODES,
  PATHS,
  plantOthersRules,
  Servers,
  temporaryFolder,
} from './matrix.fixture.ts'

await enterNamespaces()

const DIRECT_MS = 2_000
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

// a cell waits most of its time: for what must not arrive
describe('mode × path × family × backend', { concurrency: 4 }, () => {
  for (const backend of BACKENDS) {
    for (const path of PATHS) {
      for (const mode of MODES) {
        test(`${mode}, ${path}, ${backend}: bytes, peers, original destination; open and closed after a kill; nothing left`, async () => {
          const topology = await (path === 'bridged' ? raiseBridge() : raiseTopology())
          const cell = { mode, path, backend, topology }
          for (const family of FAMILIES) results.set(key(cell, family), 'FAILED')
          try {
            await tryCell(cell)
          } finally {
            await topology.close()
          }
          for (const family of FAMILIES) results.set(key(cell, family), isFreeOfConntrack(cell) ? 'ok, ok' : 'ok')
        })
      }
    }
  }
})

async function tryCell(cell: Cell): Promise<void> {
  const { x } = cell.topology
  await using servers = await Servers.start(cell.topology)
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
  const cell: Cell = { mode: 'tproxy', path: 'local', backend: 'iptables', topology }
  try {
    await using servers = await Servers.start(topology)
    await notTracked(topology.x)
    const limpid = await LimpidProcess.start(topology.x, ['run', '-c', configFile(cell, folder.path)])
    await answersDirectly(cell, 4, 81, servers, DIRECT_MS)
    assert.equal((await limpid.stats()).dials, 0)
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  } finally {
    await topology.close()
  }
})

describe('T2: from an interface that was not named', { concurrency: 4 }, () => {
  for (const backend of BACKENDS) {
    for (const mode of MODES) {
      test(`${mode}, ${backend}: nothing is relayed, and the listener is not to be dialled`, async () => {
        const topology = await raiseTopology()
        const stranger = await attachStranger(topology)
        try {
          await using servers = await Servers.start(topology)
          const { x, addresses } = topology
          const flags = mode === 'dnat' ? ['--listen', `${addresses[4].xy}:50080`] : ['--family', '4']
          const from = ['--from', X_TO_Y, '--ports', '80', '--backend', backend]
          const limpid = await LimpidProcess.start(x, ['run', '--intercept', mode, ...flags, ...from])
          assert.deepEqual(
            await connects(stranger, { address: addresses[4].z, port: 80 }, DIRECT_MS),
            servers.peers(4, 80).at(-1),
            'it reaches the server itself',
          )
          const port = mode === 'mark' ? 80 : 50_080
          for (const address of [STRANGER.gateway, addresses[4].xy, addresses[4].xz]) {
            assert.equal(await connects(stranger, { address, port }), undefined, `${address}:${port} is refused`)
          }
          const { dials, flowsTotal } = await limpid.stats()
          assert.deepEqual([dials, flowsTotal], [0, 0])
          assert.equal(await limpid.stop(), 0, limpid.stderr)
        } finally {
          await stranger.close()
          await topology.close()
        }
      })
    }
  }
})

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
function isFreeOfConntrack({ mode, path, backend }: Omit<Cell, 'topology'>): boolean {
  return (mode === 'tproxy' || mode === 'mark') && !(backend === 'iptables' && path === 'local')
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
    for (const tried of LISTENERS) await assertCarried(cell, family, tried, servers, limpid)
  }
}

/** Kills it while a client keeps dialling. */
async function assertDown(cell: Cell, servers: Servers, limpid: LimpidProcess): Promise<void> {
  const to = (family: 4 | 6, port: number) => ({ address: cell.topology.addresses[family].z, port })
  const clients = new KeepsDialling(
    dialler(cell),
    FAMILIES.flatMap((family) => [to(family, 80), to(family, 82)]),
  )
  await sleep(100)
  await limpid.stop('SIGKILL')
  await sleep(30) // what was dialled before has arrived
  const closedBefore = FAMILIES.map((family) => servers.peers(family, 82).length)
  try {
    const opened = await Promise.all(FAMILIES.map((family) => answersDirectly(cell, family, 80, servers, DIRECT_MS)))
    slowestOpen = Math.max(slowestOpen, ...opened)
    const closed = await Promise.all(FAMILIES.map((family) => connects(dialler(cell), to(family, 82))))
    assert.deepEqual(closed, [undefined, undefined], 'nobody answers behind what is closed')
  } finally {
    clients.stop()
  }
  assert.deepEqual(
    FAMILIES.map((family) => servers.peers(family, 82).length),
    closedBefore,
    'nothing gets through to what is closed',
  )
  if (cell.path === 'local') return // client and proxy have the same address
  for (const family of FAMILIES) {
    const { y } = cell.topology.addresses[family]
    assert.ok(!servers.peers(family, 82).some(({ address }) => address === y), 'nor did it at any moment')
  }
}

function key({ mode, path, backend }: Omit<Cell, 'topology'>, family: number): string {
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
      ...columns.map(({ backend, family }) => results.get(key({ mode, path, backend }, family)) ?? 'not run'),
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

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, raiseTopology } from '../lab/topology.ts'
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
const folder = temporaryFolder()
const results = new Map<string, string>()

after(() => {
  folder[Symbol.dispose]()
  console.log(table())
})

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
        for (const family of FAMILIES) results.set(key(cell, family), 'ok')
      })
    }
  }
}

async function tryCell(cell: Cell): Promise<void> {
  const { x } = cell.topology
  await using servers = await Servers.start(cell.topology)
  await plantOthersRules(cell)
  const pristine = await kernelState(x)
  const run = ['run', '-c', configFile(cell, folder.path)]
  const first = await LimpidProcess.start(x, run)
  await assertAllCarried(cell, servers, first)
  await assertDown(cell, servers, first)
  const second = await LimpidProcess.start(x, run)
  await assertAllCarried(cell, servers, second)
  assert.equal(await second.stop(), 0, second.stderr)
  assert.equal(await kernelState(x), pristine, 'nothing is left')
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
    assert.ok(Math.max(...opened) < DIRECT_MS)
    for (const family of FAMILIES) assert.equal(await connects(dialler(cell), to(family, 82)), undefined, 'closed')
  } finally {
    clients.stop()
  }
  assert.deepEqual(
    FAMILIES.map((family) => servers.peers(family, 82).length),
    closedBefore,
    'nothing gets through to what is closed',
  )
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

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseTopology, type Topology } from '../lab/topology.ts'
import { sleep, until } from '../lab/traffic.fixture.ts'
import { doctorOn } from './doctor.fixture.ts'

await enterNamespaces()

const FLAGS = ['--intercept', 'tproxy', '--source', 'client']
/** A chain that drops the probe: then doctor also traces, and holds an nft table. */
const DROPPING =
  'table inet theirs {\nchain early {\ntype filter hook prerouting priority -200;\ntcp dport 80 drop\n}\n}\n'

let lab: Topology
let limpid: LimpidProcess
before(async () => {
  lab = await raiseTopology()
  limpid = await LimpidProcess.start(lab.x, ['run', ...FLAGS])
  await lab.x.run('nft', ['-f', '-'], { input: DROPPING })
})
after(async () => {
  await limpid.stop()
  await lab.close()
})

/** All that doctor could leave behind on X, and among the processes. */
async function state(): Promise<unknown> {
  const [links, addresses, routes, rules, nft] = await Promise.all([
    lab.x.run('ip', ['-j', 'link']),
    lab.x.run('ip', ['-j', 'address']),
    Promise.all(['-4', '-6'].map((family) => lab.x.run('ip', [family, 'route', 'show', 'table', 'all']))),
    lab.x.run('ip', ['rule']),
    lab.x.run('nft', ['-s', '-t', 'list', 'ruleset']),
  ])
  const names = (text: string): string[] =>
    (JSON.parse(text) as { ifname: string }[]).map(({ ifname }) => ifname).sort()
  return { links: names(links), addresses: names(addresses), routes, rules, nft, processes: processes() }
}

function processes(): string[] {
  return pids()
    .map((pid) => readOr(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim())
    .filter((line) => /limpid|nft/.test(line))
    .sort()
}

function pids(): string[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name))
}

function readOr(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

/** Links of a namespace that has ended go a little later. */
async function same(expected: unknown): Promise<void> {
  for (let attempt = 0; attempt < 40; attempt++) {
    const found = await state()
    if (JSON.stringify(found) === JSON.stringify(expected)) return
    await sleep(100)
  }
  assert.deepEqual(await state(), expected)
}

test('after doctor this host is as before', async () => {
  const expected = await state()
  const { code } = await doctorOn(lab.x, FLAGS)
  assert.equal(code, 3)
  await same(expected)
})

for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
  test(`nothing is left when doctor ends by ${signal} in the midst of its packets`, async () => {
    const expected = await state()
    for (const delayMs of [0, 300]) {
      const child = lab.x.spawn(process.execPath, [LIMPID_PROGRAM, 'doctor', ...FLAGS], { stdio: 'ignore' })
      const exited = once(child, 'exit')
      try {
        await until(
          () => lab.x.inside(() => readFileSync('/proc/thread-self/net/dev', 'latin1')).includes('limpid-dc'),
          'probe link',
        )
        await sleep(delayMs)
      } finally {
        child.kill(signal)
      }
      await exited
      await same(expected)
    }
  })
}

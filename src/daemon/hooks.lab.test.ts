import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, serve } from '../lab/traffic.fixture.ts'
import { isInstalled } from '../sys/program.ts'
import type { PoolStats } from './pool-stats.ts'

await enterNamespaces()

const { z } = ADDRESSES[4]
const folder = mkdtempSync(join(tmpdir(), 'limpid-hooks-'))
const curl = { skip: isInstalled('curl') ? false : 'curl is not installed' }
let lab: Topology
const servers: LabServer[] = []

before(async () => {
  lab = await raiseTopology()
  for (const port of [80, 81]) {
    const body = `from ${port}`
    const answer = `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`
    servers.push(await serve(lab.z, { address: z, port }, (socket) => socket.once('data', () => socket.end(answer))))
  }
})

after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** A program in TypeScript: its listener `asked` takes port 80, `plain` (see policy) port 81. */
function program(name: string, onFlow: string, keys = ''): string {
  const file = join(folder, name)
  writeFileSync(
    file,
    `import { setTimeout as sleep } from 'node:timers/promises'
import { defineConfig, type HookFlow } from 'limpid'

const seen: Map<string, number> = new Map()
setInterval(() => seen.clear(), 60_000)
export default defineConfig({
  listeners: [{ name: 'all', ports: [80, 81], source: 'client' }],
  hooks: {
    hookDeadline: '300ms',
    ${keys}
    onFlow: async (flow: HookFlow) => {
      seen.set(flow.client.address, 1)
      ${onFlow}
    },
  },
})
`,
  )
  chmodSync(file, 0o644)
  return file
}

/** The body, or `exit CODE`. */
async function fetchBy(host: string, port = 80, ...flags: string[]): Promise<string> {
  const args = ['-s', '--max-time', '10', '--resolve', `${host}:${port}:${z}`, ...flags, `http://${host}:${port}/`]
  const child = lab.y.spawn('curl', args, { stdio: ['ignore', 'pipe', 'ignore'] })
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return code === 0 ? text : `exit ${code}`
}

const DECIDES = `await sleep(5)
      if (flow.host === 'no.example') return { then: 'reject', by: 'forbidden' }
      if (flow.host === 'moved.example') return { then: 'forward', to: '${z}:81' }
      if (flow.host === 'hangs.example') return await new Promise(() => {})
      if (flow.host === 'throws.example') throw new Error('of the hook')
      if (flow.host === 'stray.example') {
        void Promise.reject(new Error('nobody waits for it'))
        setTimeout(() => { throw new Error('in a timer') })
      }
      return undefined`

for (const workers of ['1', '2']) {
  test(
    `a program in TypeScript decides by host, and what it does wrong costs one flow; ${workers} process(es)`,
    curl,
    async () => {
      const file = program(`limpid-${workers}.config.ts`, DECIDES)
      await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file, '--workers', workers])
      assert.equal(await fetchBy('ok.example'), 'from 80')
      assert.match(await fetchBy('no.example', 80, '-w', '%{http_code}'), /rule onFlow\)\.\n403$/)
      assert.equal(await fetchBy('moved.example'), 'from 81')
      const startedAt = performance.now()
      const [hung, threw, ...others] = await Promise.all([
        fetchBy('hangs.example'),
        fetchBy('throws.example'),
        ...Array.from({ length: 8 }, () => fetchBy('ok.example')),
      ])
      assert.ok(performance.now() - startedAt < 10_000)
      assert.deepEqual([hung, threw], ['exit 56', 'exit 56']) // CURLE_RECV_ERROR: reset
      assert.deepEqual(others, Array(8).fill('from 80'))
      assert.equal(await fetchBy('stray.example'), 'from 80')
      assert.equal(await fetchBy('ok.example'), 'from 80', 'it lives')
      await limpid.recorded(15)
      const { hookFailures, hookTimeouts, hooksWaiting } = await limpid.stats()
      assert.deepEqual([hookFailures, hookTimeouts, hooksWaiting], [1, 1, 0])
      const reasons = limpid.records.map(({ host, reason }) => `${host} ${reason}`)
      assert.ok(reasons.includes('hangs.example hook-failed'), reasons.join())
      assert.ok(reasons.includes('no.example policy'), reasons.join())
      assert.match(limpid.stderr, /hook onFlow failed: /)
      assert.match(limpid.stderr, /nobody caught an error of the configuration's code: Error: nobody waits for it/)
      assert.equal(await limpid.stop(), 0, 'a timer of the program keeps nothing alive')
    },
  )
}

const COMPUTES = `if (flow.host === 'loops.example') for (;;);
      if (flow.host === 'later.example') {
        await sleep(1)
        for (;;);
      }
      return undefined`

test(
  'a hook that computes without end is ended with its worker, told and counted; another worker goes on',
  curl,
  async () => {
    const file = program('endless.config.ts', COMPUTES, "hookComputing: '500ms',")
    await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
    assert.equal(await fetchBy('ok.example'), 'from 80')
    await limpid.nextRecord()
    const held = limpid.descriptors()
    const children = childrenOf(limpid.pid).length // the worker, and the one that cleans up
    for (const host of ['loops.example', 'later.example']) {
      const startedAt = performance.now()
      assert.equal(await fetchBy(host), 'exit 56')
      assert.ok(performance.now() - startedAt < 10_000)
      assert.equal(await fetchBy('ok.example'), 'from 80', 'it waits until the next worker listens')
      assert.equal((await limpid.nextRecord()).host, 'ok.example', 'by the new worker, not past it')
    }
    assert.match(limpid.stderr, /worker 1 \(pid \d+\): hook onFlow has computed for 500ms without a pause/)
    assert.match(limpid.stderr, /a hook, after an await, has computed for 500ms/)
    const { hooksEndless, workerRestarts, workers } = (await limpid.stats()) as PoolStats
    assert.deepEqual([hooksEndless, workerRestarts, workers.length], [2, 2, 1])
    assert.equal(limpid.descriptors(), held)
    assert.equal(childrenOf(limpid.pid).length, children)
    assert.ok(childrenOf(limpid.pid).includes(workers[0]!.pid))
    assert.match(await lab.x.run('nft', ['list', 'tables']), /table inet limpid/)
    assert.equal(await limpid.stop(), 0)
  },
)

test('with hookComputing off nobody watches, and one process is enough', async () => {
  const file = program('unwatched.config.ts', 'return undefined', "hookComputing: 'off',")
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  assert.equal((await statsOf(limpid)).workers, undefined)
})

async function statsOf(limpid: LimpidProcess): Promise<PoolStats> {
  return (await limpid.stats()) as PoolStats
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim()
  return text === '' ? [] : text.split(' ').map(Number)
}

test('a program that others can write is not started', async () => {
  const file = program('others.config.ts', 'return undefined')
  chmodSync(file, 0o666)
  const limpid = LimpidProcess.launch(lab.x, ['run', '-c', file])
  assert.equal(await limpid.exited, 78)
  await limpid.ready().catch(() => {})
  assert.match(limpid.stderr, /^LIMPID_CONFIG: .* is code, and is not run: others can write it/)
})

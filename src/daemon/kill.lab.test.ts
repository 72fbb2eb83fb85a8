import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { LIMPID_PROGRAM as LIMPID, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { receiveAll, serve, sleep } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const RUN = ['run', '--intercept', 'tproxy', '--source', 'client'] as const
const endpoints = [
  { address: ADDRESSES[4].z, port: 80 },
  { address: ADDRESSES[6].z, port: 80 },
]
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

const launched: LimpidProcess[] = []

function launch(args: readonly string[]): LimpidProcess {
  const limpid = LimpidProcess.launch(lab.x, args)
  launched.push(limpid)
  return limpid
}

async function start(args: readonly string[]): Promise<LimpidProcess> {
  const limpid = launch(args)
  await limpid.ready()
  return limpid
}

/** What a test that failed has left behind must not fail those after it. */
afterEach(async () => {
  const left = launched.splice(0).filter(({ child }) => child.exitCode === null && child.signalCode === null)
  for (const limpid of left) await limpid.stop('SIGKILL')
  if (left.length > 0) await lab.x.run(process.execPath, [LIMPID, 'rules', 'remove'])
})

/** All that rules consist of on X, as text that can be compared. */
async function kernelState(): Promise<string> {
  const parts = [
    ['nft', '-s', 'list', 'ruleset'],
    ['ip', 'rule'],
    ['ip', '-6', 'rule'],
    ['ip', 'route', 'show', 'table', 'all'],
    ['ip', '-6', 'route', 'show', 'table', 'all'],
  ] as const
  const texts: string[] = []
  for (const [program, ...args] of parts) texts.push(await lab.x.run(program, args))
  const keys = ['all', 'default', 'lo', 'x-y', 'x-z'].flatMap((name) =>
    ['rp_filter', 'src_valid_mark', 'forwarding'].map((key) => `net.ipv4.conf.${name}.${key}`),
  )
  texts.push(keys.map((key) => `${key} = ${lab.x.sysctl(key)}`).join('\n'))
  // counters and the remaining lifetime of a route change by themselves
  return texts.join('\n').replaceAll(/ expires \d+sec/g, '')
}

async function ownTables(): Promise<string[]> {
  const text = await lab.x.run('nft', ['list', 'tables'])
  return text.split('\n').filter((line) => line.includes('limpid'))
}

/** Within a second none of our nft tables (but the guard) may be left. Returns the milliseconds it took. */
async function tablesGone(): Promise<number> {
  const startedAt = performance.now()
  for (;;) {
    const owned = (await ownTables()).filter((line) => !line.includes('guard'))
    const ms = performance.now() - startedAt
    if (owned.length === 0) return ms
    assert.ok(ms < 1_000, `after ${ms} ms: ${owned.join(', ')}`)
    await sleep(10)
  }
}

/** Does a new connection from Y reach Z within half a second, and its answer come back? */
async function reaches(endpoint: { address: string; port: number }): Promise<boolean> {
  const client = lab.y.connect(endpoint)
  const timer = setTimeout(() => client.destroy(), 500)
  client.end('ping')
  const { bytes } = await receiveAll(client)
  clearTimeout(timer)
  return bytes === 4
}

test('T23: killed at any moment of its start, it leaves no table; the next start sweeps the rest, and its stop leaves nothing', async () => {
  const pristine = await kernelState()
  for (let delay = 20; delay <= 420; delay += 40) {
    const limpid = launch(RUN)
    await sleep(delay)
    await limpid.stop('SIGKILL')
    await tablesGone()
  }
  const limpid = await start(RUN)
  const rules = (await lab.x.run('ip', ['rule'])).split('\n').filter((line) => line.includes('19536'))
  assert.equal(rules.length, 1, 'one ip rule of ours, not one for each start')
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal(await kernelState(), pristine)
})

for (const onDown of ['open', 'closed'] as const) {
  test(`killed under load with --on-down ${onDown}: Y ${onDown === 'open' ? 'reaches Z again' : 'does not reach Z'}; a restart serves within 2 s`, async () => {
    const pristine = await kernelState()
    await using server4 = await serve(lab.z, endpoints[0]!, (socket) => socket.pipe(socket))
    await using server6 = await serve(lab.z, endpoints[1]!, (socket) => socket.pipe(socket))
    const first = await start([...RUN, '--on-down', onDown])
    for (const endpoint of endpoints) assert.equal(await reaches(endpoint), true, 'through the proxy')
    await first.recorded(2)
    const load = setInterval(() => {
      for (const endpoint of endpoints) {
        const client = lab.y.connect(endpoint)
        client.on('error', () => {})
        client.write(Buffer.alloc(100_000))
      }
    }, 5)
    await sleep(300)
    const killedAt = performance.now()
    first.child.kill('SIGKILL')
    const goneMs = await tablesGone()
    clearInterval(load)
    for (const endpoint of endpoints) {
      assert.equal(await reaches(endpoint), onDown === 'open', `${endpoint.address} while Limpid is down`)
    }
    assert.equal((await ownTables()).length, onDown === 'open' ? 0 : 1)
    const restartAt = performance.now()
    const second = await start([...RUN, '--on-down', onDown])
    for (const endpoint of endpoints) assert.equal(await reaches(endpoint), true, 'through the proxy again')
    const backMs = performance.now() - restartAt
    assert.ok(backMs < 2_000, `${backMs} ms`)
    console.log(
      `on-down ${onDown}: tables gone ${goneMs.toFixed(0)} ms after SIGKILL, served ${backMs.toFixed(0)} ms after the restart (${(performance.now() - killedAt).toFixed(0)} ms in all)`,
    )
    await second.recorded(2)
    assert.equal(await second.stop(), 0, second.stderr)
    assert.equal(await kernelState(), pristine)
    assert.ok(server4.peers.length > 0 && server6.peers.length > 0)
  })
}

test("T26: another's nft table, ip rules and routes are bit-identical after install and remove", async () => {
  await lab.x.run('nft', ['-f', '-'], {
    input: `table inet others {
        set s { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }
        }
        chain c { type filter hook prerouting priority -150; policy accept;
          ip saddr @s meta mark set 0x1
        }
      }
      table ip nat {
        chain post { type nat hook postrouting priority 100;
          oifname "x-z" ip saddr 192.0.2.0/24 masquerade
        }
      }
`,
  })
  await lab.x.run('ip', ['rule', 'add', 'pref', '5000', 'fwmark', '0x1/0xff', 'lookup', '100'])
  await lab.x.run('ip', ['route', 'add', '192.0.2.0/24', 'via', ADDRESSES[4].z, 'table', '100'])
  await lab.x.run('ip', ['-6', 'rule', 'add', 'pref', '5000', 'fwmark', '0x1/0xff', 'lookup', '100'])
  const before = await kernelState()
  for (const onDown of ['open', 'closed']) {
    const limpid = await start([...RUN, '--on-down', onDown])
    assert.notEqual(await kernelState(), before)
    assert.equal(await limpid.stop(), 0, limpid.stderr)
    assert.equal(await kernelState(), before)
  }
  const limpid = await start(RUN)
  await limpid.stop('SIGKILL')
  await tablesGone()
  await lab.x.run(process.execPath, [LIMPID, 'rules', 'remove'])
  assert.equal(await kernelState(), before, 'also when it was killed and swept')
})

test('rules install twice says that they are installed; diff and remove tell what they found', async () => {
  const before = await kernelState()
  const rules = (verb: string): Promise<string> =>
    lab.x.run(process.execPath, [LIMPID, 'rules', verb, ...(verb === 'remove' ? [] : RUN.slice(1))])
  await rules('install')
  assert.match(await rules('install'), /already installed/)
  assert.equal(await rules('diff'), 'the rules are as planned\n')
  await rules('remove')
  assert.equal(await kernelState(), before)
})

test('with --keep-guard a clean stop lets nothing pass either; the next start serves, and the next stop opens', async () => {
  const pristine = await kernelState()
  const closed = [...RUN, '--on-down', 'closed']
  await using _server = await serve(lab.z, endpoints[0]!, (socket) => socket.pipe(socket))
  const first = await start([...closed, '--keep-guard'])
  assert.ok(await reaches(endpoints[0]!))
  assert.equal(await first.stop(), 0, first.stderr)
  assert.deepEqual(await ownTables(), ['table inet limpid-guard'])
  assert.equal(await reaches(endpoints[0]!), false)
  const second = await start(closed)
  assert.ok(await reaches(endpoints[0]!))
  assert.equal(await second.stop(), 0, second.stderr)
  assert.ok(await reaches(endpoints[0]!), 'and directly again')
  assert.equal(await kernelState(), pristine)
})

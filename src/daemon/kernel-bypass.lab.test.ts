import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, afterEach, before, test } from 'node:test'
import { createProxy } from '../apps/create-proxy.ts'
import { parseConfig } from '../config/parse.ts'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { sleep, until } from '../lab/traffic.fixture.ts'
import type { Family } from '../net/address.ts'
import { type Prefix, parsePrefix } from '../net/prefix.ts'
import type { TransparentProxy } from '../proxy/proxy.ts'
import { chooseBackend } from '../ruleset/backend.ts'
import { readBypassAccounts } from '../ruleset/bypass-account.ts'
import { ask, CLIENT, FAMILIES, type Gateway, raiseGateway, SERVER, setSysctl } from '../ruleset/gateway.fixture.ts'
import { installRuleset } from '../ruleset/install.ts'
import { type Plan, planRuleset } from '../ruleset/plan.ts'
import { hostFacts } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import { KeptRules } from './kept-rules.ts'
import { type BypassedPrefix, KernelBypass } from './kernel-bypass.ts'

await enterNamespaces()

/** Z's second addresses: what is bypassed is told from its neighbours. */
const OTHER = { 4: '10.0.4.3', 6: 'fd00:4::3' } as const

/** What is to be over within a test; a busy machine must get there first. */
const SHORT_MS = 6_000

let lab: Gateway
const running: Running[] = []

interface Running {
  readonly proxy: TransparentProxy
  readonly rules: KeptRules
  readonly plan: Plan
  readonly notes: string[]
}

before(async () => {
  lab = await raiseGateway()
  const lines = FAMILIES.map(
    (family) => `address add ${OTHER[family]}/${family === 4 ? 24 : 64} dev x${family === 6 ? ' nodad' : ''}`,
  )
  await lab.z.run('ip', ['-batch', '-'], { input: lines.join('\n') })
})

afterEach(async () => {
  for (const { proxy, rules } of running.splice(0)) {
    await proxy.close()
    await rules.remove({ keepGuard: false })
  }
  assert.equal(await mustRun('nft', ['list', 'tables']), '', 'nothing is left')
})

after(() => lab.close())

/** A proxy in this process, which is the gateway: what it dials has its own address. */
async function start(yaml: string): Promise<Running> {
  const config = parseConfig(yaml, 'test')
  const proxy = createProxy(config)
  await proxy.listen()
  const notes: string[] = []
  const plan = planRuleset(config, hostFacts(), { backend: await chooseBackend(config.rules) })
  const rules = await KeptRules.install(plan, (line) => void notes.push(line))
  const started = { proxy, rules, plan, notes }
  running.push(started)
  return started
}

const LISTENER = 'listeners: [{ name: all, protocols: [tcp, udp], ports: [80, 81, 5300] }]'

/** `client`: the server itself was asked by the client; `proxy`: through Limpid. */
async function whoAsks(address: string): Promise<'client' | 'proxy' | string> {
  const answer = await ask(lab.y.connect({ address, port: 80 }), 5_000)
  const client = CLIENT[address.includes(':') ? 6 : 4]
  if (!answer.startsWith('server saw ')) return answer
  return answer.startsWith(`server saw ${client.includes(':') ? `[${client}]` : client}:`) ? 'client' : 'proxy'
}

function prefix(text: string): Prefix {
  return parsePrefix(text)!
}

function whole(address: string): Prefix {
  return prefix(address)
}

function found(list: readonly BypassedPrefix[], { address, length }: Prefix): BypassedPrefix {
  const [one, ...others] = list.filter((each) => each.prefix.address === address && each.prefix.length === length)
  assert.ok(one !== undefined && others.length === 0, `${address}/${length}: ${JSON.stringify(list)}`)
  return one
}

test('a destination that is added while Limpid runs is forwarded by the kernel, until it is removed', async () => {
  const { rules } = await start(LISTENER)
  const { kernelBypass } = rules
  for (const family of FAMILIES) {
    assert.equal(await whoAsks(SERVER[family]), 'proxy')
    assert.equal(await kernelBypass.bypass(whole(SERVER[family])), 'added')
    assert.equal(await kernelBypass.bypass(whole(SERVER[family])), 'already')
    assert.equal(await whoAsks(SERVER[family]), 'client')
    assert.equal(await whoAsks(OTHER[family]), 'proxy', 'its neighbour is taken')
    const { connections, packets, expiresInMs } = found(await kernelBypass.bypassed(), whole(SERVER[family]))
    assert.equal(connections, 1)
    assert.ok((packets ?? 0) >= 8, `SYN, SYN-ACK, ACK, answer and FINs both ways: ${packets}`)
    assert.equal(expiresInMs, undefined)
    assert.equal(await kernelBypass.unbypass(whole(SERVER[family])), true)
    assert.equal(await kernelBypass.unbypass(whole(SERVER[family])), false)
    assert.equal(await whoAsks(SERVER[family]), 'proxy')
  }
  assert.deepEqual(await kernelBypass.bypassed(), [])
})

test('a flow that runs when its destination is added goes on through Limpid', async () => {
  const { proxy, rules } = await start(LISTENER)
  const to = { address: SERVER[4], port: 5_300 }
  const server = lab.z.listen(to)
  server.on('connection', (socket) => socket.pipe(socket))
  const client = lab.y.connect(to)
  const echoed = async (text: string) => {
    const answer = new Promise<string>((resolve) => client.once('data', (bytes) => resolve(bytes.toString())))
    client.write(text)
    assert.equal(await answer, text)
  }
  await echoed('before')
  await rules.kernelBypass.bypass(whole(to.address))
  await echoed('behind')
  assert.equal(proxy.stats().flowsOpen, 1)
  assert.equal(await whoAsks(to.address), 'client', 'a new one is not taken')
  const { connections } = found(await rules.kernelBypass.bypassed(), whole(to.address))
  assert.equal(connections, 1, 'what runs is not counted')
  client.destroy()
  await until(() => proxy.stats().flowsOpen === 0, 'end of the flow')
  server.close()
})

test('datagrams to it go by from the next one on, and their answers come', async () => {
  const { proxy, rules } = await start('listeners: [{ name: all, protocols: [udp] }]') // answers, too, go to its ports
  for (const family of FAMILIES) {
    const to = { address: SERVER[family], port: 5_300 }
    await using echo = await DatagramPeer.echo(lab.z, to)
    await using peer = await DatagramPeer.open(lab.y, { address: CLIENT[family], port: 0 }, to)
    const exchanged = async () => {
      peer.send('hello')
      assert.deepEqual((await peer.next(5_000))?.from, to)
      return echo.heard.at(-1)!.from
    }
    assert.notDeepEqual(await exchanged(), peer.address)
    await rules.kernelBypass.bypass(whole(to.address))
    assert.deepEqual(await exchanged(), peer.address)
    assert.deepEqual(await exchanged(), peer.address)
    const { connections, packets } = found(await rules.kernelBypass.bypassed(), whole(to.address))
    assert.deepEqual({ connections, packets }, { connections: 0, packets: 4 })
  }
  assert.equal(proxy.stats().sessionsOpen, FAMILIES.length)
})

test('after its time a destination is taken again; meanwhile it can be prolonged, and keeps its counts', async () => {
  const { kernelBypass } = (await start(LISTENER)).rules
  for (const family of FAMILIES) {
    const target = whole(SERVER[family])
    assert.equal(await kernelBypass.bypass(target, { forMs: 60_000 }), 'added')
    assert.equal(await whoAsks(SERVER[family]), 'client')
    assert.equal(await kernelBypass.bypass(target, { forMs: 1_000 }), 'already', 'it is for longer')
    assert.equal(await kernelBypass.bypass(target, { forMs: 120_000 }), 'prolonged')
    const { connections, expiresInMs } = found(await kernelBypass.bypassed(), target)
    assert.equal(connections, 1)
    assert.ok(expiresInMs !== undefined && expiresInMs > 60_000, `${expiresInMs}`)
    await kernelBypass.unbypass(target)
  }
  await Promise.all(FAMILIES.map((family) => kernelBypass.bypass(whole(SERVER[family]), { forMs: SHORT_MS })))
  await Promise.all(FAMILIES.map(async (family) => assert.equal(await whoAsks(SERVER[family]), 'client')))
  await Promise.all(FAMILIES.map((family) => eventually('proxy', SERVER[family])))
  assert.deepEqual(await kernelBypass.bypassed(), [])
})

test('prefixes may lie within each other: each is bypassed for its own time', async () => {
  const { kernelBypass } = (await start(`${LISTENER}\nbypass: [10.0.5.0/24]`)).rules
  await kernelBypass.bypass(whole(SERVER[4]), { forMs: 60_000 })
  await kernelBypass.bypass(prefix('10.0.0.0/16'), { forMs: SHORT_MS })
  await kernelBypass.bypass(prefix('10.0.4.0/31'), { forMs: 60_000 })
  assert.equal(await whoAsks(OTHER[4]), 'client')
  assert.deepEqual(found(await kernelBypass.bypassed(), whole(SERVER[4])).within, prefix('10.0.0.0/16'))
  await eventually('proxy', OTHER[4])
  await eventually('client', SERVER[4])
  const left = (await kernelBypass.bypassed()).map(({ prefix: { address, length } }) => `${address}/${length}`)
  assert.deepEqual(left.toSorted(), ['10.0.4.0/31', '10.0.4.2/32', '10.0.5.0/24'])
  assert.match(await mustRun('nft', ['list', 'set', 'inet', 'limpid', 'bypass4']), /10\.0\.5\.0\/24/)
})

test('when the process that holds the nft table is killed, what was added comes back with the rules', async () => {
  const { rules, notes } = await start(`${LISTENER}\nbypass: 10.0.5.0/24`)
  for (const family of FAMILIES) await rules.kernelBypass.bypass(whole(SERVER[family]))
  await rules.kernelBypass.bypass(whole(OTHER[4]), { forMs: 60_000 })
  process.kill(nftChild(), 'SIGKILL')
  await until(() => rules.restorations === 1, 'restoration')
  for (const family of FAMILIES) await eventually('client', SERVER[family])
  await eventually('client', OTHER[4])
  assert.equal(await whoAsks(OTHER[6]), 'proxy')
  assert.match(await mustRun('nft', ['list', 'set', 'inet', 'limpid', 'bypass4']), /10\.0\.5\.0\/24/)
  await rules.kernelBypass.bypass(whole(OTHER[6]))
  assert.equal(await whoAsks(OTHER[6]), 'client')
  await sleep(2_500) // as long as looks in vain are put off
  assert.equal(rules.restorations, 1, `elements are no damage: ${notes.join('\n')}`)
})

test('a change that the kernel refuses is made anew, from nothing, and counts are kept', async () => {
  const { rules, plan } = await start(`${LISTENER}\nbypass: 10.0.5.0/24`)
  let refusals = 0
  const commands: string[] = []
  using bypass = new KernelBypass(
    plan,
    async (text) => {
      commands.push(text)
      if (refusals-- > 0) throw new Error('refused')
      await rules.change(text)
    },
    () => {},
  )
  await bypass.bypass(whole(SERVER[4]))
  assert.equal(await whoAsks(SERVER[4]), 'client')
  refusals = 1
  await bypass.bypass(whole(OTHER[4]), { forMs: 60_000 })
  assert.match(commands.at(-1)!, /^flush set inet limpid bypass4$/m)
  assert.equal(await whoAsks(OTHER[4]), 'client')
  assert.equal(found(await bypass.bypassed(), whole(SERVER[4])).connections, 1)
  assert.deepEqual([...(await readBypassAccounts(plan)).of.keys()].toSorted(), [
    '10.0.4.2/32',
    '10.0.4.3/32',
    '10.0.5.0/24',
  ])
  refusals = 2
  await assert.rejects(bypass.unbypass(whole(SERVER[4])), { message: 'refused' })
  assert.equal(await bypass.bypass(whole(OTHER[6])), 'added')
  assert.equal(await whoAsks(SERVER[4]), 'proxy', 'what was refused was made up for')
  assert.equal(await whoAsks(OTHER[6]), 'client')
})

test('rules that were installed to stay keep nothing that was added', async () => {
  const listed = () => mustRun('nft', ['list', 'set', 'inet', 'limpid', 'bypass4'])
  const config = parseConfig(`${LISTENER}\nbypass: 10.0.5.0/24`, 'test')
  const plan = planRuleset(config, hostFacts(), { backend: 'nft' })
  const kept = await installRuleset(plan, { owner: 'persistent' })
  try {
    await kept.change('add element inet limpid bypass4 { 10.0.6.0/24 }\n') // as a process that was killed
    const rules = await KeptRules.install(plan, () => {})
    assert.doesNotMatch(await listed(), /10\.0\.6\.0/)
    await rules.kernelBypass.bypass(whole(SERVER[4]))
    assert.match(await listed(), /10\.0\.4\.2/)
    await mustRun('nft', ['delete', 'element', 'inet', 'limpid', 'bypass4', '{ 10.0.5.0/24 }'])
    await until(() => rules.restorations === 1, 'restoration of a configured prefix')
    await untilListed(listed, /10\.0\.4\.2/)
    assert.match(await listed(), /10\.0\.5\.0\/24/)
    await rules.remove({ keepGuard: false })
    assert.doesNotMatch(await listed(), /10\.0\.4\.2/)
    assert.match(await listed(), /10\.0\.5\.0\/24/)
  } finally {
    await kept.remove()
  }
})

test('thousands at once are a few changes, and elements that come and go are no damage', async () => {
  const { rules, plan } = await start(LISTENER)
  const many = Array.from({ length: 3_000 }, (_, i) => prefix(`10.${16 + (i >> 8)}.${i & 255}.0/24`))
  await Promise.all(many.map((each) => rules.kernelBypass.bypass(each)))
  assert.equal((await rules.kernelBypass.bypassed()).length, many.length)
  assert.equal((await readBypassAccounts(plan)).of.size, many.length, 'all are in the kernel')
  await Promise.all(many.slice(1).map((each) => rules.kernelBypass.unbypass(each)))
  assert.deepEqual([...(await readBypassAccounts(plan)).of.keys()], ['10.16.0.0/24'])
  await sleep(2_500)
  assert.equal(rules.restorations, 0)
})

test('a closed listener drops nothing that is bypassed, while Limpid runs', async () => {
  const { rules } = await start('listeners: [{ name: all, protocols: [tcp, udp], onDown: closed }]')
  for (const family of FAMILIES) {
    const to = { address: SERVER[family], port: 5_300 }
    await using echo = await DatagramPeer.echo(lab.z, to)
    await using peer = await DatagramPeer.open(lab.y, { address: CLIENT[family], port: 0 }, to)
    await rules.kernelBypass.bypass(whole(to.address))
    assert.equal(await whoAsks(to.address), 'client')
    peer.send('hello')
    assert.deepEqual((await peer.next(5_000))?.from, to)
    assert.deepEqual(echo.heard[0]!.from, peer.address)
  }
})

test('a host that does not forward is told of it, at the start and when the first one is added', async () => {
  setSysctl('net.ipv4.ip_forward', '0')
  try {
    const configured = await start(`${LISTENER}\nbypass: 10.0.4.2`)
    const line =
      'bypass 10.0.4.2/32: this host does not forward IPv4 (net.ipv4.ip_forward is 0): what is bypassed is dropped; sysctl -w net.ipv4.ip_forward=1'
    assert.deepEqual(configured.notes, [line])
    await configured.rules.kernelBypass.bypass(whole(OTHER[4]))
    await configured.rules.kernelBypass.bypass(whole(OTHER[6]))
    assert.deepEqual(configured.notes, [line, line.replace('10.0.4.2', '10.0.4.3')])
  } finally {
    setSysctl('net.ipv4.ip_forward', '1')
  }
})

test('what cannot be done is refused with its reason', async () => {
  const configured = await start('listeners: [{ family: 4 }]\nbypass: 10.0.5.0/24')
  const { kernelBypass } = configured.rules
  await assert.rejects(kernelBypass.unbypass(prefix('10.0.5.0/24')), {
    code: 'LIMPID_BYPASS',
    message: /stands in the conf/,
  })
  await assert.rejects(kernelBypass.bypass(prefix('fd00::/8')), {
    code: 'LIMPID_BYPASS',
    message: /no listener takes IPv6/,
  })
  for (const forMs of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    await assert.rejects(kernelBypass.bypass(prefix('10.9.0.0/16'), { forMs }), { code: 'LIMPID_USAGE' })
  }
})

test('with iptables nothing can be added while Limpid runs, and that is said', async () => {
  const { rules } = await start(`${LISTENER}\nrules: { backend: iptables }`)
  await assert.rejects(rules.kernelBypass.bypass(whole(SERVER[4])), {
    code: 'LIMPID_BYPASS',
    message: /backend iptables/,
  })
  await rules.remove({ keepGuard: false })
  await mustRun('nft', ['flush', 'ruleset']) // the tables and built-in chains that iptables makes stay, empty
})

async function eventually(
  who: 'client' | 'proxy',
  address: string,
  family: Family = address.includes(':') ? 6 : 4,
): Promise<void> {
  const deadlineAt = performance.now() + 30_000
  for (;;) {
    const asked = await whoAsks(address)
    if (asked === who) return
    assert.ok(performance.now() < deadlineAt, `IPv${family} ${address}: ${asked}, not ${who}`)
    await sleep(50)
  }
}

async function untilListed(list: () => Promise<string>, what: RegExp): Promise<void> {
  const deadlineAt = performance.now() + 10_000
  while (!what.test(await list())) assert.ok(performance.now() < deadlineAt, `${what}: ${await list()}`)
}

/** The `nft -i` of this process. */
function nftChild(): number {
  const lines = execFileSync('ps', ['-o', 'pid=,comm=', '--ppid', `${process.pid}`], { encoding: 'utf8' }).split('\n')
  return Number(
    lines
      .find((line) => line.trim().endsWith(' nft'))!
      .trim()
      .split(' ')[0],
  )
}

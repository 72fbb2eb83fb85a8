import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Host } from '../lab/host.ts'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { outputOf } from '../lab/output.fixture.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Z } from '../lab/topology.ts'
import { type LabServer, serve, until } from '../lab/traffic.fixture.ts'
import { type Family, formatEndpoint } from '../net/address.ts'
import { Datagrams } from '../ruleset/udp.fixture.ts'
import type { TraceReport } from './report.ts'

await enterNamespaces()

const folder = mkdtempSync(join(tmpdir(), 'limpid-trace-'))
const WAIT_MS = 10_000
const EXCLUDED = { 4: '10.0.3.7', 6: 'fd00:3::7' } as const

let lab: Topology
const servers: LabServer[] = []
before(async () => {
  lab = await raiseTopology()
  await lab.y.run('ip', ['address', 'add', `${EXCLUDED[4]}/24`, 'dev', 'y-x'])
  // not preferred: it is used by those alone who ask for it
  await lab.y.run('ip', ['address', 'add', `${EXCLUDED[6]}/64`, 'dev', 'y-x', 'preferred_lft', '0'])
  for (const address of [ADDRESSES[4].z, ADDRESSES[6].z]) {
    for (const port of [80, 81]) servers.push(await serve(lab.z, { address, port }, (socket) => socket.end('from Z')))
  }
})
after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

interface TraceRun {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** `limpid trace` on X; with --live the client dials as soon as it waits. */
async function traceOn(
  args: readonly string[],
  dial?: () => void,
  signal?: NodeJS.Signals,
  on = lab.x,
): Promise<TraceRun> {
  const child = on.spawn(process.execPath, [LIMPID_PROGRAM, 'trace', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = outputOf(child, WAIT_MS)
  if (dial !== undefined || signal !== undefined) {
    await until(() => output.stderr.includes('waiting for') || child.exitCode !== null, 'wait of limpid trace')
    dial?.()
    if (signal !== undefined) child.kill(signal)
  }
  const code = await output.closed
  return { code, stdout: output.stdout, stderr: output.stderr }
}

/** The report with a real packet, and that nothing of it is left. */
async function liveReport(args: readonly string[], from: Host, to: { address: string; port: number }, on = lab.x) {
  const sockets: ReturnType<Host['connect']>[] = []
  const run = await traceOn(
    [...args, '--live', '--json'],
    () => {
      const socket = from.connect(to)
      socket.on('error', () => {})
      socket.resume()
      sockets.push(socket)
    },
    undefined,
    on,
  )
  for (const socket of sockets) socket.destroy()
  assert.ok(run.code === 0 || run.code === 3, `${run.code}: ${run.stderr}`)
  await nothingLeft(on)
  return { report: JSON.parse(run.stdout) as TraceReport, code: run.code }
}

async function nothingLeft(on = lab.x): Promise<void> {
  assert.doesNotMatch(await on.run('nft', ['list', 'tables']), /limpid-trace/)
}

function configFile(name: string, listener: string): string {
  const path = join(folder, `${name}.yaml`)
  writeFileSync(path, `listeners:\n  - name: web\n    ports: [80]\n${listener}`)
  return path
}

interface Case {
  readonly name: string
  readonly lines: string
  readonly flags?: readonly string[]
  readonly mark: number
  readonly chain: Readonly<Record<Family, string>>
}

const NFT = (chain: string) => ({ 4: `nft inet limpid ${chain}`, 6: `nft inet limpid ${chain}` })
const CASES: readonly Case[] = [
  { name: 'tproxy', lines: '    intercept: tproxy\n    source: client\n', mark: 0x1000_0000, chain: NFT('prerouting') },
  {
    name: 'redirect',
    lines: '    intercept: redirect\n    source: client-port\n',
    mark: 0,
    chain: NFT('nat-prerouting'),
  },
  {
    name: 'mark',
    lines: '    intercept: mark\n    listen: ["0.0.0.0:80", "[::]:80"]\n',
    mark: 0x1000_0000,
    chain: NFT('prerouting'),
  },
  {
    name: 'tproxy by iptables',
    lines: '    intercept: tproxy\n',
    flags: ['--backend', 'iptables'],
    mark: 0x1000_0000,
    chain: { 4: 'iptables mangle limpid-prerouting', 6: 'ip6tables mangle limpid-prerouting' },
  },
  {
    name: 'redirect by iptables',
    lines: '    intercept: redirect\n',
    flags: ['--backend', 'iptables'],
    mark: 0,
    chain: { 4: 'iptables nat limpid-prerouting', 6: 'ip6tables nat limpid-prerouting' },
  },
]

for (const { name, lines, flags = [], mark, chain } of CASES) {
  test(`${name}: the kernel does with a real packet what was predicted`, async () => {
    const path = configFile(
      name.replaceAll(' ', '-'),
      `${lines}    exclude:\n      sources: [${EXCLUDED[4]}, "${EXCLUDED[6]}"]\n`,
    )
    const limpid = await LimpidProcess.start(lab.x, ['run', '-c', path, ...flags])
    try {
      for (const family of [4, 6] as const) {
        const { y, z } = ADDRESSES[family]
        const destination = { address: z, port: 80 }
        const args = [y, formatEndpoint(destination), '-c', path, ...flags]
        const { report, code } = await liveReport(args, lab.y, destination)
        assert.deepEqual(report.live?.deviations, [], JSON.stringify(report, null, 1))
        assert.equal(code, 0)
        assert.equal(report.predicted.takenBy, 'listener web')
        assert.equal(report.live?.takenBy, 'listener web')
        assert.equal(report.predicted.mark, mark)
        assert.equal((report.live!.mark & 0x3000_0000) >>> 0, mark)
        assert.equal(report.live?.fate, 'delivered')
        assert.ok(report.predicted.hops.some(({ word, what }) => word === 'rule' && what.startsWith(chain[family])))
        assert.ok(report.predicted.rules.length > 0)

        const other = { address: z, port: 81 }
        const missed = await liveReport([y, formatEndpoint(other), '-c', path, ...flags], lab.y, other)
        assert.equal(missed.code, 3)
        assert.deepEqual(missed.report.live?.deviations, [], JSON.stringify(missed.report, null, 1))
        assert.deepEqual(missed.report.missed[0], { name: 'listener web', failed: ['port 81 is not in 80'] })
        assert.equal(missed.report.live?.takenBy, null)
        assert.equal(missed.report.live?.fate, 'forwarded')
        assert.equal(missed.report.live?.out, X_TO_Z)
      }
      for (const family of [4, 6] as const) {
        const client = EXCLUDED[family]
        const destination = { address: ADDRESSES[family].z, port: 80 }
        const sockets: ReturnType<Host['connect']>[] = []
        const run = await traceOn(
          [client, formatEndpoint(destination), '-c', path, ...flags, '--live', '--json'],
          () => {
            const socket = lab.y.connect(destination, { from: { address: client, port: 0 } })
            socket.on('error', () => {})
            socket.resume()
            sockets.push(socket)
          },
        )
        for (const socket of sockets) socket.destroy()
        const report = JSON.parse(run.stdout) as TraceReport
        assert.equal(run.code, 3)
        assert.match(report.missed[0]!.failed.join(), /^source .* is excluded \(.*\)$/)
        assert.deepEqual(report.live?.deviations, [])
        assert.equal(report.live?.fate, 'forwarded')
      }
    } finally {
      await limpid.stop()
    }
    await nothingLeft()
  })
}

for (const [name, lines, flags, chain] of [
  ['tproxy', '    source: client\n', [], 'nft inet limpid datagrams'],
  ['redirect', '    intercept: redirect\n', [], 'nft inet limpid nat-prerouting'],
  ['tproxy by iptables', '', ['--backend', 'iptables'], 'iptables mangle limpid-udp'],
] as const) {
  test(`${name}: the kernel does with a real datagram what was predicted`, async () => {
    const path = configFile(`udp-${name.replaceAll(' ', '-')}`, `    protocols: udp\n    family: 4\n${lines}`)
    const limpid = await LimpidProcess.start(lab.x, ['run', '-c', path, ...flags])
    const y = ADDRESSES[4].y
    const live = async (port: number) => {
      const to = `10.0.4.2:${port}`
      const args = [y, to, '--protocol', 'udp', '-c', path, ...flags, '--live', '--json']
      using client = new Datagrams({ address: y, port: 0 }, { on: lab.y })
      const { stdout } = await traceOn(args, () => client.send('question', { address: ADDRESSES[4].z, port }))
      return JSON.parse(stdout) as TraceReport
    }
    try {
      const taken = await live(80)
      assert.deepEqual(taken.live?.deviations, [], JSON.stringify(taken, null, 1))
      assert.equal(taken.live?.takenBy, 'listener web')
      assert.equal(taken.live?.fate, 'delivered')
      assert.ok(taken.predicted.hops.some(({ word, what }) => word === 'rule' && what.startsWith(`${chain}:`)))
      assert.ok(!taken.predicted.hops.some(({ what }) => what.includes('nothing listens')))
      const missed = await live(81)
      assert.deepEqual(missed.live?.deviations, [], JSON.stringify(missed, null, 1))
      assert.equal(missed.live?.fate, 'forwarded')
    } finally {
      await limpid.stop()
    }
    await nothingLeft()
  })
}

test('what the kernel passes on to another host goes there as predicted', async () => {
  const path = join(folder, 'forward.yaml')
  const to = '    ports: [8053]\n    protocols: [tcp]\n    source: proxy\n'
  writeFileSync(path, `listeners: [{ ports: [443] }]\nforwards:\n  - name: dns\n    to: 10.0.4.2:81\n${to}`)
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', path])
  try {
    const destination = { address: ADDRESSES[4].xy, port: 8053 }
    const { report, code } = await liveReport([ADDRESSES[4].y, '10.0.3.101:8053', '-c', path], lab.y, destination)
    assert.deepEqual(report.live?.deviations, [], JSON.stringify(report, null, 1))
    assert.equal(code, 0)
    assert.equal(report.live?.takenBy, 'forward dns')
    assert.equal(report.live?.to, '10.0.4.2:81')
    assert.equal(report.live?.fate, 'forwarded')
  } finally {
    await limpid.stop()
  }
})

test('while Limpid is down a closed listener’s guard is the deviation', async () => {
  const path = configFile('closed', '    intercept: tproxy\n    onDown: closed\n')
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', path])
  await limpid.stop('SIGKILL')
  try {
    const destination = { address: ADDRESSES[6].z, port: 80 }
    const { report, code } = await liveReport([ADDRESSES[6].y, '[fd00:4::2]:80', '-c', path], lab.y, destination)
    assert.equal(code, 3)
    assert.equal(report.live?.takenBy, null)
    assert.match(report.live!.deviations.join('\n'), /^end: .* dropped by nft inet limpid-guard prerouting: /m)
    assert.match(report.predicted.hops.find(({ word }) => word === 'listener')!.what, /; nothing listens there now$/)
    assert.match(report.predicted.hops.at(-1)!.what, /^closed: nft inet limpid-guard prerouting drops it/)
  } finally {
    await lab.x.run(process.execPath, [LIMPID_PROGRAM, 'rules', 'remove'])
  }
})

test('frames that cross a bridge, taken and not, go as predicted', async () => {
  const [x, y, z] = await Promise.all([Host.create('bridge'), Host.create('bridged Y'), Host.create('bridged Z')])
  const server = await (async () => {
    for (const host of [x, y, z]) host.setSysctls({ 'net.ipv6.conf.default.accept_dad': '0' })
    await x.run('ip', ['link', 'add', 'br9', 'type', 'bridge'])
    for (const [host, name, number] of [
      [y, 'b-y', 1],
      [z, 'b-z', 2],
    ] as const) {
      await x.run('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'x', 'netns', host.path])
      await x.run('ip', ['link', 'set', name, 'master', 'br9', 'up'])
      await host.run('ip', ['address', 'add', `10.0.9.${number}/24`, 'dev', 'x'])
      await host.run('ip', ['link', 'set', 'x', 'up'])
    }
    await x.run('ip', ['address', 'add', '10.0.9.101/24', 'dev', 'br9'])
    await x.run('ip', ['link', 'set', 'br9', 'up'])
    return await serve(z, { address: '10.0.9.2', port: 80 }, (socket) => socket.end('from Z'))
  })()
  const path = configFile('bridged', '    intercept: tproxy\n    paths: [bridged]\n    source: client\n    family: 4\n')
  const limpid = await LimpidProcess.start(x, ['run', '-c', path])
  try {
    for (const [port, takenBy, fate] of [
      [80, 'listener web', 'delivered'],
      [81, null, 'bridged'],
    ] as const) {
      const { report } = await liveReport(
        ['10.0.9.1', `10.0.9.2:${port}`, '-c', path],
        y,
        { address: '10.0.9.2', port },
        x,
      )
      assert.deepEqual(report.live?.deviations, [], JSON.stringify(report, null, 1))
      assert.equal(report.flow.path, 'bridged')
      assert.equal(report.live?.takenBy, takenBy)
      assert.equal(report.live?.fate, fate)
    }
  } finally {
    await limpid.stop()
    await server[Symbol.asyncDispose]()
    await Promise.all([x.close(), y.close(), z.close()])
  }
})

for (const intercept of ['tproxy', 'redirect']) {
  test(`${intercept} of what this host's own processes send: the kernel does what was predicted`, async () => {
    const path = configFile(`local-${intercept}`, `    intercept: ${intercept}\n    paths: [local]\n`)
    const limpid = await LimpidProcess.start(lab.x, ['run', '-c', path])
    try {
      for (const family of [4, 6] as const) {
        const destination = { address: ADDRESSES[family].z, port: 80 }
        const args = [ADDRESSES[family].xz, formatEndpoint(destination), '-c', path]
        const { report, code } = await liveReport(args, lab.x, destination)
        assert.deepEqual(report.live?.deviations, [], JSON.stringify(report, null, 1))
        assert.equal(code, 0)
        assert.equal(report.flow.path, 'local')
        assert.equal(report.live?.takenBy, 'listener web')
      }
    } finally {
      await limpid.stop()
    }
    await nothingLeft()
  })
}

test('another’s rule that drops the packet is named as the deviation', async () => {
  const path = configFile('dropped', '    intercept: tproxy\n')
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', path])
  await lab.x.run('nft', ['-f', '-'], {
    input:
      'table inet theirs { chain early { type filter hook prerouting priority -200; tcp dport 80 counter drop; }; }\n',
  })
  try {
    const destination = { address: ADDRESSES[4].z, port: 80 }
    const { report, code } = await liveReport([ADDRESSES[4].y, '10.0.4.2:80', '-c', path], lab.y, destination)
    assert.equal(code, 3)
    assert.ok(
      report.live?.deviations.includes(
        'end: predicted delivered to this host, the kernel: dropped by nft inet theirs early: tcp dport 80 counter drop',
      ),
      JSON.stringify(report.live),
    )
  } finally {
    await lab.x.run('nft', ['delete', 'table', 'inet', 'theirs'])
    await limpid.stop()
  }
})

test('a prediction takes no privilege', async () => {
  const path = configFile('unprivileged', '    intercept: tproxy\n    source: client\n')
  const text = await lab.x.run('setpriv', [
    '--bounding-set=-all',
    '--inh-caps=-all',
    process.execPath,
    ...[LIMPID_PROGRAM, 'trace', ADDRESSES[4].y, '10.0.4.2:80', '-c', path],
  ])
  assert.match(text, /^rule +nft inet limpid prerouting: listener web \(tproxy to 127\.0\.0\.1:50080\)$/m)
})

for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
  test(`${signal} while it waits leaves nothing behind`, async () => {
    const path = configFile('interrupted', '    intercept: tproxy\n')
    const run = await traceOn([ADDRESSES[4].y, '10.0.4.2:80', '-c', path, '--live'], undefined, signal)
    assert.equal(run.code, signal === 'SIGKILL' ? null : 3, run.stderr)
    if (signal === 'SIGKILL') await new Promise((resolve) => setTimeout(resolve, 500))
    await nothingLeft()
    assert.equal(await lab.x.run('sh', ['-c', 'pgrep -fc "[n]ft.*monitor" || true']), '0\n')
  })
}

test('without a packet in time it says so, and exits with 3', async () => {
  const path = configFile('silent', '    intercept: tproxy\n')
  const args = [ADDRESSES[4].y, '10.0.4.2:80', '-c', path, '--live', '--timeout', '300ms']
  const run = await traceOn(args)
  assert.equal(run.code, 3)
  assert.match(run.stdout, /^live +no such packet came$/m)
  await nothingLeft()
})

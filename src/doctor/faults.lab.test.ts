import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y, X_TO_Z } from '../lab/topology.ts'
import { type LabServer, serve, until } from '../lab/traffic.fixture.ts'
import { assertSameForPeople, type DoctorRun, doctorOn, wrongLines } from './doctor.fixture.ts'

await enterNamespaces()

/** What serves while the fault is there. `kept`: rules that nobody watches over, and a listener that leaves them alone. */
type Setup = 'run' | 'kept' | 'rules' | 'nothing'

interface Fault {
  readonly name: string
  readonly setup: Setup
  readonly doctorFlags?: readonly string[]
  readonly wrapper?: readonly string[]
  readonly plant: () => Promise<void> | void
  /** The line that names the fault and its cure. */
  readonly line: RegExp
  /** That command, as an operator would type it; it must mend the fault. */
  readonly cure?: string
  /** Undoes the plant where no cure does. */
  readonly heal?: () => Promise<void> | void
}

const TPROXY = ['--intercept', 'tproxy', '--source', 'client']
const RULE = 'pref 195 fwmark 0x10000000/0x30000000 lookup 19536'
const SERVER = { address: ADDRESSES[4].z, port: 80 }
const SILENT_MS = 1_500 // for an answer that must not come; one that must comes at once, or is sent again after a second

let lab: Topology
const servers: LabServer[] = []
before(async () => {
  lab = await raiseTopology()
  for (const address of [ADDRESSES[4].z, ADDRESSES[6].z]) {
    servers.push(await serve(lab.z, { address, port: 80 }, (socket) => socket.end('from Z')))
  }
})
after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
})

const onX = (command: string) => lab.x.run('sh', ['-c', command])
const onZ = (command: string) => lab.z.run('sh', ['-c', command])

/** Starts what serves; returns what ends it. */
async function start(setup: Setup, flags: readonly string[]): Promise<() => Promise<void>> {
  const limpid = (...args: string[]) => lab.x.run(process.execPath, [LIMPID_PROGRAM, ...args])
  if (setup === 'nothing') return async () => {}
  if (setup === 'run') {
    const running = await LimpidProcess.start(lab.x, ['run', ...flags])
    return async () => void (await running.stop())
  }
  await limpid('rules', 'install', ...flags)
  const listening = setup === 'kept' ? await LimpidProcess.start(lab.x, ['run', ...flags, '--no-rules']) : undefined
  return async () => {
    await listening?.stop()
    await limpid('rules', 'remove')
  }
}

/** What the faults of one setup share: it serves until a test fails, or asks for another. */
let serving: { readonly setup: Setup; readonly end: () => Promise<void> } | undefined

async function provide(setup: Setup): Promise<void> {
  if (serving?.setup === setup) return
  await endServing()
  serving = { setup, end: await start(setup, TPROXY) }
}

async function endServing(): Promise<void> {
  await serving?.end()
  serving = undefined
}

function testHealthy(setup: Setup): void {
  test(`a healthy host gives no alarm (${setup})`, async () => {
    await provide(setup)
    const flags = [...TPROXY, '--server', '10.0.4.2:80']
    const { report, code, lines } = await doctorOn(lab.x, flags)
    assert.deepEqual(wrongLines(lines), [])
    assert.equal(code, 0)
    assert.equal(report.wrong, 0)
    assert.deepEqual(
      [...report.checks, ...report.packets].filter(({ status }) => status !== 'ok'),
      [],
    )
    assert.equal(report.packets.filter(({ what }) => what.startsWith('TCP over IPv')).length, 2)
    await assertSameForPeople(lab.x, flags, { report, code, lines })
  })
}

test('datagrams are pushed through listeners for UDP, and a lost one is told with the command that shows its way', async () => {
  const flags = [...TPROXY, '--protocol', 'udp', '--ports', '53,6000']
  const stop = await start('run', flags)
  try {
    const healthy = await doctorOn(lab.x, flags)
    assert.deepEqual(wrongLines(healthy.lines), [])
    for (const family of [4, 6]) {
      const taken = new RegExp(
        `^ok +packets +UDP over IPv${family} to port 53, .* was taken by listener tproxy and answered; the server`,
        'm',
      )
      assert.match(healthy.lines.join('\n'), taken)
    }
    assert.match(healthy.lines.join('\n'), /^ok +listener +listener tproxy waits at 127\.0\.0\.1:\d+ for UDP/m)
    await onX(
      'nft add table inet other; nft add chain inet other c "{ type filter hook prerouting priority -300; }"; nft add rule inet other c udp dport 53 drop',
    )
    const { lines } = await doctorOn(lab.x, flags)
    assert.match(
      lines.join('\n'),
      /^wrong +packets +UDP over IPv4 to port 53, .* is not taken by listener tproxy; cure: limpid trace \S+ \S+:53 --protocol udp$/m,
    )
  } finally {
    await onX('nft delete table inet other || true')
    await stop()
  }
})

const FAULTS: readonly Fault[] = [
  {
    name: 'rp_filter=1 on the interface',
    setup: 'run',
    plant: () => lab.x.setSysctls({ [`net.ipv4.conf.${X_TO_Y}.rp_filter`]: '1' }),
    line: /^note +rp-filter +rp_filter is 1 \(strict\) on x-y \(all=0, x-y=1; .*harmless while .* x-y.*; cure: sysctl -w net\.ipv4\.conf\.x-y\.rp_filter=2$/,
    cure: 'sysctl -w net.ipv4.conf.x-y.rp_filter=2',
    heal: () => lab.x.setSysctls({ [`net.ipv4.conf.${X_TO_Y}.rp_filter`]: '0' }),
  },
  {
    name: 'rp_filter=1 on all',
    setup: 'run',
    plant: () => lab.x.setSysctls({ 'net.ipv4.conf.all.rp_filter': '1' }),
    line: /^note +rp-filter +rp_filter is 1 \(strict\) on x-y \(all=1, x-y=0; .*; cure: sysctl -w net\.ipv4\.conf\.x-y\.rp_filter=2$/,
    heal: () => lab.x.setSysctls({ 'net.ipv4.conf.all.rp_filter': '0' }),
  },
  {
    name: 'src_valid_mark=1',
    setup: 'run',
    plant: () => lab.x.setSysctls({ 'net.ipv4.conf.all.src_valid_mark': '1' }),
    line: /^note +src-valid-mark +src_valid_mark is 1 on all: harmless.*; cure: sysctl -w net\.ipv4\.conf\.all\.src_valid_mark=0$/,
    cure: 'sysctl -w net.ipv4.conf.all.src_valid_mark=0',
  },
  {
    name: 'src_valid_mark=1 without our detour',
    setup: 'kept',
    plant: async () => {
      lab.x.setSysctls({ 'net.ipv4.conf.all.src_valid_mark': '1' })
      await onX('ip rule del pref 194')
    },
    line: /^wrong +src-valid-mark +src_valid_mark is 1 on all: every packet .* dies as a martian; cure: sysctl -w net\.ipv4\.conf\.all\.src_valid_mark=0$/,
    heal: async () => {
      lab.x.setSysctls({ 'net.ipv4.conf.all.src_valid_mark': '0' })
      await onX('ip rule add pref 194 iif lo fwmark 0x10000000/0x30000000 goto 196 protocol 195')
    },
  },
  {
    name: 'missing ip rule',
    setup: 'kept',
    plant: async () => void (await onX('ip rule del pref 195')),
    line: new RegExp(
      `^wrong +ip-rule +ip -4 rule ${RULE} .*is missing: .*; cure: ip -4 rule add ${RULE} protocol 195$`,
    ),
    cure: `ip -4 rule add ${RULE} protocol 195`,
  },
  {
    name: 'missing local route',
    setup: 'kept',
    plant: async () => void (await onX('ip route flush table 19536')),
    line: /^wrong +local-route +ip -4 route local default dev lo table 19536 proto 195 is missing: .*; cure: ip -4 route add local default dev lo table 19536 proto 195$/,
    cure: 'ip -4 route add local default dev lo table 19536 proto 195',
  },
  {
    name: 'route table taken by somebody',
    setup: 'run',
    plant: async () => void (await onX('ip route add 10.0.4.0/24 dev x-z table 19536')),
    line: /^wrong +route-table +route table 19536 is taken by somebody: .*10\.0\.4\.0\/24 dev x-z.*; cure: ip -4 route del .*10\.0\.4\.0\/24 dev x-z.* table 19536$/,
    cure: 'FOUND',
  },
  {
    name: "fwmark collision with another's rule",
    setup: 'run',
    plant: async () => void (await onX('ip rule add pref 100 fwmark 0x10000000/0x10000000 lookup 100')),
    line: /^wrong +foreign-ip-rule +ip -4 rule pref 100 fwmark 0x10000000\/0x10000000 lookup 100 .*mark bits of ours.*; cure: ip -4 rule del pref 100 fwmark 0x10000000\/0x10000000 lookup 100/,
    cure: 'FOUND',
  },
  {
    name: 'listener down',
    setup: 'rules',
    plant: () => {},
    line: /^wrong +listener +nothing listens at 127\.0\.0\.1:50080 \(listener tproxy\), but its rules are installed.*; cure: limpid run --intercept tproxy --source client$/,
  },
  {
    name: 'a foreign nft chain dropping the packet',
    setup: 'run',
    plant: async () => {
      await lab.x.run('nft', ['-f', '-'], {
        input:
          'table inet theirs {\nchain early {\ntype filter hook prerouting priority -200;\ntcp dport 80 ip daddr != 10.9.9.9 drop\n}\n}\n',
      })
    },
    line: /^wrong +packets +TCP over IPv4 to listener tproxy dies in nft table inet theirs, chain early: the rule "tcp dport 80 ip daddr != 10\.9\.9\.9 drop" \(handle \d+\); cure: nft delete rule inet theirs early handle \d+$/,
    cure: 'FOUND',
    heal: async () => void (await onX('nft delete table inet theirs')),
  },
  {
    name: 'a foreign chain with an earlier priority changing the mark',
    setup: 'run',
    plant: async () => {
      await lab.x.run('nft', ['-f', '-'], {
        input:
          'table ip theirs {\nchain early {\ntype filter hook prerouting priority -200;\ntcp dport 80 meta mark set 0x20000001\n}\n}\n',
      })
    },
    line: /^wrong +packets +TCP over IPv4 to listener tproxy dies before our rules: nft table ip theirs, chain early: the rule "tcp dport 80 meta mark set 0x20000001" \(handle \d+\) sets mark bits of ours .*; cure: nft delete rule ip theirs early handle \d+$/,
    cure: 'FOUND',
    heal: async () => void (await onX('nft delete table ip theirs')),
  },
  {
    name: 'no IPv6 forwarding route',
    setup: 'run',
    plant: async () => void (await onX(`ip -6 route del fd00:4::/64 dev ${X_TO_Z}`)),
    line: /^wrong +route-to-servers +no IPv6 route leads on to servers, only fd00:3::\/64 by x-y.*; cure: ip -6 route add default via GATEWAY dev x-z/,
    heal: async () => void (await onX(`ip -6 route add fd00:4::/64 dev ${X_TO_Z} proto kernel`)),
  },
  {
    name: 'missing CAP_NET_ADMIN',
    setup: 'nothing',
    wrapper: ['setpriv', '--bounding-set=-net_admin'],
    plant: () => {},
    line: /^wrong +capability +this process \(uid 0\) lacks CAP_NET_ADMIN: .*; cure: as root: setpriv .*\+net_admin.* limpid run --intercept tproxy --source client$/,
  },
  {
    name: 'missing CAP_NET_RAW',
    setup: 'nothing',
    wrapper: ['setpriv', '--bounding-set=-net_raw'],
    plant: () => {},
    line: /^wrong +capability +this process \(uid 0\) lacks CAP_NET_RAW: .*; cure: as root: setpriv .*\+net_raw.* limpid run --intercept tproxy --source client$/,
  },
  {
    name: 'MTU mismatch',
    setup: 'run',
    plant: async () => void (await onX(`ip link set ${X_TO_Z} mtu 1400`)),
    line: /^note +mtu +MTU 1500 on x-y and 1400 on x-z differ: .*; cure: ip link set x-y mtu 1400$/,
    cure: 'ip link set x-y mtu 1400',
    heal: async () => void (await onX('ip link set x-y mtu 1500; ip link set x-z mtu 1500')),
  },
  // last of its setup: what limpid dialled meanwhile waits for a while
  {
    name: 'Z without a return route',
    setup: 'run',
    doctorFlags: ['--server', '10.0.4.2:80'],
    plant: async () => void (await onZ('ip route del default')),
    line: /^wrong +server +10\.0\.4\.2:80 answers this host, but not 10\.0\.3\.\d+, .*no route to 10\.0\.3\.0\/24 through this host; cure: on 10\.0\.4\.2: ip route add 10\.0\.3\.0\/24 via 10\.0\.4\.1/,
    heal: async () => void (await onZ('ip route replace default via 10.0.4.1')),
  },
]

describe('one setup after the other', () => {
  after(endServing)
  for (const setup of ['run', 'kept', 'rules', 'nothing'] as const) {
    if (setup === 'run' || setup === 'kept') testHealthy(setup)
    for (const fault of FAULTS.filter((each) => each.setup === setup)) testFault(fault)
    if (setup === 'rules') testForPeople(setup)
  }
})

function testFault({ name, setup, doctorFlags = [], wrapper = [], plant, line, cure, heal }: Fault): void {
  test(`names the fault and its cure: ${name}`, async () => {
    const doctor = (): Promise<DoctorRun> => doctorOn(lab.x, [...TPROXY, ...doctorFlags], wrapper)
    await provide(setup)
    let isWell = false
    try {
      await plant()
      const { lines, code } = await doctor()
      const found = lines.find((each) => line.test(each))
      assert.ok(found !== undefined, `no line ${line} in:\n${lines.join('\n')}`)
      const isWrong = wrongLines(lines).length > 0
      assert.equal(code, isWrong ? 3 : 0)
      assert.equal(isWrong, found.startsWith('wrong'), lines.join('\n'))
      if (process.env.SHOW === '1') process.stderr.write(`${name}\n  ${found}\n`)
      if (cure !== undefined) {
        await onX(cure === 'FOUND' ? found.slice(found.indexOf('cure: ') + 'cure: '.length) : cure)
        const cured = await doctor()
        assert.ok(!cured.lines.some((each) => line.test(each)), `still there:\n${cured.lines.join('\n')}`)
        const left = wrongLines(cured.lines).filter((each) => !each.includes('-6 '))
        assert.deepEqual(left, [])
      }
      isWell = true
    } finally {
      await heal?.()
      if (!isWell) await endServing()
    }
  })
}

function testForPeople(setup: Setup): void {
  test('what people read of a fault is what programs get, with the same exit code', async () => {
    await provide(setup)
    const found = await doctorOn(lab.x, TPROXY)
    assert.equal(found.code, 3)
    await assertSameForPeople(lab.x, TPROXY, found)
  })
}

test('names the fault and its cure: nofile 256', async () => {
  const running = await LimpidProcess.start(lab.x, ['run', ...TPROXY], { wrapper: ['prlimit', '--nofile=256'] })
  try {
    const { lines, code } = await doctorOn(lab.x, TPROXY)
    const [line, ...others] = wrongLines(lines)
    assert.match(
      line ?? '',
      /^wrong +descriptors +limpid \(pid \d+\) may hold 256 descriptors \(RLIMIT_NOFILE\): \d+ flows at once; cure: as root: prlimit --nofile=65536 limpid run --intercept tproxy --source client/,
    )
    assert.deepEqual(others, [])
    assert.equal(code, 3)
    if (process.env.SHOW === '1') process.stderr.write(`nofile 256\n  ${line}\n`)
  } finally {
    await running.stop()
  }
})

test('names the fault and its cure: forwarding off for DNAT', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'limpid-doctor-'))
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, 'forwards:\n  - name: web\n    ports: 8080\n    to: 10.0.4.2:80\n')
  lab.x.setSysctls({ 'net.ipv4.ip_forward': '0' })
  try {
    const { lines, code } = await doctorOn(lab.x, ['-c', file, '--no-packets'])
    const [line, ...others] = wrongLines(lines)
    assert.match(
      line ?? '',
      /^wrong +forwarding +net\.ipv4\.ip_forward is 0: IPv4 packets to another host \(forwards\) are dropped after DNAT; cure: sysctl -w net\.ipv4\.ip_forward=1$/,
    )
    assert.deepEqual(others, [])
    assert.equal(code, 3)
    if (process.env.SHOW === '1') process.stderr.write(`forwarding off for DNAT\n  ${line}\n`)
    await onX('sysctl -w net.ipv4.ip_forward=1')
    assert.deepEqual(wrongLines((await doctorOn(lab.x, ['-c', file, '--no-packets'])).lines), [])
  } finally {
    lab.x.setSysctls({ 'net.ipv4.ip_forward': '1' })
    rmSync(folder, { recursive: true })
  }
})

test('names the fault and its cure: forwarding off for what is bypassed', async () => {
  lab.x.setSysctls({ 'net.ipv4.ip_forward': '0' })
  const flags = [...TPROXY, '--bypass', '10.0.9.0/24', '--no-packets']
  try {
    const { lines } = await doctorOn(lab.x, flags)
    assert.ok(
      wrongLines(lines).some((line) =>
        /^wrong +forwarding +net\.ipv4\.ip_forward is 0: IPv4 packets to what is bypassed \(bypass\) are dropped; cure: sysctl -w net\.ipv4\.ip_forward=1$/.test(
          line,
        ),
      ),
      lines.join('\n'),
    )
  } finally {
    lab.x.setSysctls({ 'net.ipv4.ip_forward': '1' })
  }
  assert.ok(!wrongLines((await doctorOn(lab.x, flags)).lines).some((line) => / forwarding /.test(line)))
})

test('rp_filter=1 is wrong, not a note, where the way back to clients goes by another interface', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'limpid-doctor-'))
  const file = join(folder, 'limpid.yaml')
  const listener = ['intercept: tproxy', `interfaces: ${X_TO_Y}`, 'sources: 10.0.9.0/24', 'source: client']
  writeFileSync(file, `listeners:\n  - ${listener.join('\n    ')}\n`)
  await onX(`ip route add 10.0.9.0/24 dev ${X_TO_Z}`)
  lab.x.setSysctls({ [`net.ipv4.conf.${X_TO_Y}.rp_filter`]: '1' })
  const running = await LimpidProcess.start(lab.x, ['run', '-c', file])
  try {
    const { lines, code } = await doctorOn(lab.x, ['-c', file])
    assert.match(
      wrongLines(lines).join('\n'),
      /^wrong +rp-filter +rp_filter is 1 \(strict\) on x-y .*packets from 10\.0\.9\.0\/24 die there, since the route back to them goes by x-z.*; cure: sysctl -w net\.ipv4\.conf\.x-y\.rp_filter=2$/,
    )
    assert.equal(code, 3)
    await onX(`sysctl -w net.ipv4.conf.${X_TO_Y}.rp_filter=2`)
    assert.deepEqual(wrongLines((await doctorOn(lab.x, ['-c', file])).lines), [])
  } finally {
    await running.stop()
    lab.x.setSysctls({ [`net.ipv4.conf.${X_TO_Y}.rp_filter`]: '0' })
    await onX(`ip route del 10.0.9.0/24 dev ${X_TO_Z}`)
    rmSync(folder, { recursive: true })
  }
})

test('packets come in as if by the interface that a listener names', async () => {
  const flags = [...TPROXY, '--from', X_TO_Y]
  const running = await LimpidProcess.start(lab.x, ['run', ...flags])
  try {
    const { report, code } = await doctorOn(lab.x, flags)
    const through = report.packets.filter(
      ({ status, what }) => status === 'ok' && what.includes(`in by ${X_TO_Y}, was taken`),
    )
    assert.equal(through.length, 2, JSON.stringify(report.packets))
    assert.equal(code, 0)
  } finally {
    await running.stop()
  }
})

test('names the fault and its cure: bridge-nf-call-iptables=1', async () => {
  await onX(
    `ip link add br0 type bridge; ip link set br0 up; ip link set ${X_TO_Y} master br0; ip address flush dev ${X_TO_Y}; ip address add 10.0.3.101/24 dev br0; ip address add fd00:3::101/64 dev br0 nodad`,
  )
  const flags = [...TPROXY, '--from', 'br0']
  lab.x.setSysctls({ 'net.bridge.bridge-nf-call-iptables': '0', 'net.bridge.bridge-nf-call-ip6tables': '0' })
  const running = await LimpidProcess.start(lab.x, ['run', ...flags])
  const key = 'net.bridge.bridge-nf-call-iptables'
  try {
    assert.equal(await dialZ(), 'from Z')
    assert.deepEqual(wrongLines((await doctorOn(lab.x, flags)).lines), [])
    lab.x.setSysctls({ [key]: '1' })
    assert.notEqual(await dialZ(), 'from Z') // it does break flows
    const { lines, code } = await doctorOn(lab.x, flags)
    const line = wrongLines(lines).find((each) => each.includes('bridge-nf-call'))
    assert.match(
      line ?? lines.join('\n'),
      /^wrong +bridge-nf-call +net\.bridge\.bridge-nf-call-iptables is 1: .*br0.*; cure: sysctl -w net\.bridge\.bridge-nf-call-iptables=0$/,
    )
    assert.equal(code, 3)
    if (process.env.SHOW === '1') process.stderr.write(`bridge-nf-call-iptables=1\n  ${line}\n`)
    await onX(`sysctl -w ${key}=0`)
    assert.deepEqual(wrongLines((await doctorOn(lab.x, flags)).lines), [])
  } finally {
    await running.stop()
    await onX(
      `ip link del br0; ip address add 10.0.3.101/24 dev ${X_TO_Y}; ip address add fd00:3::101/64 dev ${X_TO_Y} nodad`,
    )
  }
})

/** What Y hears from Z: its greeting, or how the connection ended. */
async function dialZ(): Promise<string> {
  const socket = lab.y.connect(SERVER)
  let said: string | undefined
  socket.on('data', (bytes) => {
    said = (said ?? '') + bytes.toString()
  })
  let ended = false
  socket.on('error', (error) => {
    said = error.message
    ended = true
  })
  socket.on('end', () => {
    ended = true
  })
  await until(() => ended, 'end', SILENT_MS).catch(() => {})
  socket.destroy()
  return said ?? 'silence'
}

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../config/parse.ts'
import type { Protocol } from '../config/types.ts'
import type { Asked } from '../doctor/ways.ts'
import { type Endpoint, parseAddress, parseEndpoint } from '../net/address.ts'
import { type BackendName, planRuleset } from '../ruleset/plan.ts'
import type { HostFacts } from '../sys/host.ts'
import { readAnswers } from './answers.ts'
import { decide } from './decide.ts'
import { resolveFlow } from './flow.ts'
import { predict } from './predict.ts'
import type { Route } from './routes.ts'

const FACTS: HostFacts = {
  interfaces: [
    { name: 'lo', addresses: ['127.0.0.1', '::1'], up: true },
    { name: 'lan0', addresses: ['10.0.3.101', 'fd00:3::101'], up: true },
    { name: 'wan0', addresses: ['10.0.4.1', 'fd00:4::1'], up: true },
    { name: 'br9', addresses: [], up: true },
    { name: 'b-y', addresses: [], up: true },
    { name: 'b-z', addresses: [], up: true },
    { name: 'b-w', addresses: [], up: true },
  ],
  bridges: [{ name: 'br9', mac: '02:00:00:00:00:09', ports: ['b-y', 'b-z', 'b-w'] }],
  ipv6: true,
  sysctls: new Map([['net.ipv4.ip_forward', '1']]),
  namespace: 1,
}

const LISTENERS = `
listeners:
  - name: web
    interfaces: [lan0]
    sources: [10.0.3.0/24, "fd00:3::/64"]
    ports: [80, 443]
    exclude:
      destinations: [10.0.4.99]
      ports: [8080]
    source: client
  - name: mail
    intercept: redirect
    ports: [25, 80]
    onDown: closed
  - name: here
    ports: [2000-2099]
    addressedHere: true
    to: 10.0.4.7
  - name: own
    intercept: tproxy
    paths: [local]
    ports: [80]
    uids: [1000-1999]
  - name: bridge
    paths: [bridged]
    interfaces: [b-y, b-w]
    ports: [80]
    family: 4
forwards:
  - name: dns
    protocols: [tcp, udp]
    ports: [53]
    to: 10.0.4.2:5353
    source: proxy
`

/** The kernel's answers: 10.0.3.0/24 by lan0, 10.0.4.0/24 by wan0, 10.0.9.0/24 by br9, our own local; nothing else. */
async function ask({ to, mark, iif }: Asked): Promise<Route> {
  const own = FACTS.interfaces.some(({ addresses }) => addresses.includes(to))
  const rest = { source: undefined, type: 'unicast' }
  if (own || (mark === 0x1000_0000 && iif !== undefined) || mark === 0x3000_0000)
    return { ...rest, kind: 'local', type: 'local' }
  if (to === '10.0.3.255') return { ...rest, kind: 'by', dev: 'lan0', via: undefined, type: 'broadcast' }
  const [, net] = /^(?:10\.0\.|fd00:)(\d)[.:]/.exec(to) ?? []
  if (net === '3') return { ...rest, kind: 'by', dev: 'lan0', via: undefined, source: '10.0.3.101' }
  if (net === '4') return { ...rest, kind: 'by', dev: 'wan0', via: '10.0.4.254', source: '10.0.4.1' }
  if (net === '9') return { ...rest, kind: 'by', dev: 'br9', via: undefined }
  return { ...rest, kind: 'none', why: 'Network is unreachable' }
}

interface More {
  protocol?: Protocol
  interface?: string
  uid?: number
  fwmark?: number
  backend?: BackendName
  text?: string
  forwards?: boolean
  /** What stands in the config as well. */
  yaml?: string
}

async function predicted(client: string, to: string, more: More = {}) {
  const config = parseConfig(`${more.text ?? LISTENERS}${more.yaml ?? ''}`, 'f', { hostFamilies: [4, 6] })
  const plan = planRuleset(config, FACTS, { backend: more.backend ?? 'nft' })
  const address = parseAddress(to)
  const destination: Endpoint = address === undefined ? parseEndpoint(to)! : { address, port: 0 }
  const { protocol = 'tcp', uid, fwmark = 0 } = more
  const flow = await resolveFlow({ client, destination, protocol, interface: more.interface, uid, fwmark }, FACTS, ask)
  const decision = decide({ ...config, ...plan, ...plan.rules }, flow)
  const answers = await readAnswers(plan, flow, decision, {
    ask,
    isListening: () => true,
    forwards: more.forwards ?? true,
  })
  const prediction = predict(plan, flow, decision, answers)
  const lines = prediction.hops.map(({ word, what }) => `${word}: ${what}`)
  return { ...prediction, lines, missed: decision.kind === 'untaken' ? decision.nearest : [] }
}

test('a flow is told hop by hop, from the client to the server and back', async () => {
  const { lines, served, mark, rules, takenBy } = await predicted('10.0.3.1', '10.0.4.2:80')
  assert.deepEqual(lines, [
    'client: 10.0.3.1 comes in on lan0 (forwarded)',
    'rule: nft inet limpid prerouting: listener web (tproxy to 127.0.0.1:50080)',
    'mark: 0x10000000/0x30000000',
    'route: ip rule 195 → route table 19536 → lo',
    'listener: 127.0.0.1:50080 (web), original destination 10.0.4.2:80',
    'dial: 10.0.4.2:80 from 10.0.3.1 (client), out wan0 via 10.0.4.254',
    'answer: what Z sends to 10.0.3.1 finds the transparent socket: mark 0x10000000/0x30000000, route table 19536 → lo',
    'return: answers to 10.0.3.1 go out lan0',
    'knows: Y and Z know each other, not X',
    'onDown: open: while Limpid is down it is forwarded by the kernel, out wan0 via 10.0.4.254',
  ])
  assert.deepEqual([served, mark, takenBy], [true, 0x1000_0000, 'listener web'])
  assert.equal(rules.length, 1)
  assert.match(
    rules[0]!,
    /^iifname "lan0" ip saddr 10\.0\.3\.0\/24 .* tproxy ip to 127\.0\.0\.1:50080 .*"listener web"$/,
  )
})

test('IPv6 flows take the same way', async () => {
  const { lines, rules } = await predicted('fd00:3::1', '[fd00:4::2]:443')
  assert.ok(lines.includes('rule: nft inet limpid prerouting: listener web (tproxy to [::1]:50080)'))
  assert.ok(lines.some((line) => line.startsWith('dial: [fd00:4::2]:443 from fd00:3::1 (client), out wan0')))
  assert.match(rules.join('\n'), /^iifname "lan0" ip6 saddr fd00:3::\/64 /)
})

test('what leaves packets as they are comes before what rewrites them, whatever the order of the config', async () => {
  assert.equal((await predicted('10.0.3.1', '10.0.4.2:80')).takenBy, 'listener web')
  assert.equal((await predicted('10.0.3.1', '10.0.4.99:80')).takenBy, 'listener mail')
  const { lines, mark } = await predicted('10.0.3.1', '10.0.4.2:25')
  assert.equal(mark, 0)
  assert.ok(lines.includes('rule: nft inet limpid nat-prerouting: listener mail (redirect to :50081)'))
  assert.ok(lines.includes('dial: 10.0.4.2:25 from 10.0.4.1 (proxy), out wan0 via 10.0.4.254'))
  assert.ok(lines.includes('onDown: closed: nft inet limpid-guard prerouting drops it while Limpid is down'))
})

const MISSES: [string, string, More, string][] = [
  ['10.0.3.1', '10.0.4.2:81', {}, 'web: port 81 is not in 80,443'],
  ['10.0.3.1', '10.0.4.2:443', { interface: 'wan0' }, 'web: it comes in on wan0, not lan0'],
  ['10.0.9.1', '10.0.4.2:443', { interface: 'lan0' }, 'web: source 10.0.9.1 is not in 10.0.3.0/24,fd00:3::/64'],
  ['10.0.3.1', '10.0.4.99:443', {}, 'web: destination 10.0.4.99 is excluded (10.0.4.99/32)'],
  ['10.0.3.1', '10.0.4.2:443', { protocol: 'udp' }, 'web: udp is not tcp'],
  ['10.0.3.1', '10.0.3.101:443', {}, 'web: the destination is this host itself (addressedHere is off)'],
  ['10.0.4.1', '10.0.4.2:80', { uid: 0 }, 'own: uid 0 is not in 1000-1999'],
]

for (const [client, to, more, expected] of MISSES) {
  test(`${client} to ${to} (${JSON.stringify(more)}) is not taken: ${expected}`, async () => {
    const { missed, served, lines, takenBy } = await predicted(client, to, more)
    const [name, condition] = expected.split(/: (.*)/)
    assert.deepEqual(missed.find((miss) => miss.name === `listener ${name}`)?.failed, [condition])
    assert.equal(missed[0]?.failed.length, 1)
    assert.deepEqual([served, takenBy], [false, null])
    assert.ok(lines.some((line) => line.startsWith('route: ')))
  })
}

test('addresses that stand for no single other host are never intercepted', async () => {
  for (const to of ['127.0.0.5:80', '169.254.1.1:80', '224.0.0.1:80', '[fe80::1]:80', '10.0.3.255:80']) {
    const client = to.startsWith('[') ? 'fd00:3::1' : '10.0.3.1'
    const { lines, served, missed } = await predicted(client, to)
    assert.match(lines[1]!, /^rule: .*never intercepted$/)
    assert.deepEqual([served, missed], [false, []])
  }
})

test('what is addressed to this host is taken by those who ask for it, passed on, refused at a listener, or delivered', async () => {
  const here = await predicted('10.0.3.1', '10.0.3.101:2001')
  assert.equal(here.takenBy, 'listener here')
  assert.ok(here.lines.some((line) => line.startsWith('dial: 10.0.4.7:2001 from 10.0.4.1 (proxy)')))
  assert.ok(here.lines.includes('knows: Y and Z know X, not each other'))
  const dns = await predicted('10.0.3.1', '10.0.3.101:53', { protocol: 'udp' })
  assert.deepEqual([dns.takenBy, dns.fate, dns.served], ['forward dns', 'forwarded', true])
  assert.match(dns.lines.join('\n'), /the kernel passes it on to 10\.0\.4\.2:5353 from 10\.0\.4\.1 \(masquerade\)/)
  assert.equal((await predicted('10.0.3.1', '10.0.3.101:50081')).outcome, 'refused')
  const other = await predicted('10.0.3.1', '10.0.3.101:22')
  assert.deepEqual([other.outcome, other.fate], ['untaken', 'delivered'])
})

test('what this host’s own processes send is routed to lo and comes in again', async () => {
  const { lines, mark, takenBy } = await predicted('10.0.4.1', '10.0.4.2:80', { uid: 1000 })
  assert.deepEqual([takenBy, mark], ['listener own', 0x3000_0000])
  assert.equal(lines[0], 'client: 10.0.4.1 is this host itself, and would leave by wan0 (local)')
  assert.ok(lines.includes('rule: nft inet limpid output: listener own (marked, then tproxy to 127.0.0.1:50083)'))
  assert.ok(lines.includes('route: ip rule 193 → route table 19536 → lo, and in again there'))
  const open = await predicted('10.0.4.1', '10.0.4.2:80')
  assert.ok(open.lines.includes('provided: its process runs as uid 1000-1999'))
})

test('frames that cross a bridge are brought up from the ports of a listener', async () => {
  const { lines, takenBy } = await predicted('10.0.9.1', '10.0.9.2:80', { interface: 'b-y' })
  assert.equal(takenBy, 'listener bridge')
  assert.equal(lines[0], 'client: 10.0.9.1 comes in on br9, port b-y (bridged)')
  assert.ok(lines.includes('bridge: nft bridge limpid prerouting: brought up to br9'))
  const other = await predicted('10.0.9.1', '10.0.9.2:80', { interface: 'b-z' })
  assert.deepEqual([other.takenBy, other.fate], [null, 'bridged'])
  assert.deepEqual(other.missed[0], { name: 'listener bridge', failed: ['it comes in on b-z, not b-y,b-w'] })
  const open = await predicted('10.0.9.1', '10.0.9.2:80')
  assert.ok(open.lines.includes('provided: it comes in on b-y,b-w'))
})

test('a question without a port says on which ports the answer depends, and who else may take it', async () => {
  const { lines, takenBy } = await predicted('10.0.3.1', '10.0.4.2')
  assert.equal(takenBy, 'listener here')
  assert.deepEqual(
    lines.filter((line) => line.startsWith('provided: ')),
    [
      'provided: its port is one of 2000-2099',
      'provided: else listener web, where its port is one of 80,443 and its port is none of 8080',
      'provided: else listener mail, where its port is one of 25,80',
    ],
  )
  const certain = await predicted('10.0.3.1', '10.0.4.2', {
    text: 'listeners: [{ name: a, ports: [80] }, { name: b }, { name: c }]',
  })
  assert.deepEqual(certain.lines.slice(1, 3), ['provided: its port is one of 80', 'provided: else listener b'])
})

test('a mark of ours on the packet lets it by', async () => {
  const bypass = await predicted('10.0.3.1', '10.0.4.2:80', { fwmark: 0x2000_0000 })
  assert.deepEqual([bypass.takenBy, bypass.fate], [null, 'forwarded'])
  assert.match(bypass.lines[1]!, /its fwmark has bits of ours/)
})

test('with iptables the same flows are taken, in its own chains', async () => {
  const { lines, rules } = await predicted('10.0.3.1', '10.0.4.2:25', { backend: 'iptables' })
  assert.ok(lines.includes('rule: iptables nat limpid-prerouting: listener mail (redirect to :50081)'))
  assert.match(rules[0]!, /^-A limpid-prerouting .*listener mail/)
  const six = await predicted('fd00:3::1', '[fd00:4::2]:80', { backend: 'iptables' })
  assert.ok(six.lines.includes('rule: ip6tables mangle limpid-prerouting: listener web (tproxy to [::1]:50080)'))
})

test('where nothing is forwarded, that is the reason, and not a route', async () => {
  for (const to of ['10.0.4.2:81', '192.0.2.1:81']) {
    const { lines, fate } = await predicted('10.0.3.1', to, { forwards: false })
    assert.ok(lines.includes('route: dropped: net.ipv4.ip_forward is 0'), lines.join('\n'))
    assert.equal(fate, 'dropped')
  }
  const six = await predicted('fd00:3::1', '[fd00:4::2]:81', { forwards: false })
  assert.ok(six.lines.includes('route: dropped: net.ipv6.conf.all.forwarding is 0'))
})

test('of a client without a route the interface is asked for, and nothing is said about what the kernel has', async () => {
  const text = 'listeners: [{ name: all, source: client }]'
  const { lines } = await predicted('192.0.2.1', '10.0.4.2:80', { text })
  assert.equal(lines[0], 'client: 192.0.2.1: no route tells where it comes in, name it with --interface (forwarded)')
  assert.ok(lines.includes('route: ip rule 195 → route table 19536 → lo'))
})

test('a server or a client that no route leads to is not served', async () => {
  const text = 'listeners: [{ name: all, source: client }]'
  assert.equal((await predicted('10.0.3.1', '10.0.4.2:80', { text })).served, true)
  assert.equal((await predicted('10.0.3.1', '192.0.2.1:80', { text })).served, false)
  assert.equal((await predicted('192.0.2.1', '10.0.4.2:80', { text, interface: 'lan0' })).served, false)
})

const OF_DATAGRAMS = `
listeners:
  - { name: both, protocols: [tcp, udp], ports: [53], source: client, onDown: closed }
  - { name: wide, intercept: redirect, protocols: udp, listen: 50099, onDown: closed, family: 4 }
  - { name: own, protocols: udp, paths: local, ports: [443], onDown: closed }
  - { name: bridge, protocols: udp, paths: bridged, interfaces: b-y, ports: [54], family: 4, onDown: closed }
`

test('datagrams are taken in chains of their own, and dropped in such while Limpid is down', async () => {
  const udp = { protocol: 'udp', text: OF_DATAGRAMS } as const
  const cases: [client: string, to: string, more: More, rule: string, guard: string][] = [
    ['10.0.3.1', '10.0.4.2:53', {}, 'nft inet limpid datagrams: listener both', 'nft inet limpid-guard datagrams'],
    ['10.0.3.1', '10.0.4.2:7', {}, 'nft inet limpid nat-prerouting: listener wide', 'nft inet limpid-guard datagrams'],
    [
      '10.0.4.1',
      '10.0.4.2:443',
      {},
      'nft inet limpid sent-datagrams: listener own',
      'nft inet limpid-guard sent-datagrams',
    ],
    [
      '10.0.9.1',
      '10.0.9.2:54',
      { interface: 'b-y' },
      'nft inet limpid datagrams: listener bridge',
      'nft bridge limpid-guard datagrams',
    ],
    [
      '10.0.3.1',
      '10.0.4.2:53',
      { backend: 'iptables' },
      'iptables mangle limpid-udp: listener both',
      'iptables mangle limpid-guard-udpforward',
    ],
    [
      '10.0.4.1',
      '10.0.4.2:443',
      { backend: 'iptables' },
      'iptables mangle limpid-udpoutput: listener own',
      'iptables filter limpid-guard-udpoutput',
    ],
  ]
  for (const [client, to, more, rule, guard] of cases) {
    const { lines, rules, served } = await predicted(client, to, { ...udp, ...more })
    assert.ok(served)
    assert.ok(
      lines.some((line) => line.startsWith(`rule: ${rule} (`)),
      lines.join('\n'),
    )
    assert.ok(lines.includes(`onDown: closed: ${guard} drops it while Limpid is down`), lines.join('\n'))
    assert.match(rules.join('\n'), /udp /)
    assert.doesNotMatch(rules.join('\n'), /tcp /)
  }
  const tcp = await predicted('10.0.3.1', '10.0.4.2:53', { text: OF_DATAGRAMS })
  assert.ok(tcp.lines.some((line) => line.startsWith('rule: nft inet limpid prerouting: listener both (')))
  const refused = await predicted('10.0.3.1', '10.0.3.101:50099', udp)
  assert.match(
    refused.lines.join('\n'),
    /limpid input: listener wide itself is dialled, not intercepted: port unreachable/,
  )
  const connection = await predicted('10.0.3.1', '10.0.3.101:50099', { text: OF_DATAGRAMS })
  assert.equal(connection.outcome, 'untaken', 'nothing listens there for connections')
})

test('what is bypassed is forwarded, whatever listener would take it, and what is passed on is passed on all the same', async () => {
  const bypass = '\nbypass: [10.0.4.0/24, 10.0.3.101, "fd00:4::/64"]'
  const { outcome, lines, served, takenBy, fate, mark } = await predicted('10.0.3.1', '10.0.4.2:80', { yaml: bypass })
  assert.deepEqual(lines, [
    'client: 10.0.3.1 comes in on lan0 (forwarded)',
    'rule: bypass 10.0.4.0/24: no listener is asked',
    'route: forwarded by the kernel, out wan0 via 10.0.4.254',
  ])
  assert.deepEqual([outcome, served, takenBy, fate, mark], ['bypassed', true, null, 'forwarded', 0])
  assert.equal((await predicted('fd00:3::1', '[fd00:4::2]:443', { yaml: bypass })).outcome, 'bypassed')
  const off = await predicted('10.0.3.1', '10.0.4.2:80', { yaml: bypass, forwards: false })
  assert.deepEqual([off.served, off.fate], [false, 'dropped'])
  assert.equal(off.lines.at(-1), 'route: dropped: net.ipv4.ip_forward is 0')
  // what is addressed to this host is no way to another
  assert.equal((await predicted('10.0.3.1', '10.0.3.101:2001', { yaml: bypass })).takenBy, 'listener here')
  const dns = await predicted('10.0.3.1', '10.0.3.101:53', { protocol: 'udp', yaml: bypass })
  assert.equal(dns.takenBy, 'forward dns')
})

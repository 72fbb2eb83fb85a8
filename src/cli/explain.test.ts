import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const LIMPID = fileURLToPath(new URL('../../bin/limpid', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'limpid-explain-'))
after(() => rmSync(folder, { recursive: true }))

const config = join(folder, 'limpid.yaml')
const list = join(folder, 'blocked.txt')
const table = join(folder, 'flows.yaml')
writeFileSync(list, 'blocked.example\n*.ads.example\n10.0.9.0/24\n')
chmodSync(list, 0o644)
writeFileSync(
  config,
  `listeners:
  - { name: all, protocols: [tcp, udp] }
policy:
  lists: { blocked: ${list} }
  rules:
    - { name: no-telnet, ports: 23, then: reject }
    - { name: night, times: "22:00-06:00", then: reject, by: drop }
    - { name: blocked, lists: [blocked], then: reject, by: forbidden }
    - { name: moved, hosts: [.moved.example], then: forward, to: "10.0.4.9:8080" }
    - { name: tls-alone, ports: 443, detected: [http1, ssh, unknown], then: reject }
`,
)

function limpid(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [LIMPID, ...args], {
    encoding: 'utf8',
    timeout: 30_000,
  })
  return { status, stdout, stderr }
}

function explain(...args: string[]) {
  return limpid('explain', '10.0.3.1', ...args, '-c', config)
}

test('explain names the rule that decides, and why each one before it does not', () => {
  assert.deepEqual(explain('10.0.4.2:80', '--host', 'Blocked.Example.', '--at', 'mon 10:30'), {
    status: 0,
    stderr: '',
    stdout: `flow       tcp 10.0.3.1 → 10.0.4.2:80, listener all, tls for blocked.example, mon 10:30
no-telnet  no       ports 23: found 80
night      no       times 22:00-06:00: found mon 10:30
blocked    yes
decided    reject by forbidden, by blocked
`,
  })
})

test('explain says what is compared when the flow comes, and does not ask a name server', () => {
  const file = join(folder, 'host-check.yaml')
  writeFileSync(
    file,
    'policy: { hostCheck: enforce, rules: [{ name: sent, hosts: sent.example, then: forward, to: 10.0.4.9 }] }\n',
  )
  const notes = (host: string) =>
    limpid('explain', '10.0.3.1', '10.0.4.2:443', '--host', host, '-c', file).stdout.match(/^note .*$/gm)
  assert.deepEqual(notes('ok.example'), [
    'note       hostCheck enforce: ok.example must have the address 10.0.4.2, else it ends as host-mismatch',
  ])
  assert.equal(notes('sent.example'), null)
})

test('where rules ask about first bytes that are not given, explain tells all that may decide', () => {
  const { status, stdout } = explain('10.0.4.2:443', '--at', '10:30')
  assert.equal(status, 0)
  assert.match(stdout, /^flow .*first bytes not known/)
  assert.match(stdout, /^blocked {4}perhaps {2}lists blocked: found 10\.0\.4\.2, not looked at yet$/m)
  assert.match(stdout, /^tls-alone {2}perhaps {2}detected http1,ssh,unknown: found not looked at yet$/m)
  assert.match(
    stdout,
    /^decided {4}reject by forbidden, by blocked; or forward to 10\.0\.4\.9:8080, by moved; or reject by reset, by tls-alone; or forward, as no rule matches$/m,
  )
  assert.match(stdout, /say --host NAME or --detected PROTOCOL/)
})

test('explain takes a host of UDP for that of QUIC, and knows where the server speaks first', () => {
  const udp = (...args: string[]) => explain('10.0.4.2:443', '--protocol', 'udp', '--at', '10:30', ...args).stdout
  assert.match(
    udp('--host', 'blocked.example'),
    /quic for blocked\.example.*decided {4}reject by forbidden, by blocked/s,
  )
  assert.match(udp('--detected', 'quic'), /decided {4}forward, as no rule matches/)
  const mail = (...args: string[]) => explain('10.0.4.2:25', '--at', '10:30', ...args).stdout
  assert.match(mail('--host', 'blocked.example'), /note {7}to port 25 the server speaks first: it is dialled before/)
  assert.match(mail('--host', 'blocked.example'), /decided {4}reject by forbidden, by blocked/)
  assert.match(
    mail('--learnt', 'blocked.example', '--detected', 'unknown'),
    /decided {4}reject by forbidden, by blocked/,
  )
})

test('explain --json has the rules, the outcomes and the flow', () => {
  const told = JSON.parse(explain('10.0.4.2:23', '--json').stdout) as Record<string, unknown>
  assert.deepEqual(told.rules, [
    { rule: 'no-telnet', answer: 'yes', decision: { kind: 'reject', rejection: 'reset' }, because: null },
  ])
  assert.deepEqual(told.outcomes, [{ rule: 'no-telnet', decision: { kind: 'reject', rejection: 'reset' } }])
})

test('what a rule asks about and nobody says is asked for, with exit code 2', () => {
  const { status, stderr } = explain('10.0.4.2')
  assert.match(stderr, /^LIMPID_USAGE: explain: expected a port with the destination: rule no-telnet asks about it\n$/)
  assert.equal(status, 2)
  assert.match(explain('10.0.4.2:80', '--at', 'noon').stderr, /--at: expected a moment such as 10:30/)
  assert.match(explain('10.0.4.2:80', '--listener', 'web').stderr, /expected a listener for tcp: all, found "web"/)
})

test('explain is told the interface and the MAC; an interface must be said where a rule asks, a MAC may be unknown', () => {
  const file = join(folder, 'links.yaml')
  writeFileSync(
    file,
    `policy:
  rules:
    - { name: guests, interfaces: [eth1, br*], then: reject }
    - { name: printer, macs: 02-00-00-00-00-AB, then: reject, by: drop }
`,
  )
  const asked = (...args: string[]) => limpid('explain', '10.0.3.1', '10.0.4.2:80', '-c', file, ...args)
  assert.match(asked().stderr, /expected an interface \(--interface NAME\): rule guests asks about it/)
  assert.match(asked('--interface', 'br0').stdout, /tcp 10\.0\.3\.1 by br0 →.*decided {2}reject by reset, by guests/s)
  const eth0 = asked('--interface', 'eth0').stdout
  assert.match(eth0, /guests {5}no {7}interfaces eth1,br\*: found eth0$/m)
  assert.match(eth0, /printer {4}no {7}macs 02:00:00:00:00:ab: found no MAC known$/m)
  assert.match(asked('--interface', 'eth0', '--mac', '02:00:00:00:00:ab').stdout, /reject by drop, by printer/)
  assert.match(asked('--mac', 'ab').stderr, /--mac: expected a MAC address such as 02:00:00:00:00:01/)
  writeFileSync(
    table,
    '- { client: 10.0.3.1, dst: 10.0.4.2:80, interface: eth0, mac: 02:00:00:00:00:ab, expect: reject by drop }',
  )
  assert.equal(limpid('policy', 'test', table, '-c', file).stdout, '1 of 1 flows are decided as expected\n')
})

test('policy test is silent about flows that are decided as expected', () => {
  writeFileSync(
    table,
    `- { client: 10.0.3.1, dst: 10.0.4.2:23, expect: reject, rule: no-telnet }
- { client: 10.0.3.1, dst: 10.0.4.2:443, host: www.example.org, at: 12:00, expect: forward, rule: otherwise }
- { client: 10.0.3.1, dst: 10.0.4.2:443, host: x.ads.example, at: 12:00, expect: reject by forbidden }
- { client: 10.0.3.1, dst: 10.0.4.2:123, protocol: udp, at: 23:00, expect: reject by drop }
`,
  )
  assert.deepEqual(limpid('policy', 'test', table, '-c', config), {
    status: 0,
    stderr: '',
    stdout: '4 of 4 flows are decided as expected\n',
  })
})

test('policy test takes every word of a rule, and more of the decision', () => {
  const file = join(folder, 'words.yaml')
  writeFileSync(
    file,
    `policy:
  rules:
    - { ports: 80, then: handle, app: http }
    - { ports: 81, then: via, via: { connect: 10.0.4.9:3128 } }
    - { ports: 82, then: forward, to: 10.0.4.9:8080 }
    - { ports: 83, then: reject, by: drop }
    - { destinations: 10.0.5.0/24, then: bypass }
`,
  )
  const flow = (dst: string, expect: string) => `- { client: 10.0.3.1, dst: "${dst}", expect: "${expect}" }\n`
  const flows = [
    ['10.0.4.2:80', 'handle', 'handle by http'],
    ['10.0.4.2:81', 'via', 'via connect 10.0.4.9:3128'],
    ['10.0.4.2:82', 'forward', 'forward to 10.0.4.9:8080'],
    ['10.0.4.2:83', 'reject', 'reject by drop'],
    ['10.0.5.1:84', 'bypass', 'bypass for 1h'],
  ] as const
  writeFileSync(table, flows.map(([dst, kind, whole]) => flow(dst, kind) + flow(dst, whole)).join(''))
  const { stdout, stderr } = limpid('policy', 'test', table, '-c', file)
  assert.deepEqual([stdout, stderr], ['10 of 10 flows are decided as expected\n', ''])
})

test('policy test tells each flow that is decided otherwise, with its line and why, and ends with exit code 3', () => {
  writeFileSync(
    table,
    `- { client: 10.0.3.1, dst: 10.0.4.2:23, expect: reject }
- client: 10.0.3.1
  dst: 10.0.9.7:443
  at: 12:00
  expect: forward
- { client: 10.0.3.1, dst: 10.0.4.2:443, at: 12:00, expect: forward }
- { client: 10.0.3.1, dst: 10.0.4.2, expect: forward }
- { client: 10.0.3.1, dst: 10.0.4.2:80, host: a.ads.example, at: 12:00, expect: reject, rule: moved }
`,
  )
  const { status, stdout } = limpid('policy', 'test', table, '-c', config)
  assert.equal(status, 3)
  const told = stdout.split('\n').filter((line) => line.startsWith(table))
  assert.deepEqual(
    told.map((line) => line.slice(table.length)),
    [
      ':2:3: expected forward, found reject by forbidden, by blocked',
      ':6:3: expected forward, found reject by forbidden, by blocked; or forward to 10.0.4.9:8080, by moved; or reject by reset, by tls-alone; or forward, as no rule matches',
      ':7:3: expected a port with the destination: rule no-telnet asks about it',
      ':8:3: expected reject by moved, found reject by forbidden, by blocked',
    ],
  )
  assert.match(stdout, /^ {2}no-telnet {2}no {7}ports 23: found 443$/m)
  assert.match(stdout, /\n1 of 5 flows are decided as expected\n$/)
})

test('a table that is none is refused as a configuration is, with every place', () => {
  writeFileSync(table, '- { client: 10.0.3, dst: 10.0.4.2:80, expect: allow, hsot: x }\n')
  const { status, stderr } = limpid('policy', 'test', table, '-c', config)
  assert.equal(status, 78)
  assert.deepEqual(
    stderr.split('\n').map((line) => line.replace(table, 'TABLE')),
    [
      'LIMPID_CONFIG: TABLE:1:13: expected an IPv4 or IPv6 address, found "10.0.3"',
      'LIMPID_CONFIG: TABLE:1:47: expected forward, via, handle, reject or bypass, or more of it, such as reject by forbidden, found "allow"; did you mean "forward"?',
      'LIMPID_CONFIG: TABLE:1:54: expected a known key, found "hsot"; did you mean "host"?',
      '',
    ],
  )
})

test('a file with a policy alone is enough for explain and policy test, not for run', () => {
  const alone = join(folder, 'policy.yaml')
  writeFileSync(alone, 'policy: { rules: [{ name: x, listeners: [any], ports: 1, then: reject }] }\n')
  const { stdout } = limpid('explain', '10.0.3.1', '10.0.4.2:1', '--listener', 'any', '-c', alone)
  assert.match(stdout, /decided {2}reject by reset, by x/)
  assert.match(limpid('run', '-c', alone).stderr, /a configuration needs listeners, or forwards/)
})

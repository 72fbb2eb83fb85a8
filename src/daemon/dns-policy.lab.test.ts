import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { dig, WITHOUT_DIG } from '../apps/dns/dig.fixture.ts'
import { DnsServer, zoneOf } from '../apps/dns/server.fixture.ts'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { until } from '../lab/traffic.fixture.ts'
import { askControl } from './ask-control.ts'

await enterNamespaces()

const options = { skip: WITHOUT_DIG }
const { z } = ADDRESSES[4]
const OTHER = '10.0.4.20'
const PROTOCOLS = ['+notcp', '+tcp'] as const
const folder = mkdtempSync(join(tmpdir(), 'limpid-dns-policy-'))
const list = join(folder, 'blocked.txt')
let lab: Topology
let limpid: LimpidProcess
let server: DnsServer
let other: DnsServer

const POLICY = `
listeners:
  - { name: dns, protocols: [udp, tcp], ports: 53, source: client, dns: { rules: [{ names: own.example, then: answer, answers: { a: 10.1.2.3 } }] } }
  - { name: web, ports: 80, source: client }
policy:
  lists: { blocked: ${list} }
  rules:
    - { name: list, lists: [blocked], detected: dns, then: reject, by: nxdomain }
    - { name: refused, hosts: .refused.example, then: reject, by: refused }
    - { name: reset, hosts: .reset.example, then: reject }
    - { name: dropped, hosts: .dropped.example, then: reject, by: drop }
    - { name: via, hosts: .via.example, then: via, via: { proxyProtocol: v2 } }
    - { name: moved, hosts: .moved.example, then: forward, to: ${OTHER} }
    - { name: few, hosts: few.example, then: forward, limit: { newFlows: 1/h, burst: 2 } }
    - { name: strangers, sources: 192.0.2.0/24, then: reject }
`

before(async () => {
  if (WITHOUT_DIG) return
  lab = await raiseTopology()
  await lab.z.run('ip', ['address', 'add', `${OTHER}/24`, 'dev', 'z-x'])
  server = await DnsServer.open(lab.z, z, zoneOf('192.0.2.1', '2001:db8::1'))
  other = await DnsServer.open(lab.z, OTHER, zoneOf('192.0.2.2', '2001:db8::2'))
  const names = Array.from({ length: 100_000 }, (_, i) => `ad${i}.ads.example`)
  writeFileSync(list, `${names.join('\n')}\n*.tracker.example\nxn--bcher-kva.example\n`)
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, POLICY)
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  if (WITHOUT_DIG) return
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await server[Symbol.asyncDispose]()
  await other[Symbol.asyncDispose]()
  assert.equal((await lab.x.run('ss', ['-Htuan'])).replaceAll(/^.*TIME-WAIT.*\n/gm, ''), '', 'no socket is left')
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** `NXDOMAIN`, or the data of the answers; `nothing` where none came. */
async function ask(name: string, protocol: string, ...args: string[]): Promise<string> {
  const { status, data } = await dig(lab.y, `@${z}`, name, protocol, ...args)
  return status === 'NOERROR' ? data.join() : (status ?? 'nothing')
}

for (const protocol of PROTOCOLS) {
  test(
    `${protocol}: a question is answered as the rule for its name says, and its server hears nothing`,
    options,
    async () => {
      server.take()
      const asked: readonly (readonly [name: string, answer: string])[] = [
        ['ad99999.ads.example', 'NXDOMAIN'],
        ['AD99999.ads.EXAMPLE', 'NXDOMAIN'],
        ['x.tracker.example', 'NXDOMAIN'],
        ['xn--bcher-kva.example', 'NXDOMAIN'],
        ['refused.example', 'REFUSED'],
        ['www.refused.example', 'REFUSED'],
        ['reset.example', 'REFUSED'],
        ['via.example', 'REFUSED'],
        ['own.example', '10.1.2.3'],
      ]
      for (const [name, answer] of asked) assert.equal(await ask(name, protocol), answer, name)
      assert.deepEqual(server.take(), [])
      assert.equal(await ask('tracker.example', protocol), '192.0.2.1', 'the name itself is not below it')
      const { status, flags, udpBytes } = await dig(lab.y, `@${z}`, 'refused.example', protocol, '+bufsize=4096')
      assert.deepEqual([status, flags, udpBytes], ['REFUSED', 'qr rd ra', 1232])
    },
  )

  test(`${protocol}: a question that is dropped hears nothing`, options, async () => {
    assert.equal(await ask('dropped.example', protocol, '+time=1', '+tries=1'), 'nothing')
  })

  test(`${protocol}: to another server, whose answers are kept apart`, options, async () => {
    const name = `${protocol.slice(1)}.moved.example`
    other.take()
    for (const _ of [1, 2]) assert.equal(await ask(name, protocol), '192.0.2.2')
    assert.deepEqual(
      other.take().map((heard) => heard.name),
      [name],
      'the second answer is from the cache',
    )
  })
}

test('questions beyond a limit are refused', options, async () => {
  const answers = []
  for (const protocol of [...PROTOCOLS, ...PROTOCOLS]) answers.push(await ask('few.example', protocol))
  assert.deepEqual(answers, ['192.0.2.1', '192.0.2.1', 'REFUSED', 'REFUSED'])
})

test('an answer from the cache goes away with a rule', options, async () => {
  const cached = 'cached.example'
  assert.equal(await ask(cached, '+notcp'), '192.0.2.1')
  writeFileSync(join(folder, 'limpid.yaml'), POLICY.replace('hosts: .reset.example', `hosts: ${cached}`))
  await lab.x.inside(() => askControl('POST', '/reload'))
  assert.equal(await ask(cached, '+notcp'), 'REFUSED')
  assert.equal(await ask('reset.example', '+notcp'), '192.0.2.1')
})

test('what rules refused and dropped is counted', options, async () => {
  const { ruled, 'dns-policy': dropped } = (await limpid.stats()).apps.dns ?? {}
  assert.ok((ruled ?? 0) > 20 && dropped === 2, JSON.stringify({ ruled, dropped }))
})

const PROGRAM = `import { setTimeout as sleep } from 'node:timers/promises'
import { defineConfig } from 'limpid'

export default defineConfig({
  listeners: [
    { name: 'dns', protocols: ['udp', 'tcp'], ports: 53, source: 'client', dns: {} },
    { name: 'echo', protocols: 'udp', ports: 7, source: 'client' },
  ],
  hooks: {
    hookDeadline: '300ms',
    onDns: ({ name, client }) => {
      if (name === 'now.example') return { then: 'reject' }
      if (name === 'ok.example') return undefined
      if (name === 'throws.example') throw new Error('of the hook')
      return (async () => {
        await sleep(20)
        if (name === 'hangs.example') await new Promise(() => {})
        if (name === 'me.example') return { then: 'answer', addresses: [client.address], ttl: '7s' }
        if (name === 'nobody.example') return { then: 'reject', by: 'nxdomain' }
        return name === 'moved.example' ? { then: 'forward', to: '${OTHER}' } : undefined
      })()
    },
    onFlow: async ({ transport, client }) => {
      await sleep(20)
      return transport === 'udp' && client.port === 4000 ? { then: 'reject' } : undefined
    },
  },
})
`

test('onDns of a program answers dig, at once and later; onFlow turns a UDP session away', options, async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  const file = join(folder, 'limpid.config.mjs')
  writeFileSync(file, PROGRAM, { mode: 0o644 })
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file, '--workers', '2'])
  const answers: readonly (readonly [name: string, answer: string])[] = [
    ['now.example', 'REFUSED'],
    ['ok.example', '192.0.2.1'],
    ['late.example', '192.0.2.1'],
    ['me.example', ADDRESSES[4].y],
    ['nobody.example', 'NXDOMAIN'],
    ['moved.example', '192.0.2.2'],
    ['throws.example', 'SERVFAIL'],
    ['hangs.example', 'SERVFAIL'],
  ]
  for (const protocol of PROTOCOLS) {
    for (const [name, answer] of answers) assert.equal(await ask(name, protocol), answer, `${name} ${protocol}`)
  }
  const { hookFailures, hookTimeouts, hooksWaiting } = await limpid.stats()
  assert.deepEqual([hookFailures, hookTimeouts, hooksWaiting], [2, 2, 0])
  await using echo = await DatagramPeer.echo(lab.z, { address: z, port: 7 })
  for (const [port, heard] of [
    [4001, ['1', '2']],
    [4000, []],
  ] as const) {
    await using client = await DatagramPeer.open(lab.y, { address: ADDRESSES[4].y, port }, { address: z, port: 7 })
    for (const text of ['1', '2']) client.send(text)
    for (const text of heard) assert.equal(String((await client.next())?.bytes), text)
    if (heard.length === 0) await until(() => client.errors.includes('ECONNREFUSED'), 'the refusal')
  }
  assert.equal(echo.heard.length, 2)
})

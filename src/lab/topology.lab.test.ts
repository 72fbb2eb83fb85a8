import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { after, test } from 'node:test'
import { enterNamespaces } from './namespace.ts'
import { serveTcp } from './tcp-exchange.ts'
import { ADDRESSES, BRIDGE_ADDRESSES, raiseBridge, raiseTopology } from './topology.ts'

const DAD_MS = 1_000 // what duplicate address detection would take at the least

const { hostPid } = await enterNamespaces()
const topology = await raiseTopology()
after(() => topology.close())
const { x, y, z } = topology

for (const family of [4, 6] as const) {
  test(`Y reaches Z through X over IPv${family} from the first packet, each with its own address`, async () => {
    const { y: client, z: address } = ADDRESSES[family]
    const startedAt = performance.now()
    const server = serveTcp(z, { address, port: 80 })
    const exchange = await server.open(y, { address, port: 80 }, client)
    assert.equal(exchange.sight.serverSees.address, client)
    assert.equal(exchange.sight.clientSees.address, address)
    assert.deepEqual(await exchange.finish(), { bytes: 65_536 })
    assert.ok(performance.now() - startedAt < DAD_MS)
    server.close()
  })
}

test('a host has its own sysctls, and what runs on it sees its own interfaces', async () => {
  assert.equal(x.sysctl('net.ipv4.ip_forward'), '1')
  x.setSysctls({ 'net.ipv4.ip_default_ttl': '77' })
  assert.deepEqual([x.sysctl('net.ipv4.ip_default_ttl'), y.sysctl('net.ipv4.ip_default_ttl')], ['77', '64'])
  assert.match(await z.run('ip', ['-brief', 'link']), /z-x/)
  assert.doesNotMatch(await y.run('ip', ['-brief', 'link']), /z-x|x-y/)
  await assert.rejects(y.run('ip', ['link', 'show', 'nowhere']), { code: 'LIMPID_PROGRAM' })
})

test('a client that dials a closed port is refused, from the address and port that it asked for', async () => {
  const from = { address: ADDRESSES[4].y, port: 4_000 }
  const socket = y.connect({ address: ADDRESSES[4].z, port: 81 }, { from })
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
  assert.equal(error.code, 'ECONNREFUSED')
  assert.equal(
    y
      .connect({ address: ADDRESSES[4].z, port: 81 }, { from })
      .on('error', () => {})
      .destroy().destroyed,
    true,
  )
})

test('a program whose parent was killed is reaped when it ends: no zombie stays', async () => {
  const parent = y.spawn('sh', ['-c', 'sleep 0.1 & echo $!; wait'], { stdio: ['ignore', 'pipe', 'ignore'] })
  const [line] = (await once(parent.stdout!, 'data')) as [Buffer]
  const exited = once(parent, 'exit')
  parent.kill('SIGKILL')
  await exited
  const deadlineAt = performance.now() + 2_000
  const orphan = line.toString().trim()
  while (readdirSync('/proc').includes(orphan) && performance.now() < deadlineAt) {
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.ok(!readdirSync('/proc').includes(orphan))
})

test('the lab knows its process number outside, and its descriptors do not grow with what was run', async () => {
  assert.ok(hostPid > 1)
  const before = readdirSync('/proc/self/fd').length
  for (let i = 0; i < 5; i++) await x.run('ip', ['link'])
  assert.equal(readdirSync('/proc/self/fd').length, before)
})

test('Y reaches Z across a bridge from the first packet, over both families', async () => {
  const bridge = await raiseBridge()
  for (const family of [4, 6] as const) {
    const { y: client, z: address } = BRIDGE_ADDRESSES[family]
    const server = serveTcp(bridge.z, { address, port: 80 })
    const exchange = await server.open(bridge.y, { address, port: 80 }, client)
    assert.equal(exchange.sight.serverSees.address, client)
    assert.deepEqual(await exchange.finish(), { bytes: 65_536 })
    server.close()
  }
  assert.equal(bridge.x.sysctl('net.ipv4.ip_forward'), '0')
  await bridge.close()
})

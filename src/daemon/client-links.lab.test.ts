import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import type { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y, X_TO_Z, Z_TO_X } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve } from '../lab/traffic.fixture.ts'
import type { Family } from '../net/address.ts'

await enterNamespaces()

const PORT = 7_000
const MAC_OF_Y = '02:00:00:00:03:01'
/** Of Y, but on no link of X: as a client behind a router. */
const BEHIND = { 4: '10.0.5.1', 6: 'fd00:5::1' } as const
const folder = mkdtempSync(join(tmpdir(), 'limpid-links-'))
let lab: Topology
let limpid: LimpidProcess
const servers: (LabServer | DatagramPeer)[] = []

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
const CONFIG = {
  listeners: [{ name: 'all', ports: PORT, protocols: ['tcp', 'udp'], timeouts: { session: '300ms' } }],
  policy: {
    rules: [
      { name: 'mac-of-nobody', macs: ['02:00:00:00:00:99'], then: 'reject' },
      { name: 'mac-of-y', macs: [MAC_OF_Y.toUpperCase().replaceAll(':', '-')], then: 'forward' },
      { name: 'by-x-z', interfaces: [X_TO_Z], then: 'forward' },
      { name: 'by-others', interfaces: ['x-*'], then: 'forward' },
    ],
  },
}
// biome-ignore-end lint/suspicious/noThenProperty: as above

before(async () => {
  lab = await raiseTopology()
  const { x, y, z } = lab
  for (const change of [`link set y-x down`, `link set y-x address ${MAC_OF_Y}`, 'link set y-x up']) {
    await y.run('ip', change.split(' '))
  }
  // what was said on a link that was down is gone
  await y.run('ip', ['route', 'replace', 'default', 'via', ADDRESSES[4].xy])
  await y.run('ip', ['address', 'replace', `${ADDRESSES[6].y}/64`, 'dev', 'y-x', 'nodad'])
  await y.run('ip', ['-6', 'route', 'replace', 'default', 'via', ADDRESSES[6].xy, 'dev', 'y-x'])
  for (const family of [4, 6] as const) {
    await y.run('ip', ['address', 'add', BEHIND[family], 'dev', 'lo', ...(family === 6 ? ['nodad'] : [])])
    const route = ['route', 'add', `${BEHIND[family]}/${family === 4 ? 32 : 128}`, 'via', ADDRESSES[family].y]
    await x.run('ip', [`-${family}`, ...route, 'dev', X_TO_Y])
    for (const [host, address] of [[y, ADDRESSES[family].y] as const, [z, ADDRESSES[family].z] as const]) {
      servers.push(await serve(host, { address, port: PORT }, (socket) => void socket.end('served')))
      servers.push(await DatagramPeer.echo(host, { address, port: PORT }))
    }
  }
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, JSON.stringify(CONFIG))
  limpid = await LimpidProcess.start(x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

interface Sender {
  readonly host: Host
  readonly from: string
  readonly to: string
}

/** The rule that the flow's record names. */
async function ruleOf(protocol: 'tcp' | 'udp', { host, from, to }: Sender): Promise<string | undefined> {
  if (protocol === 'tcp') {
    const client = host.connect({ address: to, port: PORT }, { from: { address: from, port: 0 } })
    assert.equal((await receiveAll(client)).bytes, 'served'.length)
    client.end()
  } else {
    await using client = await DatagramPeer.open(host, { address: from, port: 0 })
    client.send('asked', { address: to, port: PORT })
    assert.equal(String((await client.next())?.bytes), 'asked')
  }
  const record = await limpid.nextRecord()
  assert.equal(record.client.address, from)
  return record.rule
}

for (const family of [4, 6] as const satisfies readonly Family[]) {
  for (const protocol of ['tcp', 'udp'] as const) {
    test(`a client is known by its MAC, or by the interface that it comes by: ${protocol}, IPv${family}`, async () => {
      const { y, z } = ADDRESSES[family]
      const ofY = { host: lab.y, to: z }
      assert.equal(await ruleOf(protocol, { ...ofY, from: y }), 'mac-of-y')
      assert.equal(await ruleOf(protocol, { host: lab.z, from: z, to: y }), 'by-x-z')
      assert.equal(await ruleOf(protocol, { ...ofY, from: BEHIND[family] }), 'by-others', 'behind a router: no MAC')
    })
  }
}

test('a client that gets another MAC is another client within two seconds', async () => {
  await lab.z.run('ip', ['link', 'set', Z_TO_X, 'down'])
  await lab.z.run('ip', ['link', 'set', Z_TO_X, 'address', '02:00:00:00:00:99'])
  await lab.z.run('ip', ['link', 'set', Z_TO_X, 'up'])
  const [from, to] = [ADDRESSES[4].z, ADDRESSES[4].y]
  await lab.z.run('ip', ['route', 'replace', 'default', 'via', ADDRESSES[4].xz])
  const deadlineAt = performance.now() + 5_000
  let rule: string | undefined
  while (rule !== 'mac-of-nobody' && performance.now() < deadlineAt) {
    const client = lab.z.connect({ address: to, port: PORT }, { from: { address: from, port: 0 } })
    await receiveAll(client)
    client.end()
    rule = (await limpid.nextRecord()).rule
  }
  assert.equal(rule, 'mac-of-nobody')
})

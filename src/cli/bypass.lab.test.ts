import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import type { BypassTold, ToldBypass } from '../daemon/control-handlers.ts'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { type LabServer, serve } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const Z = ADDRESSES[4].z
const PREFIX = `${Z}/32`
let lab: Topology
let server: LabServer

before(async () => {
  lab = await raiseTopology()
  server = await serve(
    lab.z,
    { address: Z, port: 80 },
    (socket: Socket) => void socket.resume().on('end', () => socket.end()),
  )
})

after(async () => {
  await server[Symbol.asyncDispose]()
  await lab.close()
})

async function bypass(...words: string[]): Promise<string> {
  return await lab.x.run(process.execPath, [LIMPID_PROGRAM, 'bypass', ...words])
}

/** Dials Z; whom Z sees. */
async function seen(): Promise<string> {
  const client = lab.y.connect({ address: Z, port: 80 })
  client.end('hello').resume()
  await once(client, 'close')
  return server.peers.at(-1)!.address
}

for (const workers of ['1', '2']) {
  test(`a running Limpid with ${workers} worker(s) is told what to bypass, for how long, and what no more`, async () => {
    const args = [
      'run',
      '--intercept',
      'tproxy',
      '--family',
      '4',
      '--from',
      X_TO_Y,
      '--ports',
      '80',
      '--workers',
      workers,
    ]
    await using limpid = await LimpidProcess.start(lab.x, args)
    assert.equal(await bypass('show'), 'nothing is bypassed\n')
    assert.equal(await seen(), ADDRESSES[4].xz)
    assert.equal(
      await bypass('add', `${PREFIX},10.9.0.0/16`, '--for', '10m'),
      `bypass ${PREFIX}: added\nbypass 10.9.0.0/16: added\n`,
    )
    assert.equal(await seen(), ADDRESSES[4].y, 'by the kernel')
    assert.match(
      await bypass('show'),
      new RegExp(`^${PREFIX} {2}for (9(\\.\\d)?m|10m).*, 1 connection, \\d+ packets, \\d+ B$`, 'm'),
    )
    const [told] = JSON.parse(await bypass('show', '--json')) as ToldBypass[]
    assert.deepEqual([told!.prefix, told!.configured, told!.connections], [PREFIX, false, 1])
    const stats = await lab.x.run(process.execPath, [LIMPID_PROGRAM, 'stats'])
    assert.match(stats, /^bypassed {2}1 connection, \d+ packets, \d+ B, by the kernel$/m)
    const removed = JSON.parse(await bypass('remove', Z, '10.8.0.0/16', '--json')) as BypassTold
    assert.deepEqual(
      removed.map(({ outcome }) => outcome),
      ['removed', 'was not there'],
    )
    assert.equal(await seen(), ADDRESSES[4].xz)
    await assert.rejects(bypass('add', '10.0.0.1/8'), /LIMPID_USAGE: PREFIX: expected .*10\.0\.0\.1\/8.*10\.0\.0\.0\/8/)
    await assert.rejects(bypass('add', 'fd00::/8'), /LIMPID_BYPASS: .*no listener takes IPv6/)
    assert.equal(await limpid.stop(), 0, limpid.stderr)
  })
}

test('a Limpid without rules says that it cannot', async () => {
  const forward = ['run', '--intercept', 'none', '--listen', '127.0.0.1:8081', '--to', '127.0.0.1:8080']
  await using limpid = await LimpidProcess.start(lab.x, forward)
  await assert.rejects(
    bypass('add', PREFIX),
    /LIMPID_BYPASS: this Limpid has no rules of its own; run it without --no-rules/,
  )
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

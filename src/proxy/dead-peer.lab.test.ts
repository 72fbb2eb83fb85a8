import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology } from '../lab/topology.ts'
import { serve, sleep } from '../lab/traffic.fixture.ts'

await enterNamespaces()

const DEAD = 'table inet dead { chain in { type filter hook prerouting priority raw; policy drop; }; }'

test('T6: 60 s after both peers died silently, idle, in the middle of bytes or with a closed window, no socket is left', async () => {
  const lab = await raiseTopology()
  const limpid = await LimpidProcess.start(lab.x, ['run', '--intercept', 'tproxy', '--source', 'client'])
  const endpoint = { address: ADDRESSES[4].z, port: 80 }
  await using _idle = await serve(lab.z, endpoint, (socket) => socket.resume())
  await using _bulk = await serve(lab.z, { ...endpoint, port: 81 }, (socket) => {
    const chunk = Buffer.alloc(262_144)
    const more = (): void => {
      while (socket.write(chunk));
    }
    socket.on('drain', more)
    more()
  })
  const clients = Array.from({ length: 20 }, (_, index) => {
    const client = lab.y.connect({ ...endpoint, port: index % 2 === 0 ? 80 : 81 })
    client.on('error', () => {})
    if (index % 4 !== 3) client.resume() // a quarter die with their window closed
    return client
  })
  await Promise.all(clients.map((client) => once(client, 'connect')))
  await sleep(1_000)
  for (const host of [lab.y, lab.z]) await host.run('nft', ['-f', '-'], { input: DEAD })
  const diedAt = performance.now()
  await limpid.recorded(20, 60_000)
  console.log(`T6: the last flow ended ${((performance.now() - diedAt) / 1000).toFixed(1)} s after the peers died`)
  for (const { reason } of limpid.records) assert.match(reason, /^(client|upstream)-lost$/)
  const left = (await lab.x.run('ss', ['-Htan', 'state', 'connected'])).trim()
  assert.equal(left, '')
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  for (const client of clients) client.destroy()
  await lab.close()
})

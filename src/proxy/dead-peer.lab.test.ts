import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology } from '../lab/topology.ts'
import { receiveAll, serve, sleep } from '../lab/traffic.fixture.ts'

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

test('T28: a silent server reaches the client as a reset when connectMs has passed; a killed one at once', async () => {
  const lab = await raiseTopology()
  const { writeFileSync } = await import('node:fs')
  const file = `/run/limpid-test-${process.pid}.yaml`
  writeFileSync(
    file,
    'listeners:\n  - name: web\n    intercept: tproxy\n    source: client\n    timeouts: { connect: 1s }\n',
  )
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  const endpoint = { address: ADDRESSES[4].z, port: 80 }
  const SILENT = 'table inet silent { chain in { type filter hook prerouting priority raw; tcp dport 83 drop; }; }'
  await lab.z.run('nft', ['-f', '-'], { input: SILENT })
  const startedAt = performance.now()
  const waiting = lab.y.connect({ ...endpoint, port: 83 })
  assert.equal((await receiveAll(waiting)).failure, 'ECONNRESET')
  const ms = performance.now() - startedAt
  assert.ok(ms >= 950 && ms < 1_500, `${ms} ms`)
  assert.equal((await limpid.nextRecord()).reason, 'dial-timeout')

  const server = lab.z.spawn(process.execPath, [
    '-e',
    `require('net').createServer((s) => s.on('error', () => {}).resume()).listen(80, '${endpoint.address}', () => console.log('listening'))`,
  ])
  await once(server.stdout!, 'data')
  const client = lab.y.connect(endpoint)
  await once(client, 'connect')
  client.write('unanswered')
  await sleep(100)
  const ended = receiveAll(client)
  server.kill('SIGKILL')
  const killedAt = performance.now()
  await ended
  client.destroy()
  const record = await limpid.nextRecord()
  assert.ok(performance.now() - killedAt < 1_000)
  assert.ok(['closed', 'upstream-reset', 'client-reset'].includes(record.reason), record.reason)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await lab.close()
})

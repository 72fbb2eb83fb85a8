import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology } from '../lab/topology.ts'
import { receiveAll, sleep } from '../lab/traffic.fixture.ts'

await enterNamespaces()

test('T28: a silent server reaches the client as a reset when connectMs has passed; a killed one at once', async () => {
  const lab = await raiseTopology()
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

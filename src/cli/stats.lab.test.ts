import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { after, test } from 'node:test'
import { ControlSocket, controlPaths } from '../daemon/control.ts'
import type { ServiceStats } from '../daemon/run.ts'
import { Host } from '../lab/host.ts'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { enterNetNamespace } from '../sys/namespace.ts'

await enterNamespaces()

const FORWARD = ['run', '--intercept', 'none', '--listen', '127.0.0.1:8081', '--to', '127.0.0.1:8080']
const host = await Host.create('X')
enterNetNamespace(host.namespaceFd) // the control socket's name holds the namespace
const echo = host.listen({ address: '127.0.0.1', port: 8080 })
echo.on('connection', (socket) => socket.pipe(socket))
after(async () => {
  echo.close()
  await host.close()
})

async function stats(...flags: string[]): Promise<string> {
  return await host.run(process.execPath, [LIMPID_PROGRAM, 'stats', ...flags])
}

async function exchange(): Promise<void> {
  const client = host.connect({ address: '127.0.0.1', port: 8081 })
  client.end('hello').resume()
  await once(client, 'close')
}

for (const workers of [1, 2]) {
  test(`limpid stats tells the counters of a running proxy with ${workers} worker${workers === 1 ? '' : 's'}`, async () => {
    await using limpid = await LimpidProcess.start(host, [...FORWARD, '--workers', `${workers}`])
    for (let flow = 0; flow < 3; flow++) await exchange()
    await limpid.recorded(3)
    const told = JSON.parse(await stats('--json')) as ServiceStats
    assert.deepEqual([told.flowsTotal, told.endedBy, told.restorations], [3, { closed: 3 }, 0])
    assert.equal(told.workers?.length, workers === 1 ? undefined : 2)
    const text = await stats()
    assert.match(
      text,
      /^open {6}0 of \d+ flows\ntotal {5}3 flows, of those that ended 15 B up, 15 B down\nended by {2}closed 3\n/,
    )
    assert.equal(
      [...text.matchAll(/^worker \d {2}pid \d+, 0 flows and 0 sessions open, \d in all$/gm)].length,
      workers === 1 ? 0 : 2,
    )
    assert.equal(await limpid.stop(), 0, limpid.stderr)
    assert.ok(!controlPaths().some(existsSync), 'nothing is left')
  })
}

test('without a running proxy, and after one was killed, stats says so in one line', async () => {
  await assert.rejects(
    stats(),
    /LIMPID_CONTROL: no limpid run answers in this network namespace: there is no control socket/,
  )
  await using killed = await LimpidProcess.start(host, FORWARD)
  await killed.stop('SIGKILL')
  await assert.rejects(stats(), /LIMPID_CONTROL: no limpid run answers .*ECONNREFUSED/)
  await using next = await LimpidProcess.start(host, FORWARD)
  assert.match(await stats(), /^open/)
  assert.equal(await next.stop(), 0, next.stderr)
})

test('T21: the control socket is its user’s alone, answers what it knows, and a second proxy leaves it alone', async () => {
  await using first = await LimpidProcess.start(host, FORWARD)
  const path = controlPaths().find(existsSync)!
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.equal(statSync(path.slice(0, path.lastIndexOf('/'))).mode & 0o077, 0)
  await using second = await LimpidProcess.start(
    host,
    FORWARD.map((word) => word.replace(':8081', ':8082')),
  )
  assert.match(second.stderr, /no control socket: another limpid run of this network namespace has it/)
  assert.equal(await second.stop(), 0, second.stderr)
  assert.equal((await ask(path, 'GET', '/else')).status, 404)
  assert.equal((await ask(path, 'POST', '/stats')).status, 404)
  assert.match(await stats(), /^open/)
  assert.equal(await first.stop(), 0, first.stderr)
})

test('what a request says wrong is answered, and ends nothing', async () => {
  await using control = await ControlSocket.open({ 'POST /echo': (body) => body })
  assert.ok(control !== undefined)
  assert.deepEqual(await ask(control.path, 'POST', '/echo', '{"a":1}'), { status: 200, value: { a: 1 } })
  const wrong = await ask(control.path, 'POST', '/echo', '{')
  assert.equal(wrong.status, 400)
  assert.equal((wrong.value as { code: string }).code, 'LIMPID_CONTROL')
  assert.equal((await ask(control.path, 'POST', '/echo', '"'.padEnd(70_000, 'x'))).status, 400)
  assert.deepEqual(await ask(control.path, 'POST', '/echo', '[2]'), { status: 200, value: [2] })
})

function ask(socketPath: string, method: string, path: string, body = ''): Promise<{ status: number; value: unknown }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method, path }, async (response) => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve({ status: response.statusCode!, value: JSON.parse(text) })
    })
    asked.once('error', reject).end(body)
  })
}

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { PATIENCE_MS } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'
import { findProgram } from '../sys/program.ts'
import { StopSignals } from './stop-signals.ts'

await enterNamespaces()

const SERVER: Endpoint = { address: '127.0.0.1', port: 8080 }
const LISTENER: Endpoint = { address: '127.0.0.1', port: 8081 }
const NO_CAPABILITIES = [findProgram('setpriv'), '--bounding-set=-all', '--inh-caps=-all']

const folder = mkdtempSync(join(tmpdir(), 'limpid-run-'))
const host = await Host.create('X')
const echo = host.listen(SERVER)
echo.on('connection', (socket) => {
  socket.on('error', () => {})
  socket.pipe(socket)
})
after(async () => {
  echo.close()
  await host.close()
  rmSync(folder, { recursive: true })
})

async function echoed(socket: Socket, text: string): Promise<string> {
  socket.write(text)
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  return chunk.toString()
}

async function said(limpid: LimpidProcess, line: RegExp, withinMs = PATIENCE_MS): Promise<void> {
  const deadlineAt = performance.now() + withinMs
  while (!line.test(limpid.stderr)) {
    assert.ok(performance.now() < deadlineAt, `no ${line} in: ${limpid.stderr}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

test('relay without -l serves one connection and exits 0, with no capability at all', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '8081', '127.0.0.1', '8080'], { wrapper: NO_CAPABILITIES })
  const client = host.connect(LISTENER)
  assert.equal(await echoed(client, 'hello'), 'hello')
  client.end()
  assert.equal(await limpid.exited, 0)
  assert.equal(limpid.records.length, 1)
  assert.equal(limpid.records[0]?.reason, 'closed')
})

test('run --intercept none needs no capability either, from flags or from a file', async () => {
  const args = ['run', '--intercept', 'none', '--listen', '127.0.0.1:8081', '--to', '127.0.0.1:8080']
  const limpid = await LimpidProcess.start(host, args, { wrapper: NO_CAPABILITIES })
  const client = host.connect(LISTENER)
  assert.equal(await echoed(client, 'hello'), 'hello')
  client.destroy()
  assert.equal(await limpid.stop(), 0)
  const path = join(folder, 'forwarder.yaml')
  writeFileSync(path, 'listeners: [{ intercept: none, listen: "127.0.0.1:8081", to: "127.0.0.1:8080" }]')
  const second = await LimpidProcess.start(host, ['run', '-c', path], { wrapper: NO_CAPABILITIES })
  assert.equal(await second.stop(), 0)
})

test('SIGQUIT removes the rules without a drain', async () => {
  const limpid = await LimpidProcess.start(host, ['run', '--intercept', 'tproxy', '--ports', '80', '--drain', '1h'])
  assert.match(await host.run('nft', ['list', 'tables']), /limpid/)
  assert.equal(await limpid.stop('SIGQUIT'), 0)
  assert.equal(await host.run('nft', ['list', 'ruleset']), '')
})

test('SIGQUIT ends open flows at once', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '-l', '--drain', '1h', '8081', '127.0.0.1', '8080'])
  const client = host.connect(LISTENER)
  client.on('error', () => {})
  assert.equal(await echoed(client, 'x'), 'x')
  assert.equal(await limpid.stop('SIGQUIT'), 0)
  assert.match(limpid.stderr, /stopping: 1 flow ends now/)
  assert.equal(limpid.records[0]?.reason, 'shutdown')
})

test('SIGHUP does not stop what has no terminal, as under nohup', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '-l', '8081', '127.0.0.1', '8080'])
  limpid.child.kill('SIGHUP')
  await new Promise((resolve) => setTimeout(resolve, 200))
  const client = host.connect(LISTENER)
  assert.equal(await echoed(client, 'still'), 'still')
  client.destroy()
  assert.equal(await limpid.stop(), 0)
})

test('SIGHUP stops what has a terminal, which was closed then', () => {
  using signals = new StopSignals({ hasTerminal: true })
  process.emit('SIGHUP', 'SIGHUP')
  assert.equal(signals.stop.aborted, true)
})

test('SIGTERM lets open flows go on until the deadline, and no new one begin', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '-l', '--drain', '5s', '8081', '127.0.0.1', '8080'])
  const client = host.connect(LISTENER)
  assert.equal(await echoed(client, 'before'), 'before')
  limpid.child.kill('SIGTERM')
  await said(limpid, /stopping: 1 flow/)
  assert.equal(await echoed(client, 'after'), 'after')
  const late = host.connect(LISTENER)
  assert.equal(((await once(late, 'error')) as [NodeJS.ErrnoException])[0].code, 'ECONNREFUSED')
  client.end()
  assert.equal(await limpid.exited, 0)
  assert.equal(limpid.records[0]?.reason, 'closed')
})

test('a second signal ends the drain at once: the flow is reset, the exit code is 0', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '-l', '--drain', '1h', '8081', '127.0.0.1', '8080'])
  const client = host.connect(LISTENER)
  assert.equal(await echoed(client, 'x'), 'x')
  const reset = once(client, 'error')
  limpid.child.kill('SIGINT')
  await said(limpid, /stopping/)
  limpid.child.kill('SIGINT')
  assert.equal(((await reset) as [NodeJS.ErrnoException])[0].code, 'ECONNRESET')
  assert.equal(await limpid.exited, 0)
  assert.equal(limpid.records[0]?.reason, 'shutdown')
})

test('the deadline ends what is still open', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '-l', '--drain', '200ms', '8081', '127.0.0.1', '8080'])
  const client = host.connect(LISTENER)
  client.on('error', () => {})
  assert.equal(await echoed(client, 'x'), 'x')
  const startedAt = performance.now()
  assert.equal(await limpid.stop('SIGTERM'), 0)
  assert.ok(performance.now() - startedAt < 9_000) // without it, ten seconds
})

test('SIGUSR1 opens no debugger, and SIGUSR2 notes the counters', async () => {
  const limpid = await LimpidProcess.start(host, ['relay', '-l', '8081', '127.0.0.1', '8080'])
  limpid.child.kill('SIGUSR1')
  limpid.child.kill('SIGUSR2')
  await said(limpid, /"flowsOpen":0/)
  assert.doesNotMatch(limpid.stderr, /[Dd]ebugger/)
  assert.equal(await limpid.stop(), 0)
})

test('when its nft process is killed, the rules are installed again, every time; its stop leaves nothing', async () => {
  const limpid = await LimpidProcess.start(host, ['run', '--intercept', 'tproxy', '--ports', '80'])
  const ruleset = await host.run('nft', ['list', 'table', 'inet', 'limpid'])
  for (let kills = 1; kills <= 3; kills++) {
    await killNft(limpid)
    await said(
      limpid,
      new RegExp(`rules restored in \\d+ ms: nft table inet limpid was removed \\(${kills} restoration`),
    )
    assert.equal(withoutCounters(await host.run('nft', ['list', 'table', 'inet', 'limpid'])), withoutCounters(ruleset))
  }
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal(await host.run('nft', ['list', 'ruleset']), '')
  assert.doesNotMatch(await host.run('ip', ['rule']), /fwmark/)
})

test('while lost rules are brought back, the guard of a closed listener stays', async () => {
  const args = ['run', '--intercept', 'tproxy', '--ports', '80', '--on-down', 'closed']
  const limpid = await LimpidProcess.start(host, args)
  assert.match(limpid.stderr, /ready: .*, guard nft table inet limpid-guard \(stays if Limpid dies\)\n/)
  await killNft(limpid)
  let looks = 0
  while (!/rules restored/.test(limpid.stderr)) {
    assert.match(await host.run('nft', ['list', 'tables']), /limpid-guard/, limpid.stderr)
    looks++
  }
  assert.ok(looks > 3, `${looks} looks`)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal(await host.run('nft', ['list', 'ruleset']), '')
})

test('a reader of flow lines that stalls, and one that is gone, do not stop the traffic', async () => {
  const args = ['relay', '-l', '8081', '127.0.0.1', '8080']
  const limpid = await LimpidProcess.start(host, args)
  limpid.child.stdout?.pause()
  const flows = 400
  for (let i = 0; i < flows; i++) {
    const client = host.connect(LISTENER)
    if (i === flows / 2) limpid.child.stdout?.destroy()
    assert.equal(await echoed(client, 'x'), 'x')
    client.destroy()
  }
  assert.equal(await limpid.stop(), 0)
  assert.match(limpid.stderr, /stopped: 400 flows.*flow lines dropped/)
})

function withoutCounters(listing: string): string {
  return listing.replaceAll(/counter packets \d+ bytes \d+/g, 'counter').replaceAll(/ # progname.*$/gm, '')
}

async function killNft(limpid: LimpidProcess): Promise<void> {
  const children = await host.run('ps', ['-o', 'pid=,comm=', '--ppid', `${limpid.pid}`])
  const pid = Number(/(\d+) nft/.exec(children)?.[1])
  assert.ok(pid > 0, children)
  process.kill(pid, 'SIGKILL')
}

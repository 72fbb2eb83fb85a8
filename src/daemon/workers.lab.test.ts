import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { dig, WITHOUT_DIG } from '../apps/dns/dig.fixture.ts'
import { DnsServer, zoneOf } from '../apps/dns/server.fixture.ts'
import { BurstPeer } from '../lab/burst.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology, X_TO_Y } from '../lab/topology.ts'
import { PATIENCE_MS, serve, sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, sameEndpoint } from '../net/address.ts'
import type { PoolStats } from './pool-stats.ts'

await enterNamespaces()

const CAP_NET_RAW = '0000000000002000'
const SERVER: Endpoint = { address: ADDRESSES[4].z, port: 80 }
const INTERCEPT = ['--intercept', 'tproxy', '--family', '4', '--from', X_TO_Y, '--source', 'client', '--workers', '2']
/** A worker tells its counters every second. */
const TOLD_MS = 1_500

let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

async function statsOf(limpid: LimpidProcess): Promise<PoolStats> {
  return (await limpid.stats()) as PoolStats
}

async function pidsOf(limpid: LimpidProcess): Promise<number[]> {
  const { workers } = await statsOf(limpid)
  return workers.filter((worker) => worker !== undefined).map(({ pid }) => pid)
}

/** Sends back what it gets. */
const echo = (socket: Socket): void =>
  void socket.on('data', (chunk) => socket.write(chunk)).on('end', () => socket.end())

/** Whether what the client sends comes back. */
async function isAlive(client: Socket): Promise<boolean> {
  if (client.destroyed || client.readableEnded) return false // its end may be over
  client.write('alive?')
  const answered = once(client, 'data', { signal: AbortSignal.timeout(PATIENCE_MS) })
  return await Promise.race([answered, once(client, 'end'), once(client, 'close')]).then(
    ([first]) => Buffer.isBuffer(first),
    () => false,
  )
}

async function connected(count: number): Promise<Socket[]> {
  return await Promise.all(
    Array.from({ length: count }, async () => {
      const client = lab.y.connect(SERVER)
      await once(client, 'connect', { signal: AbortSignal.timeout(PATIENCE_MS) })
      return client.on('error', () => {})
    }),
  )
}

/** The clients of sockets on X, by the process that has the socket, once all `count` have been accepted. */
async function clientsByPid(count: number): Promise<Map<number, Endpoint[]>> {
  const deadlineAt = performance.now() + PATIENCE_MS
  for (;;) {
    const owners = await acceptedByPid()
    const accepted = [...owners.values()].flat().length
    if (accepted === count) return owners
    assert.ok(performance.now() < deadlineAt, `${accepted} of ${count} accepted`)
  }
}

async function acceptedByPid(): Promise<Map<number, Endpoint[]>> {
  const owners = new Map<number, Endpoint[]>()
  for (const line of (await lab.x.run('ss', ['-Htnp', 'state', 'established', 'sport = :80'])).split('\n')) {
    const [, address, port, pid] = /:80\s+([\d.]+):(\d+)\s.*pid=(\d+)/.exec(line) ?? []
    if (pid === undefined) continue
    owners.set(Number(pid), [...(owners.get(Number(pid)) ?? []), { address: address!, port: Number(port) }])
  }
  return owners
}

test('10,000 connections are spread evenly over two workers, as ss shows, and counted as those of one', async (t) => {
  await using server = await serve(lab.z, SERVER, echo)
  await using limpid = await LimpidProcess.start(lab.x, ['run', ...INTERCEPT, '--ports', '80'])
  assert.match(limpid.stderr, /ready: .*, 2 workers, /)
  for (let wave = 0; wave < 10; wave++) {
    const clients = await connected(1_000)
    if (wave === 0) {
      const owners = await clientsByPid(1_000)
      assert.deepEqual([...owners.keys()].toSorted(), (await pidsOf(limpid)).toSorted(), 'the workers, and nobody else')
    }
    for (const client of clients) client.end().resume()
    await Promise.all(clients.map((client) => client.closed || once(client, 'close')))
  }
  await limpid.recorded(10_000)
  const { flowsTotal, endedBy, workers } = await statsOf(limpid)
  assert.deepEqual([flowsTotal, endedBy], [10_000, { closed: 10_000 }])
  const [one, other] = workers.map((worker) => worker!.flowsTotal) as [number, number]
  assert.equal(one + other, 10_000)
  t.diagnostic(`${one} and ${other} connections`)
  assert.ok(Math.abs(one - other) < 1_000, `${one} and ${other}: within a tenth`)
  assert.deepEqual(
    limpid.records.map(({ id }) => id),
    Array.from({ length: 10_000 }, (_, index) => index + 1),
  )
  assert.ok(
    server.peers.every(({ address }) => address === ADDRESSES[4].y),
    'the server saw the client',
  )
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.match(limpid.stderr, /stopped: 10000 flows/)
})

test('T34: a worker holds CAP_NET_RAW alone, in all its threads, and can gain nothing; the supervisor keeps the rules', async () => {
  await using limpid = await LimpidProcess.start(lab.x, ['run', ...INTERCEPT, '--ports', '80'])
  for (const pid of await pidsOf(limpid)) {
    const threads = readdirSync(`/proc/${pid}/task`)
    assert.ok(threads.length > 1)
    for (const thread of threads) {
      const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1')
      for (const set of ['CapEff', 'CapPrm', 'CapBnd']) assert.equal(fieldOf(status, set), CAP_NET_RAW, set)
      assert.equal(fieldOf(status, 'NoNewPrivs'), '1')
    }
  }
  const own = BigInt(`0x${fieldOf(readFileSync(`/proc/${limpid.pid}/status`, 'latin1'), 'CapEff')}`)
  assert.equal((own >> 12n) & 1n, 1n, 'CAP_NET_ADMIN')
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

function fieldOf(status: string, name: string): string | undefined {
  return new RegExp(`^${name}:\\s*(\\S+)$`, 'm').exec(status)?.[1]
}

test('T29: a worker that is killed costs its own flows and no other connection, and another takes its place', async () => {
  await using _server = await serve(lab.z, SERVER, echo)
  await using limpid = await LimpidProcess.start(lab.x, ['run', ...INTERCEPT, '--ports', '80'])
  assert.equal(lab.x.sysctl('net.ipv4.tcp_migrate_req'), '1')
  const [victim, survivor] = (await pidsOf(limpid)) as [number, number]
  const clients = await connected(100)
  const owners = await clientsByPid(100)
  await sleep(TOLD_MS)
  const failed: string[] = []
  let served = 0
  let dialled = 0
  process.kill(victim, 'SIGKILL')
  const dialling = setInterval(() => {
    dialled++
    const client = lab.y.connect(SERVER).on('error', ({ message }) => failed.push(message))
    client.once('data', () => {
      served++
      client.destroy()
    })
    client.write('ping')
  }, 2)
  try {
    await until(() => /worker \d \(pid \d+\) ended: SIGKILL; \d+ flows are lost/.test(limpid.stderr), 'note')
    const alive = await Promise.all(clients.map(isAlive))
    assert.deepEqual(
      clients.flatMap(({ localPort }, index) => (alive[index] ? [localPort!] : [])).toSorted(),
      owners
        .get(survivor)!
        .map(({ port }) => port)
        .toSorted(),
      'the flows of the other worker, and they alone, go on',
    )
    await until(() => (limpid.stderr.match(/ended: SIGKILL/g) ?? []).length === 1, 'end')
    const hasFlows = async () => (await statsOf(limpid)).workers.every((worker) => (worker?.flowsTotal ?? 0) > 0)
    const deadlineAt = performance.now() + PATIENCE_MS
    while (!(await hasFlows()) && performance.now() < deadlineAt) await sleep(100) // the third worker has begun
    await until(() => served > 100, 'more than 100 that were served')
  } finally {
    clearInterval(dialling)
  }
  await until(() => served + failed.length === dialled, 'end of what was dialled')
  assert.deepEqual(failed, [], 'whoever dialled afterwards was served, by the other or the next')
  const { workers, workerRestarts, flowsLost } = await statsOf(limpid)
  const pids = workers.map((worker) => worker?.pid)
  assert.ok(pids.includes(survivor) && !pids.includes(victim) && !pids.includes(undefined), `${pids}`)
  assert.deepEqual([workerRestarts, flowsLost], [1, owners.get(victim)!.length])
  assert.ok(
    workers.every((worker) => worker!.flowsTotal > 0),
    'the new worker has flows',
  )
  for (const client of clients) client.destroy()
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal(lab.x.sysctl('net.ipv4.tcp_migrate_req'), '0')
})

test('UDP: a session stays with its worker when another one is killed, and that one’s clients are served again', async () => {
  const to: Endpoint = { address: ADDRESSES[4].z, port: 5_000 }
  using server = new BurstPeer(lab.z, to)
  await using limpid = await LimpidProcess.start(lab.x, ['run', ...INTERCEPT, '--protocol', 'udp', '--ports', '5000'])
  const clients = Array.from({ length: 40 }, () => new BurstPeer(lab.y, { address: ADDRESSES[4].y, port: 0 }))
  try {
    /** Each client asks until it is answered; by which ports the server was asked. */
    const ask = async (): Promise<Endpoint[]> => {
      const ports = new Map<BurstPeer, Endpoint>()
      const deadlineAt = performance.now() + PATIENCE_MS
      while (ports.size < clients.length) {
        assert.ok(performance.now() < deadlineAt, `${ports.size} of ${clients.length} answered`)
        clients.forEach((client, index) => {
          if (!ports.has(client)) client.send([{ bytes: Buffer.from([index]), to }])
        })
        await sleep(50)
        const heard = server.receive()
        server.send(heard.map(({ bytes, from }) => ({ bytes: Buffer.from(`${bytes[0]} ${from.port}`), to: from })))
        await sleep(50)
        for (const client of clients) {
          for (const { bytes, from } of client.receive()) {
            assert.deepEqual(from, to)
            const [index, port] = bytes.toString().split(' ').map(Number)
            assert.equal(clients[index!], client, 'it gets what it asked for')
            ports.set(client, { address: ADDRESSES[4].y, port: port! })
          }
        }
      }
      return clients.map((client) => ports.get(client)!)
    }
    const before = await ask()
    await sleep(TOLD_MS)
    const [victim, survivor] = (await statsOf(limpid)).workers
    assert.equal(victim!.sessionsOpen + survivor!.sessionsOpen, 40)
    process.kill(victim!.pid, 'SIGKILL')
    await until(() => /ended: SIGKILL/.test(limpid.stderr), 'note')
    const after = await ask()
    const same = after.filter((endpoint, index) => sameEndpoint(endpoint, before[index]!))
    assert.equal(same.length, survivor!.sessionsOpen)
    assert.equal((await statsOf(limpid)).flowsLost, victim!.sessionsOpen)
  } finally {
    for (const client of clients) client[Symbol.dispose]()
  }
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('a name that one worker has learnt by DNS is known to the other', { skip: WITHOUT_DIG }, async () => {
  await using _dns = await DnsServer.open(lab.z, SERVER.address, zoneOf(SERVER.address, ADDRESSES[6].z))
  await using _server = await serve(lab.z, SERVER, echo)
  const common = { family: 4, interfaces: X_TO_Y, source: 'client' }
  const listeners = [
    { name: 'dns', ...common, protocols: ['udp', 'tcp'], ports: 53, dns: {}, listen: '127.0.0.1:50053' },
    { name: 'web', ...common, ports: 80 },
  ]
  writeFileSync('/run/workers.yaml', JSON.stringify({ workers: 2, listeners }))
  await using limpid = await LimpidProcess.start(lab.x, ['run', '-c', '/run/workers.yaml'])
  await dig(lab.y, `@${SERVER.address}`, 'web.example', 'A')
  await sleep(100)
  limpid.skipRecords()
  for (const client of await connected(40)) client.end().resume()
  const named = []
  while (named.length < 40) {
    const record = await limpid.nextRecord()
    if (record.listener === 'web') named.push(record.name)
  }
  assert.deepEqual(new Set(named), new Set(['web.example']))
  const shares = (await statsOf(limpid)).workers.map((worker) => worker!.flowsTotal)
  assert.ok(Math.min(...shares) > 0, `both had flows: ${shares}`)
  assert.equal(await limpid.stop(), 0, limpid.stderr)
})

test('SIGTERM drains all workers, a second one ends their flows; a terminal’s Ctrl-C is the supervisor’s alone', async () => {
  await using _server = await serve(lab.z, SERVER, echo)
  await using limpid = await LimpidProcess.start(lab.x, ['run', ...INTERCEPT, '--ports', '80', '--drain', '1h'])
  const pids = await pidsOf(limpid)
  const clients = await connected(20)
  await clientsByPid(20) // those that nobody has accepted yet would not be told
  for (const pid of pids) for (const signal of ['SIGINT', 'SIGTERM'] as const) process.kill(pid, signal)
  limpid.child.kill('SIGTERM')
  await until(() => limpid.stderr.includes('stopping: 20 flows may go on'), 'drain')
  assert.deepEqual(await Promise.all(clients.map(isAlive)), Array(20).fill(true))
  clients[0]!.end().resume()
  await limpid.recorded(1)
  assert.equal(await limpid.stop('SIGTERM'), 0, limpid.stderr)
  assert.deepEqual(
    limpid.records.map(({ reason }) => reason),
    ['closed', ...Array(19).fill('shutdown')],
  )
  assert.deepEqual(pids.filter(isRunning), [])
})

test('when the supervisor is killed its workers end, and nothing of them stays in the kernel', async () => {
  await using limpid = await LimpidProcess.start(lab.x, ['run', ...INTERCEPT, '--ports', '80'])
  const pids = await pidsOf(limpid)
  await limpid.stop('SIGKILL')
  await until(() => !pids.some(isRunning), 'end of the workers')
  // a leader may be a zombie while its last threads still hold the sockets
  const deadlineAt = performance.now() + PATIENCE_MS
  for (let listening = '?'; listening !== ''; ) {
    listening = await lab.x.run('ss', ['-Htln'])
    assert.ok(performance.now() < deadlineAt, listening)
  }
})

test('a port that somebody has is told before any worker begins, also when he would share it', async () => {
  const taken = ['run', '--intercept', 'none', '--listen', '127.0.0.1:8081', '--to', '127.0.0.1:80', '--workers', '2']
  await using first = await LimpidProcess.start(lab.x, taken)
  const second = LimpidProcess.launch(lab.x, taken)
  assert.equal(await second.exited, 1)
  assert.match(second.stderr, /^LIMPID_LISTEN: cannot listen on 127\.0\.0\.1:8081: .*EADDRINUSE[^\n]*\n$/)
  assert.equal(await first.stop(), 0, first.stderr)
})

function isRunning(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')
  } catch {
    return false
  }
}

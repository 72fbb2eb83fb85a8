import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { nameServer } from '../lab/dns.fixture.ts'
import type { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { TftpServer } from '../lab/tftp.fixture.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { pattern, sleep, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const SOURCES = ['client', 'client-port'] as const
/** The port of each program's server, by the source of the listener that takes what goes there. */
const PORTS = {
  iperf3: { client: 5_201, 'client-port': 5_202 },
  tftp: { 'client-port': 69, client: 6_901, proxy: 6_902 },
  quic: { client: 443, 'client-port': 444 },
  dns: { client: 53 },
  ntp: { client: 123, 'client-port': 1_123 },
} as const
const folder = mkdtempSync(join(tmpdir(), 'limpid-programs-'))
let lab: Topology
let limpid: LimpidProcess

before(async () => {
  lab = await raiseTopology()
  const listeners = Object.entries(PORTS).flatMap(([name, ports]) =>
    Object.entries(ports).map(([source, port]) => {
      return {
        name: `${name}-${source}`,
        source,
        ports: [port],
        ...(name === 'dns' ? { protocols: ['udp', 'tcp'] } : {}),
      }
    }),
  )
  limpid = await start(listeners)
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** Why a test is skipped; false when it is not. */
function without(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => !isInstalled(program))
  return missing.length === 0 ? false : `${missing.join(', ')} is not installed`
}

/** Limpid on X with listeners for tproxy. */
async function start(listeners: readonly object[]): Promise<LimpidProcess> {
  const file = join(folder, 'limpid.yaml')
  const defaults = { intercept: 'tproxy', protocols: 'udp', timeouts: { session: '1s', query: '500ms' } }
  writeFileSync(file, JSON.stringify({ listeners: listeners.map((one) => ({ ...defaults, ...one })) }))
  return await LimpidProcess.start(lab.x, ['run', '-c', file])
}

/** Starts a server and waits until it has its UDP port, or its control connection's. */
async function started(program: string, args: readonly string[], endpoint: Endpoint): Promise<void> {
  lab.z.spawn(program, args, { stdio: 'ignore', cwd: folder })
  const deadlineAt = performance.now() + 10_000
  while (!(await lab.z.run('ss', ['-Hlnut'])).includes(` ${formatEndpoint(endpoint)} `)) {
    assert.ok(performance.now() < deadlineAt, `${program} does not listen on ${formatEndpoint(endpoint)}`)
    await sleep(20)
  }
}

/** The records that have come of what a server was asked, once `count` of them are there. */
async function recordsOf(server: Endpoint, count = 1, isWanted = (_: FlowRecord) => true): Promise<FlowRecord[]> {
  const wanted = () =>
    limpid.records.filter((one) => formatEndpoint(one.originalDst) === formatEndpoint(server) && isWanted(one))
  await until(() => wanted().length >= count, `${count} records of ${formatEndpoint(server)}`)
  return wanted()
}

describe('iperf3 over UDP', { skip: without('iperf3') }, () => {
  for (const source of SOURCES) {
    test(`source ${source}: what a receiver lacks is lost in its own buffer; nothing out of order, all in the records`, async () => {
      await Promise.all(FAMILIES.map((family) => measure(family, source)))
      assert.deepEqual((await limpid.stats()).datagramsDropped, {})
    })
  }
})

const LENGTH = 1_200
const COUNT = 2_000

/** Both directions, one after the other: 40 Mbit/s, far below what fills a socket's buffer between two looks at it. */
async function measure(family: Family, source: (typeof SOURCES)[number]): Promise<void> {
  const { y, z } = ADDRESSES[family]
  const server = { address: z, port: PORTS.iperf3[source] }
  const at = ['-p', `${server.port}`]
  await started('iperf3', ['-s', '-B', z, ...at], server)
  for (const direction of ['up', 'down'] as const) {
    const where = `${source}, ${direction}, IPv${family}`
    const size = ['-l', `${LENGTH}`, '-n', `${LENGTH * COUNT}`, '-b', '40M', '-w', '200K']
    const way = direction === 'up' ? [] : ['-R']
    const receiver = direction === 'up' ? lab.z : lab.y
    const before = fullBufferLosses(receiver, family)
    const report = JSON.parse(await lab.y.run('iperf3', ['-u', '-c', z, ...at, '-J', ...size, ...way]))
    const { packets, lost_packets, out_of_order } = report.end.streams[0].udp
    assert.equal(lost_packets, fullBufferLosses(receiver, family) - before, `${where}: lost`)
    assert.equal(out_of_order, 0, `${where}: out of order`)
    assert.ok(packets >= COUNT, `${where}: ${packets} datagrams`)
    const bytes = direction === 'up' ? 'bytesClientToUpstream' : 'bytesUpstreamToClient'
    const [record] = await recordsOf(server, 1, (one) => one[bytes] > (LENGTH * COUNT) / 2)
    // each side says one word first
    const { clientToUpstream: up, upstreamToClient: down, dropped } = record!.datagrams!
    const [many, one] = direction === 'up' ? [up, down] : [down, up]
    assert.deepEqual({ many, one, dropped }, { many: packets + 1, one: 1, dropped: 0 }, `${where}: in the record`)
    assert.equal(record!.sourceAddr?.address, y)
    if (source === 'client-port') assert.equal(record!.sourceAddr?.port, record!.client.port)
    console.log(`iperf3, ${where}: ${packets} datagrams, ${lost_packets} lost in the receiver's buffer`)
  }
}

/** Datagrams that full receive buffers have cost on a host (proc_net_snmp: RcvbufErrors). */
function fullBufferLosses(host: Host, family: Family): number {
  const read = (file: string) => host.inside(() => readFileSync(`/proc/thread-self/net/${file}`, 'latin1'))
  if (family === 6) return Number(/^Udp6RcvbufErrors\s+(\d+)/m.exec(read('snmp6'))![1])
  const [names, values] = [...read('snmp').matchAll(/^Udp: (.*)$/gm)].map(([, text]) => text!.split(' '))
  return Number(values![names!.indexOf('RcvbufErrors')])
}

describe('QUIC with ngtcp2', { skip: without('gtlsserver', 'gtlsclient', 'openssl') }, () => {
  const file = Buffer.concat([...pattern(443, 5_000_000)])
  const pages = join(folder, 'pages')

  before(async () => {
    mkdirSync(pages)
    writeFileSync(join(pages, 'file'), file)
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', join(folder, 'key')]
    await lab.z.run('openssl', ['req', '-x509', ...key, '-subj', '/CN=z', '-out', join(folder, 'certificate')])
  })

  for (const source of SOURCES) {
    test(`source ${source}: 5 MB over HTTP/3 arrive whole`, async () => {
      await Promise.all(FAMILIES.map((family) => fetchFile(source, family)))
    })
  }

  async function fetchFile(source: (typeof SOURCES)[number], family: Family): Promise<void> {
    const { y, z } = ADDRESSES[family]
    const server = { address: z, port: PORTS.quic[source] }
    await started('gtlsserver', ['-q', '-d', pages, z, `${server.port}`, 'key', 'certificate'], server)
    const to = mkdtempSync(join(folder, 'quic-'))
    const url = `https://${formatEndpoint(server)}/file`
    await lab.y.run('gtlsclient', ['-q', '--exit-on-all-streams-close', `--download=${to}`, z, `${server.port}`, url])
    assert.equal(sha256(readFileSync(join(to, 'file'))), sha256(file))
    const [record] = await recordsOf(server)
    assert.ok(record!.bytesUpstreamToClient > file.length)
    assert.equal(record!.sourceAddr?.address, y)
    assert.equal(record!.datagrams!.dropped, 0)
  }
})

describe('dig', { skip: without('dig') }, () => {
  for (const family of FAMILIES) {
    test(`IPv${family}: an EDNS answer of 3.5 kB arrives in fragments; without EDNS it is asked for again over TCP`, async () => {
      const server = { address: ADDRESSES[family].z, port: PORTS.dns.client }
      await using _server = await nameServer(lab.z, server, 3_500)
      const ask = (...options: string[]) =>
        lab.y.run('dig', ['+tries=1', ...options, `@${server.address}`, 'large.example', 'TXT'])
      const large = await ask('+bufsize=4096', '+ignore')
      assert.match(large, /\(UDP\)/)
      assert.match(large, /MSG SIZE +rcvd: 3[5-9]\d\d/)
      const small = await ask('+noedns')
      assert.match(small, /Truncated, retrying in TCP mode/)
      assert.match(small, /\(TCP\)/)
      assert.match(small, /MSG SIZE +rcvd: 3[5-9]\d\d/)
      const records = await recordsOf(server, 3)
      assert.deepEqual(records.map(({ protocol }) => protocol).toSorted(), ['tcp', 'udp', 'udp'])
    })
  }
})

describe('chrony', { skip: without('chronyd') }, () => {
  test('asks for the time, each question from a port of its own, and gets it, with every source and family', async () => {
    const files = (name: string) => ['cmdport 0', `pidfile ${join(folder, name)}`]
    const own = ['-U', '-u', 'root', '-x', '-f', '/dev/null'] // no clock is touched
    const tryOne = async (source: (typeof SOURCES)[number], family: Family) => {
      const { y, z } = ADDRESSES[family]
      const port = PORTS.ntp[source]
      const asks = [`server ${z} port ${port} iburst maxsamples 4`, ...files(`asking-${source}-${family}`)]
      await lab.y.run('chronyd', ['-Q', ...own, '-t', '15', ...asks])
      for (const record of await recordsOf({ address: z, port }, 2)) {
        assert.equal(record.sourceAddr?.address, y)
        assert.deepEqual(record.datagrams, { clientToUpstream: 1, upstreamToClient: 1, dropped: 0 })
      }
    }
    for (const source of SOURCES) {
      const port = PORTS.ntp[source]
      const server = ['local stratum 5', 'allow', `port ${port}`, ...files(`serving-${source}`)]
      await started('chronyd', ['-d', ...own, ...server], { address: '0.0.0.0', port })
    }
    await Promise.all(SOURCES.flatMap((source) => FAMILIES.map((family) => tryOne(source, family))))
  })
})

describe('TFTP with curl, whose server answers from a port of its own', { skip: without('curl') }, () => {
  const file = Buffer.concat([...pattern(69, 1_000_000)])

  for (const family of FAMILIES) {
    test(`source client-port, IPv${family}: a file of 1 MB arrives whole`, async () => {
      const at = { address: ADDRESSES[family].z, port: PORTS.tftp['client-port'] }
      await using server = await TftpServer.open(lab.z, at, file)
      assert.equal(await fetchFile(at), sha256(file))
      const [asked] = await recordsOf(at)
      assert.deepEqual(server.clients, [asked!.client])
    })
  }

  for (const source of ['client', 'proxy'] as const) {
    test(`source ${source}: the answer goes to a port that is not the client's, and no file arrives`, async () => {
      const at = { address: ADDRESSES[4].z, port: PORTS.tftp[source] }
      await using server = await TftpServer.open(lab.z, at, file)
      await assert.rejects(fetchFile(at, 2), /curl/)
      assert.ok(server.clients.length > 0, 'the question arrives')
    })
  }

  test('source client-port, a listener for all ports: the answer begins a session of its own, and the file arrives', async () => {
    await limpid.stop()
    limpid = await start([{ source: 'client-port' }])
    for (const family of FAMILIES) {
      const { y, z } = ADDRESSES[family]
      const at = { address: z, port: PORTS.tftp['client-port'] }
      await using server = await TftpServer.open(lab.z, at, file)
      assert.equal(await fetchFile(at), sha256(file))
      await recordsOf({ address: y, port: server.clients[0]!.port })
    }
  })

  async function fetchFile(from: Endpoint, withinSeconds = 15): Promise<string> {
    const to = join(folder, 'fetched')
    await lab.y.run('curl', ['-sS', '-m', `${withinSeconds}`, '-o', to, `tftp://${formatEndpoint(from)}/file`])
    return sha256(readFileSync(to))
  }
})

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

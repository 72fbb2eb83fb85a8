import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { nameServer } from '../lab/dns.fixture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { TftpServer } from '../lab/tftp.fixture.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { pattern, sleep } from '../lab/traffic.fixture.ts'
import type { Family } from '../net/address.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { isInstalled } from '../sys/program.ts'

await enterNamespaces()

const FAMILIES: readonly Family[] = [4, 6]
const SOURCES = ['client', 'client-port'] as const
const folder = mkdtempSync(join(tmpdir(), 'limpid-programs-'))
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(async () => {
  await lab.close()
  rmSync(folder, { recursive: true })
})

/** Why a test is skipped; false when it is not. */
function without(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => !isInstalled(program))
  return missing.length === 0 ? false : `${missing.join(', ')} is not installed`
}

/** Limpid on X with listeners for tproxy; stopped at the end of the block. */
async function running(listeners: readonly object[]): Promise<AsyncDisposable & { readonly limpid: LimpidProcess }> {
  const file = join(folder, 'limpid.yaml')
  const defaults = { intercept: 'tproxy', protocols: 'udp', timeouts: { session: '1s' } }
  writeFileSync(file, JSON.stringify({ listeners: listeners.map((one) => ({ ...defaults, ...one })) }))
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
  return { limpid, [Symbol.asyncDispose]: async () => void (await limpid.stop()) }
}

/** Starts a server and waits until it has its UDP port. */
async function started(program: string, args: readonly string[], port: number): Promise<void> {
  lab.z.spawn(program, args, { stdio: 'ignore', cwd: folder })
  const deadlineAt = performance.now() + 5_000
  while (!(await lab.z.run('ss', ['-Hlnut'])).includes(`:${port} `)) {
    assert.ok(performance.now() < deadlineAt, `${program} does not listen on ${port}`)
    await sleep(20)
  }
}

async function recordsOf(limpid: LimpidProcess, count: number, wanted: (record: FlowRecord) => boolean) {
  await limpid.recorded(count)
  return limpid.records.filter(wanted)
}

describe('iperf3 over UDP', { skip: without('iperf3') }, () => {
  for (const source of SOURCES) {
    test(`source ${source}: none lost, none out of order, and each datagram is in the records`, async () => {
      await using run = await running([{ source, ports: [5_201, 5_202] }])
      await Promise.all(FAMILIES.map((family) => measure(family, run.limpid, source)))
      assert.deepEqual((await run.limpid.stats()).datagramsDropped, {})
    })
  }
})

const LENGTH = 1_200
const COUNT = 4_000

/** Both directions, one after the other: 80 Mbit/s, far below what fills a socket's buffer between two looks at it. */
async function measure(family: Family, limpid: LimpidProcess, source: string): Promise<void> {
  const { y, z } = ADDRESSES[family]
  const port = family === 4 ? 5_201 : 5_202
  await started('iperf3', ['-s', '-B', z, '-p', `${port}`], port)
  for (const direction of ['up', 'down'] as const) {
    const where = `${direction}, IPv${family}`
    const size = ['-l', `${LENGTH}`, '-n', `${LENGTH * COUNT}`, '-b', '80M']
    const way = direction === 'up' ? [] : ['-R']
    const report = JSON.parse(await lab.y.run('iperf3', ['-u', '-c', z, '-p', `${port}`, '-J', ...size, ...way]))
    const { packets, lost_packets, out_of_order } = report.end.streams[0].udp
    assert.equal(lost_packets, 0, `${where}: lost`)
    assert.equal(out_of_order, 0, `${where}: out of order`)
    assert.ok(packets >= COUNT, `${where}: ${packets} datagrams`)
    const bytes = direction === 'up' ? 'bytesClientToUpstream' : 'bytesUpstreamToClient'
    const isThis = (record: FlowRecord) => record.client.address === y && record[bytes] > LENGTH * COUNT
    while (!limpid.records.some(isThis)) await limpid.recorded(limpid.records.length + 1)
    const record = limpid.records.find(isThis)!
    // each side says one word first; the last datagrams of the sender may come after the receiver's sum
    const { clientToUpstream: up, upstreamToClient: down, dropped } = record.datagrams!
    const [many, one] = direction === 'up' ? [up, down] : [down, up]
    assert.equal(dropped, 0, where)
    assert.equal(one, 1, `${where}: greeting`)
    assert.equal(many, packets + 1, `${where}: in the record`)
    assert.equal(record.sourceAddr?.address, y)
    if (source === 'client-port') assert.equal(record.sourceAddr?.port, record.client.port)
  }
}

describe('TFTP with curl, whose server answers from a port of its own', { skip: without('curl') }, () => {
  const file = Buffer.concat([...pattern(69, 1_000_000)])

  for (const ports of ['[69]', 'any']) {
    for (const family of FAMILIES) {
      test(`source client-port, ports ${ports}, IPv${family}: a file of 1 MB arrives whole`, async () => {
        const { y, z } = ADDRESSES[family]
        await using server = await TftpServer.open(lab.z, { address: z, port: 69 }, file)
        await using run = await running([{ source: 'client-port', ...(ports === 'any' ? {} : { ports: [69] }) }])
        assert.equal(await fetchFile(family), sha256(file))
        const asked = (await recordsOf(run.limpid, 1, (record) => record.originalDst.port === 69))[0]!
        assert.deepEqual(server.clients, [asked.client])
        assert.equal(asked.client.address, y)
      })
    }
  }

  for (const source of ['client', 'proxy']) {
    test(`source ${source}: the answer goes to a port that is not the client's, and no file arrives`, async () => {
      await using server = await TftpServer.open(lab.z, { address: ADDRESSES[4].z, port: 69 }, file)
      await using _run = await running([{ source, ports: [69] }])
      await assert.rejects(fetchFile(4, 2), /curl/)
      assert.ok(server.clients.length > 0, 'the question arrives')
    })
  }

  async function fetchFile(family: Family, withinSeconds = 15): Promise<string> {
    const { z } = ADDRESSES[family]
    const to = join(folder, 'fetched')
    const host = family === 4 ? z : `[${z}]`
    await lab.y.run('curl', ['-sS', '-m', `${withinSeconds}`, '-o', to, `tftp://${host}/file`])
    return sha256(readFileSync(to))
  }
})

describe('QUIC with ngtcp2', { skip: without('gtlsserver', 'gtlsclient', 'openssl') }, () => {
  const file = Buffer.concat([...pattern(443, 5_000_000)])
  const pages = join(folder, 'pages')

  before(async () => {
    mkdirSync(pages)
    writeFileSync(join(pages, 'file'), file)
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', join(folder, 'key')]
    await lab.z.run('openssl', ['req', '-x509', ...key, '-subj', '/CN=z', '-out', join(folder, 'certificate')])
    for (const family of FAMILIES) {
      const { z } = ADDRESSES[family]
      await started('gtlsserver', ['-q', '-d', pages, z, `${443 + family}`, 'key', 'certificate'], 443 + family)
    }
  })

  for (const source of SOURCES) {
    for (const family of FAMILIES) {
      test(`source ${source}, IPv${family}: 5 MB over HTTP/3 arrive whole`, async () => {
        const { y, z } = ADDRESSES[family]
        await using run = await running([{ source, ports: [447, 449] }])
        const to = mkdtempSync(join(folder, 'quic-'))
        const port = `${443 + family}`
        const url = `https://${family === 4 ? z : `[${z}]`}:${port}/file`
        await lab.y.run('gtlsclient', ['-q', '--exit-on-all-streams-close', `--download=${to}`, z, port, url])
        assert.equal(sha256(readFileSync(join(to, 'file'))), sha256(file))
        const [record] = await recordsOf(run.limpid, 1, () => true)
        assert.ok(record!.bytesUpstreamToClient > file.length)
        assert.equal(record!.sourceAddr?.address, y)
        console.log(`QUIC, ${source}, IPv${family}: ${JSON.stringify(record!.datagrams)}`)
        assert.deepEqual((await run.limpid.stats()).datagramsDropped, {})
      })
    }
  }
})

describe('dig', { skip: without('dig') }, () => {
  const LONG = 3_500

  for (const family of FAMILIES) {
    test(`IPv${family}: an EDNS answer of 3.5 kB arrives in fragments; without EDNS it is asked for again over TCP`, async () => {
      const { z } = ADDRESSES[family]
      await using _server = await nameServer(lab.z, { address: z, port: 53 }, LONG)
      const timeouts = { query: '200ms', session: '200ms' }
      await using run = await running([{ source: 'client', ports: [53], protocols: ['udp', 'tcp'], timeouts }])
      const ask = (...options: string[]) => lab.y.run('dig', ['+tries=1', ...options, `@${z}`, 'large.example', 'TXT'])
      const large = await ask('+bufsize=4096', '+ignore')
      assert.match(large, /\(UDP\)/)
      assert.match(large, /MSG SIZE +rcvd: 3[5-9]\d\d/)
      const small = await ask('+noedns')
      assert.match(small, /Truncated, retrying in TCP mode/)
      assert.match(small, /\(TCP\)/)
      assert.match(small, /MSG SIZE +rcvd: 3[5-9]\d\d/)
      await run.limpid.recorded(3)
      assert.deepEqual(run.limpid.records.map(({ protocol }) => protocol).toSorted(), ['tcp', 'udp', 'udp'])
    })
  }
})

describe('chrony', { skip: without('chronyd') }, () => {
  for (const source of SOURCES) {
    test(`source ${source}: asks the time of Z, with a burst of four questions, and gets it`, async () => {
      const timeouts = { query: '500ms' }
      await using run = await running([{ source, ports: [123], timeouts }])
      const server = ['local stratum 5', 'allow', 'cmdport 0', `pidfile ${join(folder, 'chronyd')}`]
      await started('chronyd', ['-d', '-x', '-U', '-u', 'root', ...server], 123)
      for (const family of FAMILIES) {
        const { y, z } = ADDRESSES[family]
        const asks = [`server ${z} iburst maxsamples 4`, 'cmdport 0', `pidfile ${join(folder, 'asking')}`]
        await lab.y.run('chronyd', ['-Q', '-U', '-u', 'root', '-t', '15', ...asks])
        const [record] = await recordsOf(run.limpid, 1, ({ client }) => client.address === y)
        assert.equal(record!.sourceAddr?.address, y)
        assert.deepEqual(record!.datagrams, { clientToUpstream: 4, upstreamToClient: 4, dropped: 0 })
      }
    })
  }
})

afterEach(() => rmSync(join(folder, 'limpid.yaml'), { force: true }))

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { queryFor } from '../../inspect/dns.fixture.ts'
import { DatagramPeer } from '../../lab/datagram.fixture.ts'
import { LimpidProcess } from '../../lab/limpid-process.ts'
import { enterNamespaces } from '../../lab/namespace.ts'
import { ADDRESSES, raiseTopology } from '../../lab/topology.ts'
import { sleep } from '../../lab/traffic.fixture.ts'

await enterNamespaces()

const HEADERS_BYTES = 28 // IPv4 and UDP
const QUERIES = 5_000
const AT_ONCE = 50
const LARGE_BYTES = 512
const SERVER = { address: ADDRESSES[4].z, port: 53 }
const TEXTS = Array.from({ length: 5 }, () => 'x'.repeat(200)).join(', ')
const DNS = `{ rules: [{ names: large.example, then: answer, answers: { txt: [${TEXTS}] } }] }`

/** Datagrams, and their bytes with headers. */
function weigh(datagrams: readonly Uint8Array[]): { readonly count: number; readonly bytes: number } {
  return {
    count: datagrams.length,
    bytes: datagrams.reduce((sum, { length }) => sum + length + HEADERS_BYTES, 0),
  }
}

test('T16: a forged source gets few large answers of our own, nothing that strangers send, and nothing without a query', async () => {
  const lab = await raiseTopology()
  writeFileSync(
    '/run/t16.yaml',
    `listeners:
  - { name: dns, protocols: udp, ports: 53, source: client, family: 4, dns: ${DNS} }
  - { name: relay, protocols: udp, ports: 5300, source: proxy, family: 4 }\n`,
  )
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', '/run/t16.yaml'])
  try {
    await lab.z.run('ip', ['address', 'add', '10.0.4.3/24', 'dev', 'z-x'])
    // whoever forges its address: what is in its name is what it would not have sent
    await using victim = await DatagramPeer.open(lab.y, { address: ADDRESSES[4].y, port: 0 })
    const query = queryFor('large.example', { type: 'TXT', udpBytes: 4096 })
    const startedAt = performance.now()
    for (let sent = 0; sent < QUERIES; sent += AT_ONCE) {
      for (let i = 0; i < AT_ONCE; i++) victim.send(query, SERVER)
      assert.ok(await victim.hears(sent + AT_ONCE), `${victim.heard.length} answers`)
    }
    const seconds = Math.ceil((performance.now() - startedAt) / 1_000)
    const answers = victim.heard.splice(0).map(({ bytes }) => bytes)
    const large = answers.filter(({ length }) => length > LARGE_BYTES)
    const { bytes: out } = weigh(answers)
    const into = QUERIES * (query.length + HEADERS_BYTES)
    console.log(
      `T16: ${QUERIES} queries of ${query.length} B: ${large.length} large answers, bytes out/in ${(out / into).toFixed(2)}`,
    )
    assert.ok(large.length >= 200 && large.length <= 200 + 100 * (seconds + 1), `${large.length} in ${seconds} s`)
    assert.ok(answers.every(({ length }) => length <= 1232))
    assert.ok(
      answers.every(({ length }) => length > LARGE_BYTES || length <= query.length),
      'not more out than in',
    )
    assert.equal((await limpid.stats()).apps.dns?.limited, QUERIES - large.length)

    for (const port of [SERVER.port, 5_300]) {
      await using server = await DatagramPeer.open(lab.z, { ...SERVER, port })
      victim.skip()
      victim.send(port === 53 ? queryFor('a.example') : 'hello', server.address)
      const { from } = (await server.next())!
      await using stranger = await DatagramPeer.open(lab.z, { address: '10.0.4.3', port })
      await using samePort = await DatagramPeer.open(lab.z, { ...SERVER, port: 5_301 })
      for (let i = 0; i < 100; i++) for (const peer of [stranger, samePort]) peer.send(Buffer.alloc(1_200), from)
      if (port === 53) for (let i = 0; i < 100; i++) server.send(Buffer.alloc(1_200, 0xff), from)
      await sleep(100)
      assert.deepEqual(victim.heard, [], `port ${port}`)
    }
    assert.equal((await limpid.stats()).datagramsUpstreamToClient, 0)
  } finally {
    assert.equal(await limpid.stop(), 0, limpid.stderr)
    await lab.close()
  }
})

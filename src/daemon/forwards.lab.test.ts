import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { patternHash, receiveAll, sendPattern, serve, until } from '../lab/traffic.fixture.ts'
import type { Family } from '../net/address.ts'

await enterNamespaces()

const BYTES = 300_000
let lab: Topology

before(async () => {
  lab = await raiseTopology()
})

after(() => lab.close())

function config(backend: string, source: string): string {
  const path = `/run/forwards-${backend}-${source}.yaml`
  const forwards = ([4, 6] as const).map(
    (family) =>
      `  - { name: web${family}, ports: 8080, to: "${to(family)}", source: ${source}, interfaces: x-y, health: 300ms }`,
  )
  writeFileSync(path, `forwards:\n${forwards.join('\n')}\nrules: { backend: ${backend} }\n`)
  return path
}

function to(family: Family): string {
  return family === 4 ? `${ADDRESSES[4].z}:80` : `[${ADDRESSES[6].z}]:80`
}

for (const backend of ['nft', 'iptables']) {
  for (const source of ['client', 'proxy'] as const) {
    test(`R1: ${backend} passes a port on to another host; Y sees X, Z sees ${source === 'client' ? 'Y' : 'X'}, and the bytes are whole`, async () => {
      const limpid = await LimpidProcess.start(lab.x, ['run', '-c', config(backend, source)])
      for (const family of [4, 6] as const) {
        const { y, xy, xz, z } = ADDRESSES[family]
        await using server = await serve(lab.z, { address: z, port: 80 }, (socket) => socket.pipe(socket))
        const client = lab.y.connect({ address: xy, port: 8080 })
        const received = receiveAll(client)
        await sendPattern(client, 7, BYTES)
        client.end()
        assert.deepEqual(await received, { bytes: BYTES, sha256: patternHash(7, BYTES), failure: undefined })
        assert.equal(client.remoteAddress ?? xy, xy)
        const seen = server.peers.filter(({ address }) => address === (source === 'client' ? y : xz))
        assert.ok(seen.length > 0, JSON.stringify(server.peers))
        // nothing else is taken: the same port of Z itself, and another port of X
        const direct = receiveAll(lab.y.connect({ address: xy, port: 8081 }))
        assert.equal((await direct).failure, 'ECONNREFUSED')
      }
      assert.equal(await limpid.stop(), 0, limpid.stderr)
      for (const family of [4, 6]) {
        const [, up = ''] =
          new RegExp(`forward web${family}: 1 flow(?:, (\\d+) bytes up, \\d+ bytes down)?`).exec(limpid.stderr) ?? []
        assert.ok(backend === 'iptables' || Number(up) > BYTES, limpid.stderr)
      }
      assert.doesNotMatch(await lab.x.run('nft', ['list', 'ruleset']), /limpid/)
      assert.equal(limpid.records.length, 0, 'no byte came to Limpid')
    })
  }
}

test('the health of a forward is told when it changes: a server that stops answering, and answers again', async () => {
  const limpid = await LimpidProcess.start(lab.x, ['run', '-c', config('nft', 'client')])
  await until(() => limpid.stderr.includes('forward web4: 10.0.4.2:80 does not answer'), 'word of the dead server')
  const server = await serve(lab.z, { address: ADDRESSES[4].z, port: 80 }, (socket) => socket.end())
  await until(() => limpid.stderr.includes('forward web4: 10.0.4.2:80 answers again'), 'word of the server')
  await server[Symbol.asyncDispose]()
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  assert.equal(limpid.stderr.match(/web4: .* does not answer/g)?.length, 1, limpid.stderr)
})

test('while the host does not forward, a forward is refused in one sentence that says what to do', async () => {
  lab.x.setSysctls({ 'net.ipv4.ip_forward': '0' })
  try {
    const limpid = LimpidProcess.launch(lab.x, ['run', '-c', config('nft', 'client')])
    assert.equal(await limpid.exited, 1)
    assert.match(
      limpid.stderr,
      /LIMPID_FORWARDING: forward web4: this host does not forward .*sysctl -w net\.ipv4\.ip_forward=1/s,
    )
  } finally {
    lab.x.setSysctls({ 'net.ipv4.ip_forward': '1' })
  }
})

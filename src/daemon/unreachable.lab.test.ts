import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { DatagramPeer } from '../lab/datagram.fixture.ts'
import { type Frame, FrameCapture } from '../lab/frame-capture.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { receiveAll, sleep, until } from '../lab/traffic.fixture.ts'
import type { Family } from '../net/address.ts'

await enterNamespaces()

/** Administratively prohibited: RFC 1812 §5.2.7.1, RFC 4443 §3.1. */
const PROHIBITED = { 4: [3, 13], 6: [1, 1] } as const
/** What Linux makes of it for a connected UDP socket (icmp_err_convert[], tab_unreach[]). */
const ERRNO = { 4: 'EHOSTUNREACH', 6: 'EACCES' } as const
const TPROXY = 81
const REDIRECT = 82
const folder = mkdtempSync(join(tmpdir(), 'limpid-unreachable-'))
let lab: Topology
let limpid: LimpidProcess
let heard: FrameCapture

before(async () => {
  lab = await raiseTopology()
  heard = new FrameCapture(lab.y)
  const file = join(folder, 'limpid.yaml')
  writeFileSync(
    file,
    `listeners:
  - { name: tproxy, ports: ${TPROXY}, protocols: [tcp, udp] }
  - { name: redirect, ports: ${REDIRECT}, protocols: [tcp, udp], intercept: redirect }
policy: { rules: [{ name: no, then: reject, by: unreachable }] }
`,
  )
  limpid = await LimpidProcess.start(lab.x, ['run', '-c', file])
})

after(async () => {
  assert.equal(await limpid.stop(), 0, limpid.stderr)
  heard[Symbol.dispose]()
  await lab.close()
  rmSync(folder, { recursive: true })
})

function errorAbout(port: number): Frame | undefined {
  return heard.frames().find(({ quoted }) => quoted?.sourcePort === port)
}

for (const family of [4, 6] as const satisfies readonly Family[]) {
  const { y, z } = ADDRESSES[family]
  for (const [mode, destinationPort] of [['tproxy', TPROXY] as const, ['redirect', REDIRECT] as const]) {
    const ends = { source: y, destination: z, destinationPort }

    test(`by unreachable: a UDP client hears that it is prohibited; ${mode}, IPv${family}`, async () => {
      await using client = await DatagramPeer.open(
        lab.y,
        { address: y, port: 0 },
        { address: z, port: destinationPort },
      )
      client.send('asked')
      await until(() => client.errors.length > 0, 'an error')
      assert.deepEqual(client.errors, [ERRNO[family]])
      const sourcePort = client.address.port
      await until(() => errorAbout(sourcePort) !== undefined, 'an ICMP message')
      const { source, icmpType, icmpCode, quoted } = errorAbout(sourcePort)!
      assert.deepEqual([source, icmpType, icmpCode], [z, ...PROHIBITED[family]])
      assert.deepEqual({ ...quoted, sequence: 0 }, { ...ends, protocol: 'udp', sourcePort, sequence: 0 })
    })

    test(`by unreachable: a TCP client hears it too, and its connection is reset; ${mode}, IPv${family}`, async () => {
      const before = outOfWindow()
      const sourcePort = destinationPort * 100 + family
      const client = lab.y.connect({ address: z, port: destinationPort }, { from: { address: y, port: sourcePort } })
      assert.equal((await receiveAll(client)).failure, 'ECONNRESET')
      await until(() => errorAbout(sourcePort) !== undefined, 'an ICMP message')
      const { source, icmpType, icmpCode, quoted } = errorAbout(sourcePort)!
      assert.deepEqual([source, icmpType, icmpCode], [z, ...PROHIBITED[family]])
      const { sequence, ...rest } = quoted!
      assert.deepEqual(rest, { ...ends, protocol: 'tcp', sourcePort })
      assert.notEqual(sequence, 0, 'of the client’s own segment')
      await sleep(20)
      assert.equal(outOfWindow(), before, 'the client takes it for one about its connection')
      assert.equal((await limpid.nextRecord()).reason, 'policy')
    })
  }
}

/** ICMP messages that Y ignored, since the segment that they quote is none of its own. */
function outOfWindow(): number {
  const text = lab.y.inside(() => readFileSync('/proc/thread-self/net/netstat', 'latin1'))
  const [names, values] = text.split('\n').filter((line) => line.startsWith('TcpExt:'))
  return Number(values!.split(' ')[names!.split(' ').indexOf('OutOfWindowIcmps')])
}

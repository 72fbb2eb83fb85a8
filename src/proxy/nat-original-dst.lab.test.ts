import assert from 'node:assert/strict'
import { test } from 'node:test'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology } from '../lab/topology.ts'
import { listenTcp } from './listen-tcp.ts'

await enterNamespaces()

const REDIRECT = `table inet redirected {
  chain pre { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :8081
  }
}
`

test('after REDIRECT the original destination is known from conntrack, IPv4 and IPv6 (R2)', async () => {
  const lab = await raiseTopology()
  await lab.x.run('nft', ['-f', '-'], { input: REDIRECT })
  for (const family of [4, 6] as const) {
    const { xy, z } = ADDRESSES[family]
    const listener = await lab.x.inside(() => listenTcp({ address: family === 4 ? '0.0.0.0' : '::', port: 8081 }))
    const accepted = listener[Symbol.asyncIterator]()
    const client = lab.y.connect({ address: z, port: 80 })
    const { value: socket } = await accepted.next()
    assert.deepEqual(socket!.natOriginalDst(), { address: z, port: 80 })
    assert.deepEqual(socket!.localAddr, { address: xy, port: 8081 })
    socket!.close()
    client.destroy()
    const direct = lab.y.connect({ address: xy, port: 8081 })
    const { value: plain } = await accepted.next()
    // conntrack knows this one too, as not rewritten
    assert.deepEqual(plain!.natOriginalDst(), { address: xy, port: 8081 })
    plain!.close()
    direct.destroy()
    listener.close()
  }
  await lab.close()
})

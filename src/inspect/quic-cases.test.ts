import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  crypto,
  FOUND,
  OTHER_DCID,
  OTHER_HELLO,
  RFC_DCID,
  RFC_HELLO,
  type SealOptions,
  said,
  sealed,
  V2,
} from './quic.fixture.ts'
import { MAX_CRYPTO_BYTES } from './quic-crypto-stream.ts'
import { MAX_DATAGRAMS } from './quic-initial.ts'

const close = Buffer.from([0x1c, 0, 0, 0])
const DECIDED: readonly (readonly [what: string, frames: Uint8Array, options: SealOptions, answer: string])[] = [
  [
    'acknowledgements with ranges and ECN counts',
    Buffer.concat([Buffer.from([3, 9, 0, 1, 0, 0, 1, 1, 2, 3]), crypto(RFC_HELLO)]),
    {},
    FOUND,
  ],
  ['a packet number of four bytes', crypto(RFC_HELLO), { number: 0x7fff_fff0, numberBytes: 4 }, FOUND],
  ['a cleared fixed bit, which some servers do not mind', crypto(RFC_HELLO), { fixedBit: 0, token: OTHER_DCID }, FOUND],
  ['a long token', crypto(RFC_HELLO), { token: Buffer.alloc(500) }, FOUND],
  ['a connection id of 20 bytes', crypto(RFC_HELLO), { dcid: Buffer.alloc(20, 7) }, FOUND],
  ['a connection id of 21 bytes', crypto(RFC_HELLO), { dcid: Buffer.alloc(21, 7) }, 'no'],
  [
    'a first connection id of 7 bytes',
    crypto(RFC_HELLO),
    { dcid: Buffer.alloc(7) },
    'a first connection id of less than 8 bytes',
  ],
  [
    'no connection id',
    crypto(RFC_HELLO),
    { dcid: Buffer.alloc(0), token: OTHER_DCID },
    'a first connection id of less than 8 bytes',
  ],
  ['a datagram of 1199 bytes', crypto(RFC_HELLO), { size: 1199 }, 'an Initial in a datagram of 1199 bytes'],
  ['keys of another connection', crypto(RFC_HELLO), { keysOf: OTHER_DCID }, 'no'],
  ['keys of the other version', crypto(RFC_HELLO), { keyVersion: V2 }, 'no'],
  ['reserved bits', crypto(RFC_HELLO), { reserved: 4 }, 'reserved bits of the header are set'],
  ['a STREAM frame', Buffer.from([8, 0, 1]), {}, 'a frame of type 8 in an Initial'],
  ['the close of an application', Buffer.from([0x1d, 0, 0]), {}, 'a frame of type 29 in an Initial'],
  ['a type in two bytes', Buffer.from([0x40, 6, 0, 0]), {}, 'a frame of type 64 in an Initial'],
  ['a CRYPTO frame cut off', Buffer.concat([Buffer.from([6, 0, 0x47, 0xff])]), {}, 'a frame cut off'],
  ['more acknowledged ranges than bytes', Buffer.from([2, 0, 0, 0x7f, 0xff, 0]), {}, 'a frame cut off'],
  ['the end of a connection without a hello', close, {}, 'closed before its ClientHello'],
  ['a server’s hello', crypto(Buffer.from([2, 0, 0, 1, 0])), {}, 'handshake message 2 before the ClientHello'],
  ['a hello longer than any', crypto(Buffer.from([1, 0, 0x80, 0])), {}, 'a ClientHello up to byte 32772'],
  ['CRYPTO data far away', crypto(Buffer.from([1]), MAX_CRYPTO_BYTES), {}, 'CRYPTO data up to byte 16385'],
  [
    'CRYPTO data at 2^62 - 1',
    Buffer.from([6, ...new Array(8).fill(0xff), 1, 0]),
    {},
    'CRYPTO data up to byte 4611686018427388000',
  ],
  [
    'frames that contradict each other',
    Buffer.concat([crypto(RFC_HELLO.subarray(0, 100)), crypto(OTHER_HELLO)]),
    {},
    'CRYPTO frames that contradict each other',
  ],
  [
    'a second hello for another server',
    crypto(Buffer.concat([RFC_HELLO, OTHER_HELLO])),
    {},
    'a second ClientHello that asks for something else',
  ],
  ['a second hello for the same server', crypto(Buffer.concat([RFC_HELLO, RFC_HELLO])), {}, FOUND],
  ['three hellos', crypto(Buffer.concat([RFC_HELLO, RFC_HELLO, RFC_HELLO])), {}, 'more than 2 ClientHellos'],
  [
    'another message behind the hello',
    crypto(Buffer.concat([RFC_HELLO, Buffer.from([20])])),
    {},
    'handshake message 20 before the ClientHello',
  ],
]

for (const [what, frames, options, answer] of DECIDED) {
  test(`${what}: ${answer}`, () => assert.deepEqual(said(sealed(frames, options)), [answer]))
}

test('a datagram with the Initials of two connections, or with too many packets, is refused', () => {
  const small = sealed(crypto(RFC_HELLO), { size: 0 })
  const other = sealed(crypto(OTHER_HELLO), { dcid: OTHER_DCID, size: 1000 })
  assert.deepEqual(said(Buffer.concat([small, other])), ['packets of two connections in a datagram'])
  const ping = sealed(Buffer.from([1, 1, 1, 1]), { size: 0 })
  assert.deepEqual(said(Buffer.concat([...new Array(8).fill(ping), sealed(crypto(RFC_HELLO))])), [
    'more than 8 packets in a datagram',
  ])
})

test('a packet without frames is refused', () => {
  const empty = sealed(Buffer.alloc(0), { size: 0, numberBytes: 4 })
  assert.deepEqual(said(Buffer.concat([empty, sealed(crypto(RFC_HELLO), { number: 1 })])), ['a packet without frames'])
})

test('padding behind the packets of a datagram is passed over', () => {
  const small = sealed(crypto(RFC_HELLO), { size: 0 })
  assert.deepEqual(said(Buffer.concat([small, Buffer.alloc(1200 - small.length)])), [FOUND])
})

test('after the hello, packets to the id that the server chose are of the same connection, in either version', () => {
  const toServer = { dcid: OTHER_DCID, keysOf: RFC_DCID, number: 1 }
  const ack = Buffer.from([2, 0, 0, 0, 0])
  assert.deepEqual(
    said(
      sealed(crypto(RFC_HELLO)),
      sealed(ack, toServer),
      sealed(ack, { ...toServer, version: V2 }),
      sealed(ack, { ...toServer, size: 60 }),
      sealed(close, toServer),
    ),
    [FOUND, FOUND, FOUND, FOUND, FOUND],
  )
  assert.deepEqual(
    said(sealed(crypto(RFC_HELLO)), sealed(crypto(OTHER_HELLO), toServer)).at(-1),
    'CRYPTO frames that contradict each other',
    'a server that lost the first datagram would read this one',
  )
})

test('another connection in the same session is read anew, and its name is told', () => {
  const [half, rest] = [OTHER_HELLO.subarray(0, 99), OTHER_HELLO.subarray(99)]
  const dcid = OTHER_DCID
  assert.deepEqual(
    said(sealed(crypto(RFC_HELLO)), sealed(crypto(half), { dcid }), sealed(crypto(rest, 99), { dcid, number: 1 })),
    [FOUND, 'more 241', '1 another.com'],
  )
  assert.deepEqual(
    said(sealed(crypto(RFC_HELLO)), sealed(crypto(OTHER_HELLO), { dcid: Buffer.alloc(4) })).at(-1),
    'a first connection id of less than 8 bytes',
  )
})

test('a hello in another version with the same id is that of another connection', () => {
  const datagrams = [sealed(crypto(RFC_HELLO), { version: V2 }), sealed(crypto(OTHER_HELLO))]
  assert.deepEqual(said(...datagrams), ['6b3343cf example.com', '1 another.com'])
})

test('what no key opens does not count, but not for ever', () => {
  const locked = sealed(crypto(OTHER_HELLO), { keysOf: OTHER_DCID })
  assert.deepEqual(said(locked, sealed(crypto(RFC_HELLO)), locked), ['no', FOUND, FOUND])
  const refused = `no ClientHello in ${MAX_DATAGRAMS} datagrams`
  assert.deepEqual(said(...new Array(MAX_DATAGRAMS + 1).fill(locked)).at(-1), refused)
  const half = sealed(crypto(RFC_HELLO.subarray(0, 50)))
  assert.deepEqual(said(half, ...new Array(MAX_DATAGRAMS).fill(Buffer.from('garbage'))).at(-1), refused)
  assert.deepEqual(said(...new Array(MAX_DATAGRAMS + 1).fill(half)).at(-1), refused)
  assert.deepEqual(
    said(...new Array(100).fill(sealed(crypto(RFC_HELLO)))).at(-1),
    FOUND,
    'repeated for want of an answer',
  )
})

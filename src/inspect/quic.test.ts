import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { outcomeOf } from './fuzz.fixture.ts'
import {
  crypto,
  FOUND,
  framesOf,
  hex,
  integer,
  inWords,
  RFC_DCID,
  RFC_HELLO,
  said,
  sealed,
  subject,
  V1,
  V2,
} from './quic.fixture.ts'
import * as captures from './quic-captures.fixture.ts'
import { CryptoStream, MAX_CRYPTO_BYTES } from './quic-crypto-stream.ts'
import { readInitialFrames } from './quic-frames.ts'
import { looksLikeQuicInitial, QuicHello } from './quic-initial.ts'
import { clientInitialKeys } from './quic-keys.ts'

test('keys of both versions are those of RFC 9001 appendix A.1 and RFC 9369 appendix A.1', () => {
  const texts = (version: typeof V1) => Object.values(clientInitialKeys(version, RFC_DCID)).map(hex)
  assert.deepEqual(texts(V1), [
    '1f369613dd76d5467730efcbe3b1a22d',
    'fa044b2f42a3fd3b46fb255c',
    '9f50449e04a0e810283a1e9933adedd2',
  ])
  assert.deepEqual(texts(V2), [
    '8b1a0bc121284290a29e0971b5cd045d',
    '91f73e2351d8fa91660e909f',
    '45b95e15235d6f45a6b19cbcb0294ba9',
  ])
})

test('the client Initials of RFC 9001 appendix A.2 and RFC 9369 appendix A.2 are read', () => {
  const options = { number: 2, numberBytes: 4 } as const
  const one = sealed(crypto(RFC_HELLO), { ...options, version: V1 })
  // that these are the packets of the RFCs: their first line, and their last or one from their middle
  assert.match(
    hex(one),
    /^c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11.*e221af44860018ab0856972e194cd934$/,
  )
  const two = sealed(crypto(RFC_HELLO), { ...options, version: V2 })
  assert.match(
    hex(two),
    /^d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485.*10d3f270121b493ce85054ef58bada42/,
  )
  for (const [datagram, version] of [
    [one, 1],
    [two, 0x6b33_43cf],
  ] as const) {
    const answer = new QuicHello().add(datagram)
    assert.ok(answer.kind === 'match')
    const { protocol, serverName, alpn, ja4 } = answer.finding
    assert.deepEqual([protocol, answer.finding.version, serverName, alpn], ['quic', version, 'example.com', ['alpn']])
    assert.match(ja4!, /^q13d0211an_[0-9a-f]{12}_[0-9a-f]{12}$/)
  }
})

test('what Chromium and ngtcp2 send is read, in version 1 and 2, and their hello is the same when it is repeated', () => {
  assert.deepEqual(said(...captures.CHROMIUM), ['more 1987', '1 www.example.org'])
  assert.deepEqual(said(...[...captures.CHROMIUM].reverse()).at(-1), '1 www.example.org')
  assert.deepEqual(said(...captures.CHROMIUM_V2), ['more 1922', '6b3343cf www.example.org'])
  const hello = new QuicHello()
  const [first, second] = captures.NGTCP2.map((datagram) => hello.add(datagram))
  assert.equal(first!.kind === 'match' && first!.finding.ja4, 'q13d0415h3_9caa18292e23_84684a673e38')
  assert.equal(first, second)
})

test('datagrams may come in one buffer, the next over the one before', () => {
  const slot = Buffer.alloc(1250)
  const hello = new QuicHello()
  const answers = [...captures.CHROMIUM, ...captures.CHROMIUM].map((datagram) => {
    slot.set(datagram)
    const answer = inWords(hello.add(slot))
    slot.fill(0xff)
    return answer
  })
  const found = '1 www.example.org'
  assert.deepEqual(answers, ['more 1987', found, found, found])
})

test('Chromium cuts its hello into pieces and sends them in no order', () => {
  const offsets: number[] = []
  const frames = { crypto: (offset: number) => void offsets.push(offset), closed() {} }
  for (const datagram of captures.CHROMIUM) assert.equal(readInitialFrames(framesOf(datagram), frames), undefined)
  assert.ok(offsets.length > 4, `${offsets}`)
  assert.notDeepEqual(
    offsets,
    [...offsets].sort((one, other) => one - other),
  )
})

test('after a Retry the hello is read with the keys of the id that the server gave', () => {
  assert.deepEqual(said(...captures.CHROMIUM_RETRIED), [
    'more 1912',
    '1 www.example.org',
    'more 1912',
    '1 www.example.org',
  ])
  assert.deepEqual(said(...captures.NGTCP2_RETRIED), ['1 localhost', '1 localhost'])
})

test('a version that nobody here can read is told, and what follows a Version Negotiation is read', () => {
  assert.deepEqual(said(...captures.NGTCP2_NEGOTIATED), ['1a2a3a4a undefined', '1 localhost'])
  const unknown = Buffer.from(captures.NGTCP2_NEGOTIATED[0]!)
  assert.deepEqual(said(unknown.subarray(0, 1199)), ['no'], 'a server drops it: RFC 9000 §14.1')
  unknown.writeUInt32BE(0, 1)
  assert.deepEqual(said(unknown), ['no'], 'Version Negotiation, by a client')
  unknown.writeUInt32BE(0xff00_001d, 1)
  assert.deepEqual(said(unknown, Buffer.from([1, 2, 3])), ['ff00001d undefined', 'ff00001d undefined'])
})

test('0-RTT beside the Initial is passed over, and a 0-RTT packet that overtakes it is waited with', () => {
  assert.deepEqual(said(...captures.NGTCP2_RESUMED), ['1 localhost', '1 localhost'])
  const early = sealed(Buffer.from('early data'), { type: 'zeroRtt', size: 100 })
  const initial = sealed(crypto(RFC_HELLO), { size: 1100 })
  assert.deepEqual(said(Buffer.concat([early, initial])), [FOUND])
  assert.deepEqual(said(early, initial, sealed(crypto(RFC_HELLO))), [
    'more 4',
    'an Initial in a datagram of 1100 bytes',
    'an Initial in a datagram of 1100 bytes',
  ])
  assert.deepEqual(said(early, sealed(crypto(RFC_HELLO))), ['more 4', FOUND])
  assert.deepEqual(said(sealed(Buffer.from('x'), { type: 'handshake' })), ['no'])
})

interface Piece {
  readonly from: number
  readonly to: number
}

/** Pieces of the hello that cover it, some of them twice, in any order. */
const pieces: fc.Arbitrary<readonly Piece[]> = fc
  .tuple(
    fc.uniqueArray(fc.integer({ min: 1, max: RFC_HELLO.length - 1 }), { maxLength: 30 }),
    fc.array(fc.tuple(fc.nat(RFC_HELLO.length), fc.nat(RFC_HELLO.length)), { maxLength: 10 }),
  )
  .map(([cuts, more]) => {
    const edges = [0, ...cuts.sort((a, b) => a - b), RFC_HELLO.length]
    const cover = edges.slice(1).map((to, i) => ({ from: edges[i]!, to }))
    return [...cover, ...more.map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) }))]
  })
  .chain((all) => fc.shuffledSubarray([...all], { minLength: all.length }))

test('however the hello is cut, doubled, shuffled and packed, it is found, and the datagrams stay as they were', () => {
  const whole = new QuicHello().add(sealed(crypto(RFC_HELLO)))
  assert.ok(whole.kind === 'match')
  fc.assert(
    fc.property(pieces, fc.array(fc.nat(3), { minLength: 1 }), fc.constantFrom(V1, V2), (order, places, version) => {
      const packets: Buffer[][] = [[], [], [], []]
      order.forEach(({ from, to }, i) => {
        packets[places[i % places.length]!]!.push(crypto(RFC_HELLO.subarray(from, to), from), Buffer.from([i & 1]))
      })
      const [a, b, c, d] = packets.map((frames, number) => {
        const size = number < 2 ? 0 : 1200
        return frames.length === 0 ? Buffer.alloc(0) : sealed(Buffer.concat(frames), { number, size, version })
      })
      const datagrams = [Buffer.concat([a!, b!, c!]), Buffer.concat([d!])].filter((one) => one.length >= 1200)
      const rest = c!.length === 0 ? Buffer.concat([a!, b!]) : Buffer.alloc(0)
      if (rest.length > 0) datagrams.push(Buffer.concat([rest, sealed(Buffer.from([1]), { number: 9, version })]))
      const before = datagrams.map(hex)
      const hello = new QuicHello()
      const answers = datagrams.map((datagram) => hello.add(datagram))
      assert.deepEqual(datagrams.map(hex), before)
      const last = answers.at(-1)!
      assert.ok(last.kind === 'match', inWords(last))
      assert.deepEqual({ ...last.finding, version: 1 }, { ...whole.finding })
      assert.ok(answers.slice(0, -1).every(({ kind }) => kind === 'more' || kind === 'match'))
    }),
  )
})

test('an Initial is told by its headers, wherever it is in the datagram', () => {
  for (const datagram of [...captures.CHROMIUM, ...captures.CHROMIUM_V2])
    assert.equal(looksLikeQuicInitial(datagram), true)
  const early = sealed(Buffer.from('early data'), { type: 'zeroRtt', size: 100 })
  assert.equal(looksLikeQuicInitial(early), false)
  assert.equal(looksLikeQuicInitial(Buffer.concat([early, sealed(crypto(RFC_HELLO))])), true)
  for (const bytes of [
    [],
    [0xc0],
    [0xc0, 0, 0, 0, 1],
    [0x40, 0, 0, 0, 1, 0, 0, 0, 0],
    [0xc0, 0, 0, 0, 2, 0, 0, 0, 0],
  ]) {
    assert.equal(looksLikeQuicInitial(Uint8Array.from(bytes)), false)
  }
})

test('CRYPTO data is held up to a bound, in a bounded number of pieces', () => {
  const stream = new CryptoStream()
  assert.equal(stream.add(MAX_CRYPTO_BYTES - 1, Buffer.from([1])), undefined)
  for (let at = 1; at < 255; at += 2) assert.equal(stream.add(at, Buffer.from([at])), undefined)
  assert.equal(stream.add(1000, Buffer.from([1])), 'CRYPTO data in more than 128 pieces')
})

test('frames without data are passed over, up to a number', () => {
  const frames = (count: number) => Buffer.concat(new Array(count).fill(Buffer.from([6, 0, 0, 1, 0])))
  assert.deepEqual(said(sealed(frames(512))), ['more 4'])
  assert.deepEqual(said(sealed(frames(513))), ['more than 512 frames in a packet'])
})

test('integers of every length are read', () => {
  const hello = crypto(RFC_HELLO).subarray(4)
  for (const bytes of [1, 2, 4, 8] as const) {
    const frame = Buffer.concat([
      Buffer.from([6]),
      integer(0, bytes),
      integer(RFC_HELLO.length, Math.max(2, bytes)),
      hello,
    ])
    assert.deepEqual(said(sealed(frame)), [FOUND])
  }
})

test('whatever the datagram, nothing is thrown, and mutated ones are told as what they are', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1500 }), (bytes) => void outcomeOf(subject, bytes)))
  const seen = new Set<string>()
  fc.assert(
    fc.property(
      fc.constantFrom(...subject.samples),
      fc.array(fc.tuple(fc.nat(1500), fc.nat(255)), { maxLength: 4 }),
      fc.nat(1500),
      (sample, changes, end) => {
        const bytes = Uint8Array.from(sample.subarray(0, end < 300 ? end : undefined))
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        seen.add(outcomeOf(subject, bytes).split(', ')[0]!)
      },
    ),
    { numRuns: 2000 },
  )
  assert.deepEqual([...seen].sort(), ['malformed', 'match', 'more', 'no'])
})

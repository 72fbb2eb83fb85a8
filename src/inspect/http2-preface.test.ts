import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type OutgoingHttpHeaders } from 'node:http2'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { outcomeOf } from './fuzz.fixture.ts'
import { firstFields } from './hpack.ts'
import { huffmanText } from './hpack-huffman.ts'
import { CAPTURED, connection, frame, fromHex, subject } from './http2-preface.fixture.ts'
import { type Http2Head, probeHttp2 } from './http2-preface.ts'

function matched(bytes: Uint8Array): Http2Head {
  const answer = probeHttp2(bytes)
  assert.equal(answer.kind, 'match', JSON.stringify(answer))
  return (answer as { finding: Http2Head }).finding
}

function why(bytes: Uint8Array): string {
  const answer = probeHttp2(bytes)
  return answer.kind === 'malformed' ? answer.why : answer.kind
}

/** A block of literals that are not indexed, RFC 7541 §6.2.2. */
function literals(...fields: readonly (readonly [string, string])[]): Uint8Array {
  const text = (value: string): Uint8Array[] => [Uint8Array.of(value.length), Buffer.from(value, 'latin1')]
  return Buffer.concat(fields.flatMap(([name, value]) => [Uint8Array.of(0), ...text(name), ...text(value)]))
}

const REQUEST = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/x?y'],
] as const
const AUTHORITY = [':authority', 'A.example.:8080'] as const
const headers = (...fields: readonly (readonly [string, string])[]): Uint8Array =>
  connection(frame(1, 5, 1, literals(...fields)))

test('what real clients send is read', () => {
  assert.deepEqual(matched(CAPTURED.curl), {
    ...{ protocol: 'http2', method: 'GET', target: '/a?b=c', path: '/a', host: 'www.example.org' },
    ...{ address: undefined, port: matched(CAPTURED.curl).port },
  })
  assert.deepEqual(matched(CAPTURED.node), {
    ...{ protocol: 'http2', method: 'GET', target: '/n', path: '/n', host: 'www.example.org' },
    ...{ address: undefined, port: undefined },
  })
})

test('every prefix asks for more, and what follows changes nothing', () => {
  for (const bytes of subject.samples) {
    for (let length = 0; length < bytes.length; length++) {
      const answer = probeHttp2(bytes.subarray(0, length))
      assert.ok(answer.kind === 'more' && answer.atLeast > length && answer.atLeast <= bytes.length, `${length}`)
    }
    assert.equal(probeHttp2(bytes).kind, 'match')
    assert.deepEqual(probeHttp2(Buffer.concat([bytes, new Uint8Array(30)])), probeHttp2(bytes))
  }
})

test('requests of another implementation are read as they were meant', async () => {
  const label = fc.string({ unit: fc.constantFrom(...'abcXYZ019'), minLength: 1, maxLength: 20 })
  const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => [...labels, 'example'].join('.'))
  const path = fc.string({ unit: fc.constantFrom(...'abcXYZ019/%.;=&~|{}"<>^`'), maxLength: 60 })
  const key = fc.string({ unit: fc.constantFrom(...'abc019-'), minLength: 1, maxLength: 20 })
  const value = fc.string({
    unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
    minLength: 1,
  })
  await fc.assert(
    fc.asyncProperty(
      name,
      path,
      fc.dictionary(key, value, { maxKeys: 10, noNullPrototype: true }),
      async (host, text, others) => {
        const prefixed = Object.fromEntries(Object.entries(others).map(([one, its]) => [`x${one}`, its]))
        const finding = matched(await sentBy({ ...prefixed, ':path': `/${text}`, ':authority': host }))
        assert.deepEqual([finding.target, finding.host, finding.method], [`/${text}`, host.toLowerCase(), 'GET'])
      },
    ),
    { numRuns: 50 },
  )
})

/** What Node.js sends before the server has said anything. */
async function sentBy(request: OutgoingHttpHeaders): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk)
      done()
    },
  })
  const session = connect('http://a.example', { createConnection: () => stream })
  const asked = session.request(request)
  asked.on('error', () => {})
  session.on('error', () => {})
  asked.end()
  while (probeHttp2(Buffer.concat(chunks)).kind === 'more') await new Promise((resolve) => setImmediate(resolve))
  const closed = once(session, 'close')
  session.destroy()
  await closed
  return Buffer.concat(chunks)
}

test('the codes are those of RFC 7541 Appendix B', () => {
  for (const [symbol, code, bits] of [
    ...([
      [0, 0x1ff8, 13],
      [1, 0x7fffd8, 23],
      [2, 0xfffffe2, 28],
      [9, 0xffffea, 24],
      [10, 0x3ffffffc, 30],
    ] as const),
    ...([
      [22, 0x3ffffffe, 30],
      [32, 0x14, 6],
      [33, 0x3f8, 10],
      [35, 0xffa, 12],
      [43, 0x7fb, 11],
      [48, 0, 5],
    ] as const),
    ...([
      [59, 0xfb, 8],
      [90, 0xfd, 8],
      [92, 0x7fff0, 19],
      [94, 0x3ffc, 14],
      [96, 0x7ffd, 15],
      [116, 9, 5],
    ] as const),
    ...([
      [122, 0x7b, 7],
      [127, 0xffffffc, 28],
      [128, 0xfffe6, 20],
      [153, 0x1fffdc, 21],
      [199, 0x1ffffec, 25],
    ] as const),
    ...([
      [249, 0xffffffe, 28],
      [254, 0x7fffff0, 27],
      [255, 0x3ffffee, 26],
    ] as const),
  ]) {
    const padded = code
      .toString(2)
      .padStart(bits, '0')
      .padEnd(Math.ceil(bits / 8) * 8, '1')
    const bytes = Uint8Array.from(padded.match(/.{8}/g)!.map((octet) => Number.parseInt(octet, 2)))
    assert.equal(huffmanText(bytes, 0, bytes.length)?.charCodeAt(0), symbol)
  }
  const text = (hex: string): string | undefined => huffmanText(fromHex(hex), 0, hex.length / 2)
  assert.equal(text('f1e3c2e5f23a6ba0ab90f4ff'), 'www.example.com') // RFC 7541 Appendix C.4.1
  assert.equal(text(''), '')
  // a padding of 8 bits, one of zeros, EOS
  for (const hex of ['ff', 'f1e3c2e5f23a6ba0ab90f4ffff', '00', 'ffffffff']) assert.equal(text(hex), undefined, hex)
})

test('the dynamic table holds what was kept, newest first, and forgets what does not fit', () => {
  const names = (hex: string): string | undefined =>
    firstFields(fromHex(hex), 100)
      ?.map(({ name, value }) => `${name}=${value}`)
      .join(' ')
  assert.equal(names('4001610162' + '4001630164' + 'be' + 'bf'), 'a=b c=d c=d a=b')
  assert.equal(names('4001610162' + 'bf'), undefined)
  assert.equal(names('3f03' + '4001610162' + 'be'), 'a=b a=b') // the table has 34 bytes, just enough
  assert.equal(names('3f02' + '4001610162' + 'be'), undefined)
  assert.equal(names('3f03' + '4001610162' + '4001630164' + 'be'), 'a=b c=d c=d')
  assert.equal(names('3fe21f'), undefined, 'more than 4096 bytes')
  assert.equal(names('82' + '20'), undefined, 'a size behind a field')
  for (const hex of ['80', 'ffffffffff7f', '41', '4103', '0001', '40817f']) assert.equal(names(hex), undefined, hex)
})

test('the host is that of :authority, else that of Host; both have to say the same', () => {
  const { host, port, path, target } = matched(headers(...REQUEST, AUTHORITY))
  assert.deepEqual({ host, port, path, target }, { host: 'a.example', port: 8080, path: '/x', target: '/x?y' })
  assert.equal(matched(headers(...REQUEST, ['host', 'b.example'])).host, 'b.example')
  assert.equal(matched(headers(...REQUEST, AUTHORITY, ['host', 'a.example:8080'])).host, 'a.example')
  assert.equal(matched(headers(...REQUEST)).host, undefined)
  assert.equal(why(headers(...REQUEST, AUTHORITY, ['host', 'b.example'])), ':authority and Host differ')
  assert.equal(why(headers(...REQUEST, ['host', 'b.example'], ['host', 'b.example'])), 'host more than once')
  assert.equal(matched(headers([':method', 'CONNECT'], [':authority', '[::1]:443'])).address, '::1')
})

test('requests that RFC 9113 calls malformed', () => {
  for (const [reason, ...fields] of [
    [':authority more than once', ...REQUEST, AUTHORITY, AUTHORITY],
    [':authority is no host', ...REQUEST, [':authority', 'u@a.example']],
    [':authority is no host', ...REQUEST, [':authority', '']],
    ['pseudo-field behind a field', ...REQUEST, ['x', 'y'], AUTHORITY],
    ['field name is none', ...REQUEST, [':status', '200']],
    ['field name is none', ...REQUEST, ['X', 'y']],
    ['field name is none', ...REQUEST, ['x y', 'z']],
    ['field value with control characters or blanks around it', ...REQUEST, ['x', 'a\r\nhost: b']],
    ['field value with control characters or blanks around it', ...REQUEST, ['x', ' a']],
    ['connection in HTTP/2', ...REQUEST, ['connection', 'close']],
    ['transfer-encoding in HTTP/2', ...REQUEST, ['transfer-encoding', 'chunked']],
    ['content-length is no length', ...REQUEST, ['content-length', '1,1']],
    ['te in HTTP/2', ...REQUEST, ['te', 'gzip']],
    ['no scheme', [':method', 'GET'], [':path', '/']],
    ['no path', [':method', 'GET'], [':scheme', 'http']],
    ['no path', [':method', 'GET'], [':scheme', 'http'], [':path', 'x']],
    ['no path', [':method', 'GET'], [':scheme', 'http'], [':path', '*']],
    ['no method', [':scheme', 'http'], [':path', '/']],
    ['CONNECT to no host with a port', [':method', 'CONNECT'], [':authority', 'a.example']],
    ['CONNECT with a scheme or a path', [':method', 'CONNECT'], [':scheme', 'http'], [':authority', 'a.example:1']],
  ] as readonly (readonly [string, ...(readonly [string, string])[]])[]) {
    assert.equal(why(headers(...fields)), reason)
  }
})

test('a preface, and frames before the first request, that RFC 9113 does not have', () => {
  const empty = new Uint8Array()
  const bytes = connection(frame(1, 5, 1, literals(...REQUEST)))
  assert.equal(why(Buffer.concat([bytes.subarray(0, 18), Buffer.from('XX')])), 'preface goes on wrongly')
  assert.equal(why(Buffer.from('PRI * HTTP/2.1')), 'no')
  assert.equal(why(Buffer.from('POST / HTTP/1.1')), 'no')
  const first = (settings: Uint8Array): string => why(Buffer.concat([bytes.subarray(0, 24), settings]))
  assert.equal(first(frame(8, 0, 0, new Uint8Array(4))), 'no SETTINGS behind the preface')
  assert.equal(first(frame(4, 1, 0, empty)), 'no SETTINGS behind the preface')
  assert.equal(first(frame(4, 0, 1, empty)), 'SETTINGS is malformed')
  assert.equal(first(frame(4, 0, 0, new Uint8Array(5))), 'SETTINGS is malformed')
  assert.equal(why(connection(frame(0, 0, 1, empty))), 'frame that cannot come before a request')
  assert.equal(why(connection(frame(8, 0, 0, empty))), 'frame of a wrong size')
  assert.equal(why(connection(frame(1, 5, 2, empty))), 'HEADERS on a stream that is not the client’s')
  assert.equal(why(connection(frame(1, 1, 1, empty), frame(6, 0, 0, new Uint8Array(8)))), 'HEADERS are not continued')
  assert.equal(why(connection(frame(1, 0xd, 1, Uint8Array.of(1)))), 'padding or priority longer than the frame')
  assert.equal(why(connection(frame(0x77, 0, 0, new Uint8Array(17_000)))), 'no request in 16384 bytes')
  assert.equal(why(connection(...Array.from({ length: 64 }, () => frame(0x77, 0, 0, empty)))), 'no request')
  assert.equal(why(connection(frame(4, 1, 0, empty), frame(1, 5, 1, literals(...REQUEST)))), 'match')
})

test('random bytes behind the preface never throw', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void outcomeOf(subject, connection(bytes))))
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      (block) => void outcomeOf(subject, connection(frame(1, 5, 1, block))),
    ),
  )
})

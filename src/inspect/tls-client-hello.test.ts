import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { outcomeOf } from './fuzz.fixture.ts'
import {
  CAPTURES,
  type HelloOptions,
  helloMessage,
  inRecords,
  messageOf,
  protocols,
  record,
  serverName,
  subject,
  uint16,
  vector8,
  vector16,
} from './tls-client-hello.fixture.ts'
import { probeTls, readClientHello, type TlsHello } from './tls-client-hello.ts'
import { MAX_HELLO_BYTES, MAX_TLS_BYTES } from './tls-record.ts'

function found(bytes: Uint8Array): TlsHello {
  const answer = probeTls(bytes)
  assert.equal(answer.kind, 'match', JSON.stringify(answer))
  return answer.kind === 'match' ? answer.finding : assert.fail()
}

function why(bytes: Iterable<number>): string {
  const answer = probeTls(Uint8Array.from(bytes))
  return answer.kind === 'malformed' ? answer.why : answer.kind
}

const hello = (options: HelloOptions) => inRecords(helloMessage(options))
const withName = (data: readonly number[]) => hello({ extensions: [[0, data]] })
const named = (text: string) => hello({ extensions: [serverName(text)] })

test('what real clients say is read', () => {
  const plain = { protocol: 'tls', addressAsName: undefined, encryptedHello: false }
  const { ja4: _, ...chromium } = found(CAPTURES.chromium)
  assert.deepEqual(chromium, {
    ...plain,
    serverName: 'www.example.org',
    alpn: ['h2', 'http/1.1'],
    versions: [0x0304, 0x0303],
    encryptedHello: true,
  })
  const expected = {
    openssl: [['h2', 'http/1.1'], [0x0304, 0x0303, 0x0302, 0x0301], 't13d3111h2_e8f1e7e78f70_1f22a2ca17c4'],
    opensslTls12: [[], [0x0303], 't12d280700_d943125447b4_e7e480e5a997'],
    opensslDot: [[], [0x0304, 0x0303, 0x0302, 0x0301], 't13d311000_e8f1e7e78f70_1f22a2ca17c4'],
    curlHttp1: [['http/1.1'], [0x0304, 0x0303, 0x0302, 0x0301], 't13d3112h1_e8f1e7e78f70_b26ce05bbdd6'],
    node24: [['http/1.1'], [0x0304, 0x0303], 't13d5212h1_b262b3658495_8e6e362c5eac'],
    python: [[], [0x0304, 0x0303], 't13d181100_85036bcba153_d41ae481755e'],
  } as const
  for (const [client, [alpn, versions, ja4]] of Object.entries(expected)) {
    const finding = found(CAPTURES[client as keyof typeof expected])
    assert.deepEqual(
      { ...finding, ja4: finding.ja4 },
      { ...plain, serverName: 'www.example.org', alpn, versions, ja4 },
      client,
    )
  }
  assert.equal(found(CAPTURES.git).serverName, 'localhost')
  assert.equal(found(CAPTURES.opensslUnnamed).serverName, undefined)
  assert.ok(CAPTURES.node24.length > 1500 && CAPTURES.chromium.length > 1900) // with key shares of ML-KEM
})

test('a hello in several records is put together', () => {
  assert.equal(CAPTURES.opensslRecords.length, 1287)
  assert.deepEqual(
    [0, 517, 1034].map((at) => CAPTURES.opensslRecords[at]),
    [22, 22, 22],
  )
  const { serverName, alpn } = found(CAPTURES.opensslRecords)
  assert.equal(serverName, 'www.example.org')
  assert.equal(alpn.length, 60)
  assert.equal(alpn[59], 'protocol-59/1.0')
})

test('the finding is the same however the hello is split into records', () => {
  const clients = fc.constantFrom(...Object.values(CAPTURES))
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 900 })), { maxLength: 62 })
  fc.assert(
    fc.property(clients, sizes, fc.constantFrom(0x0300, 0x0301, 0x0303, 0x0309), (bytes, cuts, version) => {
      const { ja4, ...rest } = found(bytes)
      const { ja4: ja4Again, ...restAgain } = found(inRecords(messageOf(bytes), cuts, version))
      assert.deepEqual([restAgain, ja4Again], [rest, ja4])
    }),
  )
})

test('every part of a good hello asks for more, and for no more than it takes to say more', () => {
  for (const whole of subject.samples) {
    let asked = 0
    for (let length = 0; length < whole.length; length++) {
      const answer = probeTls(whole.subarray(0, length))
      assert.ok(answer.kind === 'more' && answer.atLeast > length && answer.atLeast <= whole.length, String(length))
      if (length < asked) assert.equal(answer.atLeast, asked)
      asked = answer.atLeast
    }
    assert.equal(asked, whole.length)
    assert.equal(probeTls(whole).kind, 'match')
  }
})

test('a message without records asks for more until it is whole, and gives the same finding', () => {
  const message = messageOf(CAPTURES.chromium)
  for (let length = 0; length < message.length; length++) {
    const answer = readClientHello(message.subarray(0, length), 'quic')
    const atLeast = length === 0 ? 1 : length < 4 ? 4 : message.length
    assert.deepEqual(answer, { kind: 'more', atLeast })
  }
  const answer = readClientHello(message, 'quic')
  const { ja4, ...rest } = answer.kind === 'match' ? answer.finding : assert.fail()
  const { ja4: overTcp, ...restOverTcp } = found(CAPTURES.chromium)
  assert.deepEqual(rest, restOverTcp)
  assert.equal(ja4, overTcp.replace(/^t/, 'q'))
  assert.deepEqual(readClientHello(Uint8Array.of(2, 0, 0, 0), 'quic'), {
    kind: 'malformed',
    why: 'handshake message 2 before the ClientHello',
  })
})

test('bytes after the hello change nothing', () => {
  fc.assert(
    fc.property(fc.constantFrom(...Object.values(CAPTURES)), fc.uint8Array({ maxLength: 300 }), (bytes, rest) => {
      assert.deepEqual(probeTls(Uint8Array.of(...bytes, ...rest)), probeTls(bytes))
    }),
  )
})

test('other protocols are told as soon as they can be', () => {
  const SSL2 = [0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16]
  for (const bytes of ['GET / HTTP/1.1', 'SSH-2.0-x', '', '\x16', '\x16\x03', '\x16\x03\x01\0'].map((text) =>
    Buffer.from(text),
  )) {
    assert.equal(why(bytes), bytes.length === 0 || bytes[0] === 22 ? 'more' : 'no')
  }
  assert.equal(why(SSL2), 'no')
  assert.equal(why([0x80]), 'no')
  assert.equal(why([22, 254]), 'no') // DTLS
  assert.equal(why([21, 0]), 'no')
  assert.equal(why([22, 1, 0, 0, 3]), 'no')
  assert.equal(why([22, 2, 0, 0, 200, 9]), 'no')
  assert.equal(why([22, 2, 0, 0, 200, 1, 9]), 'no')
})

test('what records may not do is malformed', () => {
  const message = helloMessage()
  const [begin, rest] = [message.subarray(0, 20), message.subarray(20)]
  assert.equal(why(record(22, [])), 'an empty record')
  assert.equal(why([...record(22, begin), ...record(22, []), ...record(22, rest)]), 'an empty record')
  assert.equal(why([22, 3, 1, ...uint16(16_385)]), 'a record of 16385 bytes')
  assert.equal(why([...record(22, begin), ...record(21, [1, 90])]), 'a record of type 21 within the ClientHello')
  assert.equal(why([...record(22, begin), ...record(22, rest, 0x0201)]), 'a record of version 2.1')
  assert.equal(why([...record(21, [1, 90]), ...record(22, message)]), 'an alert before the ClientHello')
  assert.equal(why(record(22, message, 0x0201)), 'a record of version 2.1')
  assert.equal(why(record(22, [0, 0, 0, 0])), 'handshake message 0 before the ClientHello')
  assert.equal(why(record(22, [...message, ...message])), 'a record with more than the ClientHello')
  assert.equal(why([...record(22, begin), ...record(22, [...rest, 0])]), 'a record with more than the ClientHello')
  assert.equal(why(inRecords(message, new Array(64).fill(1))), 'a ClientHello in more than 64 records')
  assert.equal(found(inRecords(message, new Array(63).fill(1))).serverName, 'www.example.org')
})

test('a hello is read up to 64 KiB', () => {
  const padded = (bytes: number) =>
    helloMessage({ extensions: [serverName('a.example'), [21, new Array(bytes).fill(0)]] })
  const overhead = padded(0).length
  const largest = inRecords(padded(MAX_HELLO_BYTES - overhead), [16_384, 16_384, 16_384, 16_384])
  assert.ok(largest.length <= MAX_TLS_BYTES)
  assert.equal(found(largest).serverName, 'a.example')
  const larger = inRecords(padded(MAX_HELLO_BYTES - overhead + 1), [16_384, 16_384, 16_384, 16_384])
  assert.equal(why(larger.subarray(0, 9)), 'a ClientHello of 65537 bytes')
})

test('a name has one form, and what is none is refused', () => {
  assert.equal(found(named('WWW.Example.ORG.')).serverName, 'www.example.org')
  assert.equal(found(named(`${'a.'.repeat(126)}a.`)).serverName, `${'a.'.repeat(126)}a`)
  const bad = [
    '',
    '.',
    'a\0.example',
    'a.example\0',
    'a b.example',
    'b\xfccher.example',
    'a..b',
    '[::1]',
    '1.2.3',
    'fe80::1%eth0',
    'a.example:443',
    'a'.repeat(300),
  ]
  for (const text of bad) assert.equal(why(named(text)), 'a server name that is no host name', JSON.stringify(text))
})

test('an address is no name', () => {
  for (const text of ['192.0.2.7', '2001:db8::1']) {
    const finding = found(named(text))
    assert.equal(finding.serverName, undefined)
    assert.equal(finding.addressAsName, text)
  }
  assert.equal(found(CAPTURES.opensslAddress).addressAsName, '192.0.2.7')
})

test('a list of names has one entry, of the one type', () => {
  const entry = (text: string, type = 0) => [type, ...vector16([...Buffer.from(text)])]
  assert.equal(why(withName([])), 'server names of a wrong length')
  assert.equal(why(withName(vector16([]))), 'an empty list of server names')
  assert.equal(why(withName(vector16([...entry('a.example'), ...entry('b.example')]))), 'two server names')
  assert.equal(why(withName(vector16(entry('a.example', 1)))), 'a server name of type 1')
  assert.equal(why(withName([...vector16(entry('a.example')), 0])), 'server names of a wrong length')
  assert.equal(why(withName(vector16([0, 0, 200, 97]))), 'server names of a wrong length')
  assert.equal(why(withName(vector16([0, 0]))), 'server names of a wrong length')
  const twice = [serverName('a.example'), serverName('b.example')]
  assert.equal(why(hello({ extensions: twice })), 'extension 0 twice')
})

test('extensions occur once, also those that nobody knows', () => {
  const grease: [number, number[]] = [0x1a1a, []]
  assert.equal(why(hello({ extensions: [grease, serverName('a.example'), grease] })), 'extension 6682 twice')
  const many = Array.from({ length: 129 }, (_, i): [number, number[]] => [1000 + i, []])
  assert.equal(why(hello({ extensions: many })), 'more than 128 extensions')
  assert.equal(probeTls(hello({ extensions: many.slice(1) })).kind, 'match')
})

test('lengths that disagree are malformed', () => {
  const cases: [HelloOptions, string][] = [
    [{ sessionId: new Array(33).fill(1) }, 'a session id of 33 bytes'],
    [{ ciphers: [] }, 'cipher suites of a wrong length'],
    [{ ciphers: new Array(513).fill(1) }, 'more than 512 cipher suites'],
    [{ extensions: [[13, vector16(new Array(1026).fill(1))]] }, 'more than 512 signature algorithms'],
    [{ methods: [] }, 'compression methods of a wrong length'],
    [{ extensions: [[16, []]] }, 'protocols of a wrong length'],
    [{ extensions: [[16, vector16([])]] }, 'protocols of a wrong length'],
    [{ extensions: [[16, vector16([0])]] }, 'an empty protocol'],
    [{ extensions: [[16, vector16([2, 104])]] }, 'protocols of a wrong length'],
    [{ extensions: [protocols(...new Array<string>(65).fill('x'))] }, 'more than 64 protocols'],
    [{ extensions: [[43, []]] }, 'versions of a wrong length'],
    [{ extensions: [[43, vector8([3, 4, 3])]] }, 'versions of a wrong length'],
    [{ extensions: [[43, [...vector8([3, 4]), 0]]] }, 'versions of a wrong length'],
    [{ extensions: [[13, vector16([])]] }, 'signature algorithms of a wrong length'],
    [{ extensions: [[13, vector16([4])]] }, 'signature algorithms of a wrong length'],
  ]
  for (const [options, expected] of cases) assert.equal(why(hello(options)), expected)
  const message = [...helloMessage()]
  const longer = [1, 0, ...uint16(message.length - 4 + 1), ...message.slice(4), 0]
  assert.equal(why(record(22, longer)), 'extensions of a wrong length') // a byte behind them
  for (let cut = 5; cut < message.length; cut++) {
    const shorter = [1, 0, ...uint16(cut - 4), ...message.slice(4, cut)]
    const answer = why(record(22, shorter))
    if (cut === 45)
      assert.equal(answer, 'match') // before the extensions: TLS 1.2 allows that
    else assert.ok(!['match', 'more', 'no'].includes(answer), `${cut}: ${answer}`)
  }
})

test('versions and GREASE', () => {
  assert.deepEqual(found(hello({ extensions: undefined })).versions, [0x0303])
  assert.deepEqual(found(hello({ version: 0x0301, extensions: [] })).versions, [0x0301])
  const offered = [43, vector8([0x0303, 0xfafa, 0x0304].flatMap(uint16))] as const
  const finding = found(
    hello({ ciphers: [0x0a0a, 0x1301], extensions: [[0x2a2a, []], offered, protocols('\x0a\x0a', 'h2')] }),
  )
  assert.deepEqual(finding.versions, [0x0304, 0x0303])
  assert.deepEqual(finding.alpn, ['h2'])
  assert.match(finding.ja4, /^t13i0102h2_/)
  assert.deepEqual(found(hello({ extensions: [[43, vector8([0x0a, 0x0a])]] })).versions, [])
})

test('a finding is plain data, and keeps none of the bytes', () => {
  const bytes = CAPTURES.chromium.slice()
  const finding = found(bytes)
  bytes.fill(0)
  assert.deepEqual(JSON.parse(JSON.stringify(finding)), JSON.parse(JSON.stringify(found(CAPTURES.chromium))))
  assert.deepEqual(structuredClone(finding), { ...finding })
})

test('random and mutated bytes have an answer', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => outcomeOf(subject, bytes) !== ''))
  const changes = fc.array(fc.tuple(fc.nat(2100), fc.nat(255)), { maxLength: 8 })
  fc.assert(
    fc.property(fc.constantFrom(...subject.samples), changes, fc.nat(2100), (sample, edits, cut) => {
      const bytes = sample.slice(0, sample.length - (cut % 3 === 0 ? cut % sample.length : 0))
      for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value
      return outcomeOf(subject, bytes) !== ''
    }),
    { numRuns: 2000 },
  )
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CAPTURED, head, subject } from './http1-head.fixture.ts'
import { type Http1Head, probeHttp1 } from './http1-head.ts'

const GET = 'GET / HTTP/1.1'
const HOST = 'Host: a.example'

function matched(bytes: Uint8Array): Http1Head {
  const answer = probeHttp1(bytes)
  assert.equal(answer.kind, 'match', JSON.stringify(answer))
  return (answer as { finding: Http1Head }).finding
}

/** Why it is malformed. */
function why(bytes: Uint8Array): string {
  const answer = probeHttp1(bytes)
  return answer.kind === 'malformed' ? answer.why : answer.kind
}

const raw = (text: string): Uint8Array => Buffer.from(text, 'latin1')

test('what real clients send is read', () => {
  assert.deepEqual(matched(CAPTURED.curl), {
    ...{ protocol: 'http1', method: 'GET', target: '/a?b=c', path: '/a', host: 'www.example.org' },
    ...{ address: undefined, port: 8080, version: '1.1' },
  })
  assert.deepEqual(matched(CAPTURED.wget), {
    ...{ protocol: 'http1', method: 'GET', target: '/', path: '/', host: undefined, address: '127.0.0.1' },
    ...{ port: 8080, version: '1.1' },
  })
  assert.deepEqual(matched(CAPTURED.curlToProxy), {
    ...{ protocol: 'http1', method: 'GET', target: 'http://www.example.org/x', path: '/x', host: 'www.example.org' },
    ...{ address: undefined, port: undefined, version: '1.1' },
  })
  const { method, path, host, port } = matched(CAPTURED.curlConnect)
  assert.deepEqual({ method, path, host, port }, { method: 'CONNECT', path: '', host: 'www.example.org', port: 443 })
  for (const [client, bytes] of Object.entries(CAPTURED)) assert.equal(probeHttp1(bytes).kind, 'match', client)
})

test('every prefix of a good head asks for more, and what follows the head changes nothing', () => {
  for (const bytes of subject.samples) {
    for (let length = 0; length < bytes.length; length++) {
      assert.deepEqual(probeHttp1(bytes.subarray(0, length)), { kind: 'more', atLeast: length + 1 })
    }
    const followed = Buffer.concat([bytes, Buffer.from('GET / HTTP/1.1\r\nHost: other.example\r\n\r\n')])
    assert.deepEqual(probeHttp1(followed), probeHttp1(bytes))
  }
})

test('what git sends over its own protocol is no request, and nothing else with NUL in its line is let go', () => {
  const git = raw('0033git-upload-pack /repository\0host=ok.example\0') // captured, git 2.39
  assert.deepEqual(probeHttp1(git), { kind: 'no' })
  assert.deepEqual(probeHttp1(Buffer.concat([git, raw('\0version=2\0')])), { kind: 'no' })
  for (const other of [
    '0033git-upload-pack /repository\0',
    'GET /\0host=ok.example\0',
    '0033git-upload-pack / HTTP/1.1\r\n',
  ]) {
    assert.equal(probeHttp1(raw(other)).kind, 'more', other)
  }
})

test('a name has its canonical form, whatever the case, the port and the dot at its end', () => {
  for (const value of ['a.example', 'A.Example', 'a.example.', 'a.example:', 'A.EXAMPLE.:8080']) {
    assert.equal(matched(head(GET, `Host: ${value}`)).host, 'a.example', value)
  }
  assert.equal(matched(head(GET, 'hOsT:\ta.example \t')).host, 'a.example')
  assert.equal(matched(head(GET, 'Host: a.example:')).port, undefined)
})

test('an address is an address and no name', () => {
  for (const [value, address] of [
    ['10.0.0.1', '10.0.0.1'],
    ['[2001:DB8::1]', '2001:db8::1'],
    ['[::ffff:10.0.0.1]:80', '10.0.0.1'],
  ]) {
    const finding = matched(head(GET, `Host: ${value}`))
    assert.equal(finding.address, address)
    assert.equal(finding.host, undefined)
  }
})

test('the four forms of a target', () => {
  assert.equal(matched(head('OPTIONS * HTTP/1.1', HOST)).path, '*')
  assert.equal(matched(head('GET //x/../y HTTP/1.1', HOST)).path, '//x/../y')
  assert.equal(matched(head('GET http://a.example HTTP/1.1', HOST)).path, '/')
  assert.equal(matched(head('GET HTTP://A.example.:80?q HTTP/1.1', HOST)).path, '/')
  assert.equal(matched(head('GET https://a.example/ HTTP/1.1', 'Host: a.example:443')).port, undefined)
  assert.equal(matched(head('GET http://a.example/ HTTP/1.0')).host, 'a.example')
  assert.equal(matched(head('CONNECT a.example:25 HTTP/1.1', HOST)).port, 25)
  assert.equal(matched(head('CONNECT [::1]:25 HTTP/1.0')).address, '::1')
})

test('a request without a host names none: HTTP/1.0, an empty Host', () => {
  assert.equal(matched(head('GET / HTTP/1.0')).host, undefined)
  assert.equal(matched(head(GET, 'Host:')).host, undefined)
  assert.equal(matched(head('GET / HTTP/1.7', HOST)).version, '1.7')
})

test('one empty line may stand in front', () => {
  assert.equal(matched(head('', GET, HOST)).host, 'a.example')
})

test('codings that a request may have', () => {
  for (const value of ['chunked', 'Chunked', 'gzip, chunked', 'x-gzip,chunked', 'deflate , chunked']) {
    assert.equal(matched(head(GET, HOST, `Transfer-Encoding: ${value}`)).host, 'a.example', value)
  }
})

test('what is no HTTP/1 is told at the first byte that cannot be of a method, or at the end of the first line', () => {
  for (const text of ['\x16\x03\x01', '\0', '\x80', '(', 'SSH-2.0-x\r\n', 'Host:', '\r\n\r\n\0', 'GET\0', 'a@']) {
    assert.equal(probeHttp1(raw(text)).kind, 'no', JSON.stringify(text))
  }
  for (const line of [
    ...[
      'GET /',
      'GET',
      'EHLO a.example',
      'USER guest 0 * :Ronnie',
      'OPTIONS rtsp://a.example RTSP/1.0',
      'PRI * HTTP/2.0',
    ],
    ...['INVITE sip:a@b.example SIP/2.0', 'A1 LOGIN a b', 'GET /HTTP/1.1'],
  ]) {
    assert.equal(probeHttp1(raw(`${line}\r`)).kind, 'more', line)
    assert.equal(probeHttp1(raw(`${line}\r\n`)).kind, 'no', line)
  }
})

test('16,384 bytes and 100 fields are looked at, and no more', () => {
  const withBytes = (count: number): Uint8Array => {
    const bare = head(GET, HOST, 'X: ').length
    return head(GET, HOST, `X: ${'x'.repeat(count - bare)}`)
  }
  assert.equal(why(withBytes(16_384)), 'match')
  assert.equal(why(withBytes(16_385)), 'head is longer than 16384 bytes')
  assert.equal(why(withBytes(16_385).subarray(0, 16_383)), 'more')
  assert.equal(why(raw(`GET /${'x'.repeat(20_000)}`)), 'head is longer than 16384 bytes')
  assert.equal(why(raw('x'.repeat(20_000))), 'no')
  const fields = (count: number): string[] => Array.from({ length: count }, (_, i) => `X-${i}: ${i}`)
  assert.equal(why(head(GET, HOST, ...fields(99))), 'match')
  assert.equal(why(head(GET, HOST, ...fields(100))), 'more than 100 fields')
})

test('long blanks, colons and commas take no time', () => {
  const long = [' ', '\t', ':', ',', 'x ', 'gzip, ', '[', '.', 'a.'].map((text) => text.repeat(16_000 / text.length))
  for (const text of long) {
    for (const name of ['X', 'Host', 'Transfer-Encoding', 'Content-Length']) {
      const bytes = head(GET, `${name}: a${text}b`)
      const startedAt = performance.now()
      probeHttp1(bytes)
      assert.ok(performance.now() - startedAt < 20, `${name} ${text.slice(0, 3)}`)
    }
  }
})

test('any method, path, name and fields that a client may send are read as they were meant', () => {
  const token = fc.string({ unit: fc.constantFrom(...'abcXYZ019-_.!~'), minLength: 1, maxLength: 20 })
  const label = fc.string({ unit: fc.constantFrom(...'abcXYZ019'), minLength: 1, maxLength: 20 })
  const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => [...labels, 'example'].join('.'))
  const path = fc.string({ unit: fc.constantFrom(...'abc/%2.;=&+~|{}'), maxLength: 40 }).map((text) => `/${text}`)
  const value = fc.string({ unit: fc.constantFrom(...'abc ,;="\t\xe9'), maxLength: 40 })
  const fields = fc.array(fc.tuple(token, value), { maxLength: 20 })
  fc.assert(
    fc.property(
      token,
      path,
      name,
      fc.option(fc.integer({ min: 1, max: 65_535 })),
      fields,
      (method, target, host, port, more) => {
        fc.pre(method !== 'CONNECT')
        const others = more.map(([key, text]) => `X-${key}: ${text}`)
        const bytes = head(
          `${method} ${target}?q HTTP/1.1`,
          ...others,
          `Host: ${host}${port === null ? '' : `:${port}`}`,
        )
        const finding = matched(bytes)
        assert.deepEqual(finding, {
          ...{ protocol: 'http1', method, target: `${target}?q`, path: target, host: host.toLowerCase() },
          ...{ address: undefined, port: port ?? undefined, version: '1.1' },
        })
      },
    ),
  )
})

test('random bytes neither throw nor match', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => assert.notEqual(probeHttp1(bytes).kind, 'match')))
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { head } from './http1-head.fixture.ts'
import { probeHttp1 } from './http1-head.ts'

const GET = 'GET / HTTP/1.1'
const HOST = 'Host: a.example'
const raw = (text: string): Uint8Array => Buffer.from(text, 'latin1')

const MALFORMED: readonly (readonly [string, Uint8Array, string])[] = [
  ['a second Host', head(GET, HOST, 'Host: b.example'), 'Host more than once'],
  ['an equal second Host', head(GET, HOST, HOST), 'Host more than once'],
  ['a second Host in HTTP/1.0', head('GET / HTTP/1.0', HOST, HOST), 'Host more than once'],
  ['no Host', head(GET), 'Host is missing'],
  ['Host with userinfo', head(GET, 'Host: u@a.example'), 'Host is no host'],
  ['Host with a path', head(GET, 'Host: a.example/x'), 'Host is no host'],
  ['Host with a blank', head(GET, 'Host: a.example b'), 'Host is no host'],
  ['two names in Host', head(GET, 'Host: a.example, b.example'), 'Host is no host'],
  ['a percent in Host', head(GET, 'Host: %61.example'), 'Host is no host'],
  ['an odd address in Host', head(GET, 'Host: 010.0.0.1'), 'Host is no host'],
  ['IPv6 without brackets', head(GET, 'Host: ::1'), 'Host is no host'],
  ['a zone in Host', head(GET, 'Host: [fe80::1%25eth0]'), 'Host is no host'],
  ['IPv4 in brackets', head(GET, 'Host: [10.0.0.1]'), 'Host is no host'],
  ['port 0', head(GET, 'Host: a.example:0'), 'Host is no host'],
  ['port 65536', head(GET, 'Host: a.example:65536'), 'Host is no host'],
  ['two ports', head(GET, 'Host: a.example:80:80'), 'Host is no host'],
  ['a port alone', head(GET, 'Host: :80'), 'Host is no host'],
  ['NUL in Host', head(GET, 'Host: a.example\0.b.example'), 'control character'],
  ['a control character in another value', head(GET, HOST, 'X: \x01'), 'control character'],
  ['DEL', head(GET, HOST, 'X: \x7f'), 'control character'],
  ['a bare CR in a value', head(GET, HOST, 'X: 1\rHost: b.example'), 'CR inside a line'],
  ['a folded line', head(GET, HOST, ' b.example'), 'folded line'],
  ['a folded line of HTAB', head(GET, HOST, '\tb.example'), 'folded line'],
  ['a blank before the first field', head(GET, ' Host: a.example'), 'folded line'],
  ['a blank before the colon', head(GET, 'Host : a.example'), 'field line is not name, colon and value'],
  ['a line without a colon', head(GET, HOST, 'X'), 'field line is not name, colon and value'],
  ['a field without a name', head(GET, HOST, ': x'), 'field line is not name, colon and value'],
  ['a name with a quote', head(GET, HOST, '"X": x'), 'field line is not name, colon and value'],
  ['LF alone in the head', raw(`${GET}\r\n${HOST}\n\r\n`), 'line ends with LF alone'],
  ['LF alone behind the request line', raw(`${GET}\n${HOST}\r\n\r\n`), 'line ends with LF alone'],
  ['LF alone at the end', raw(`${GET}\r\n${HOST}\r\n\n`), 'line ends with LF alone'],
  ['target and Host that differ', head('GET http://b.example/ HTTP/1.1', HOST), 'target and Host differ'],
  ['their ports differ', head('GET http://a.example:81/ HTTP/1.1', HOST), 'target and Host differ'],
  ['target and an empty Host', head('GET http://a.example/ HTTP/1.1', 'Host:'), 'target and Host differ'],
  ['CONNECT and Host differ', head('CONNECT b.example:443 HTTP/1.1', HOST), 'target and Host differ'],
  ['userinfo in the target', head('GET http://b.example@a.example/ HTTP/1.1', HOST), 'target names no host'],
  ['a backslash in the target’s host', head('GET http://a.example\\b/ HTTP/1.1', HOST), 'target names no host'],
  ['no host in the target', head('GET http:///x HTTP/1.1', HOST), 'target names no host'],
  ['a fragment in the target', head('GET /#x HTTP/1.1', HOST), 'target has characters that none may have'],
  ['UTF-8 in the target', head('GET /\xc3\xa9 HTTP/1.1', HOST), 'target has characters that none may have'],
  ['authority-form without CONNECT', head('GET a.example:80 HTTP/1.1', HOST), 'target has none of the four forms'],
  ['asterisk without OPTIONS', head('GET * HTTP/1.1', HOST), 'target has none of the four forms'],
  ['CONNECT with a path', head('CONNECT / HTTP/1.1', HOST), 'target of CONNECT is no host with a port'],
  ['CONNECT without a port', head('CONNECT a.example HTTP/1.1', HOST), 'target of CONNECT is no host with a port'],
  [
    'length and chunks',
    head(GET, HOST, 'Content-Length: 0', 'Transfer-Encoding: chunked'),
    'Content-Length and Transfer-Encoding',
  ],
  ['two lengths', head(GET, HOST, 'Content-Length: 1', 'Content-Length: 2'), 'Content-Length more than once'],
  ['a list of lengths', head(GET, HOST, 'Content-Length: 1, 1'), 'Content-Length is no length'],
  ['a signed length', head(GET, HOST, 'Content-Length: +1'), 'Content-Length is no length'],
  ['a length beyond every number', head(GET, HOST, `Content-Length: ${'9'.repeat(20)}`), 'Content-Length is no length'],
  ...[
    'chunked, identity',
    'xchunked',
    'identity',
    'chunked, chunked',
    'chunked,',
    '"chunked"',
    'chunked;a=b',
    'gzip',
    '',
  ].map(
    (value) =>
      [
        `the coding "${value}"`,
        head(GET, HOST, `Transfer-Encoding: ${value}`),
        'Transfer-Encoding does not end with chunked',
      ] as const,
  ),
  [
    'two codings',
    head(GET, HOST, 'Transfer-Encoding: gzip', 'Transfer-Encoding: chunked'),
    'Transfer-Encoding does not end with chunked',
  ],
  [
    'chunks twice',
    head(GET, HOST, 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'),
    'Transfer-Encoding more than once',
  ],
  ['chunks in HTTP/1.0', head('GET / HTTP/1.0', 'Transfer-Encoding: chunked'), 'Transfer-Encoding in HTTP/1.0'],
  ...[
    'HTTP/2.0',
    'HTTP/1',
    'HTTP/1.10',
    'http/1.1',
    'HTTP/01.1',
    'HTTP/1.1 ',
    'HTTP/1.1 x',
    'HTTP/ 1.1',
    'HTTP/1.1\t',
  ].map(
    (version) =>
      [
        `the version "${version}"`,
        head(`GET / ${version}`, HOST),
        'request line is not method, target and HTTP/1 version',
      ] as const,
  ),
  ['two blanks', head('GET  / HTTP/1.1', HOST), 'request line is not method, target and HTTP/1 version'],
  ['a blank in the target', head('GET /a b HTTP/1.1', HOST), 'request line is not method, target and HTTP/1 version'],
  ['HTAB in the request line', head('GET\t/ HTTP/1.1', HOST), 'request line is not method, target and HTTP/1 version'],
  ['NUL in the request line', head('GET /\0 HTTP/1.1', HOST), 'control character'],
  ['CR in the request line', head('GET / HTTP/1.1\rX: y', HOST), 'CR inside a line'],
  ['two empty lines in front', head('', '', GET, HOST), 'something stands before the request line'],
  ['LF in front', raw(`\n${GET}\r\n${HOST}\r\n\r\n`), 'something stands before the request line'],
  ['a blank in front', raw(` ${GET}\r\n${HOST}\r\n\r\n`), 'something stands before the request line'],
]

for (const [what, bytes, reason] of MALFORMED) {
  test(`${what}: malformed`, () => {
    assert.deepEqual(probeHttp1(bytes), { kind: 'malformed', why: reason })
    for (let length = 0; length < bytes.length; length++) {
      const before = probeHttp1(bytes.subarray(0, length))
      if (before.kind !== 'more') assert.deepEqual(before, { kind: 'malformed', why: reason })
    }
  })
}

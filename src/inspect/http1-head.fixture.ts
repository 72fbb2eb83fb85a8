import assert from 'node:assert/strict'
import { canonicalHost } from '../net/host-name.ts'
import { type FuzzSubject, probeOutcome } from './fuzz.fixture.ts'
import { probeHttp1 } from './http1-head.ts'

/** The bytes of a head: its lines, each ended by CR and LF, and the empty one. */
export function head(...lines: string[]): Uint8Array {
  return Uint8Array.from(Buffer.from(`${[...lines, ''].join('\r\n')}\r\n`, 'latin1'))
}

const CHROMIUM = [
  'Connection: keep-alive',
  'Upgrade-Insecure-Requests: 1',
  'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36',
  'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/jxl,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7',
  'Accept-Encoding: gzip, deflate',
  'Accept-Language: en-US,en;q=0.9',
]

/** What clients sent on loopback; only the ports are others. */
export const CAPTURED = {
  curl: head('GET /a?b=c HTTP/1.1', 'Host: www.example.org:8080', 'User-Agent: curl/7.88.1', 'Accept: */*'),
  curlPost: head(
    ...['POST / HTTP/1.1', 'Host: www.example.org:8080', 'User-Agent: curl/7.88.1', 'Accept: */*'],
    ...['Content-Length: 3', 'Content-Type: application/x-www-form-urlencoded'],
  ),
  curlChunked: head(
    ...['POST / HTTP/1.1', 'Host: www.example.org:8080', 'User-Agent: curl/7.88.1', 'Accept: */*'],
    ...['Transfer-Encoding: chunked', 'Content-Type: application/x-www-form-urlencoded'],
  ),
  curlToProxy: head(
    ...['GET http://www.example.org/x HTTP/1.1', 'Host: www.example.org', 'User-Agent: curl/7.88.1', 'Accept: */*'],
    'Proxy-Connection: Keep-Alive',
  ),
  curlConnect: head(
    ...['CONNECT www.example.org:443 HTTP/1.1', 'Host: www.example.org:443', 'User-Agent: curl/7.88.1'],
    'Proxy-Connection: Keep-Alive',
  ),
  curl10: head('GET / HTTP/1.0', 'Host: 127.0.0.1:8080', 'User-Agent: curl/7.88.1', 'Accept: */*'),
  curlUpgrade: head(
    ...['GET / HTTP/1.1', 'Host: www.example.org:8080', 'User-Agent: curl/7.88.1', 'Accept: */*'],
    ...['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA'],
  ),
  wget: head(
    ...['GET / HTTP/1.1', 'Host: 127.0.0.1:8080', 'User-Agent: Wget/1.21.3', 'Accept: */*'],
    ...['Accept-Encoding: identity', 'Connection: Keep-Alive'],
  ),
  git: head(
    ...['GET /r.git/info/refs?service=git-upload-pack HTTP/1.1', 'Host: localhost:8080', 'User-Agent: git/2.39.5'],
    ...['Accept: */*', 'Accept-Encoding: deflate, gzip, br, zstd', 'Accept-Language: C, *;q=0.9', 'Pragma: no-cache'],
    'Git-Protocol: version=2',
  ),
  wrk: head('GET / HTTP/1.1', 'Host: 127.0.0.1:8080'),
  node: head('GET /n HTTP/1.1', 'Host: www.example.org', 'Connection: keep-alive'),
  python: head(
    ...['GET /p HTTP/1.1', 'Accept-Encoding: identity', 'Host: 127.0.0.1:8080'],
    ...['User-Agent: Python-urllib/3.11', 'Connection: close'],
  ),
  chromium: head('GET /q?x=|{} HTTP/1.1', 'Host: www.example.org', ...CHROMIUM),
} as const

export const subject: FuzzSubject<ReturnType<typeof probeHttp1>> = {
  name: 'http1',
  samples: [
    ...Object.values(CAPTURED),
    head('GET / HTTP/1.1', 'Host: [2001:db8::1]:8080'),
    head('OPTIONS * HTTP/1.1', 'Host:'),
  ],
  parse: probeHttp1,
  mostBytes: 262_144, // 16 for each byte that it looks at
  read(bytes, answer) {
    if (answer.kind === 'match') {
      const { host, address, port, target, version } = answer.finding
      assert.ok(host === undefined || (canonicalHost(host) === host && address === undefined))
      assert.ok(port === undefined || (port > 0 && port < 65_536))
      assert.match(`${target} ${version}`, /^[!-~]+ 1\.\d$/)
    }
    return probeOutcome(probeHttp1, bytes, answer)
  },
}

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BANNERS } from './ssh-banner.fixture.ts'
import { probeSsh } from './ssh-banner.ts'
import { inspectStream } from './stream.ts'

const probe = (text: string): ReturnType<typeof probeSsh> => probeSsh(Buffer.from(text, 'latin1'))

test('banners are read with version, software and comments', () => {
  assert.deepEqual(probeSsh(BANNERS[0]!), {
    kind: 'match',
    finding: { protocol: 'ssh', version: '2.0', software: 'OpenSSH_9.2p1', comments: 'Debian-2+deb12u6' },
  })
  assert.deepEqual(probe('SSH-2.0-JSCH-0.1.54\r\nmore'), {
    kind: 'match',
    finding: { protocol: 'ssh', version: '2.0', software: 'JSCH-0.1.54', comments: undefined },
  })
  assert.equal(probe('SSH-1.99-x\n').kind, 'match')
})

test('every prefix of a banner asks for more', () => {
  for (const bytes of BANNERS) {
    for (let length = 0; length < bytes.length; length++) {
      const answer = probeSsh(bytes.subarray(0, length))
      assert.ok(answer.kind === 'more' && answer.atLeast > length && answer.atLeast <= bytes.length)
    }
  }
})

test('what is no banner is told at the first byte, what is a wrong one at its end', () => {
  for (const text of ['ssh-2.0-x\r\n', 'SSG', 'GET ', '\0']) assert.equal(probe(text).kind, 'no', text)
  for (const line of [
    'SSH-2.0\r\n',
    'SSH-2.0-\r\n',
    'SSH-x-y\r\n',
    'SSH-2.0-a\0\r\n',
    'SSH-2.0-a\rb\r\n',
    'SSH-2.0-é\r\n',
  ]) {
    assert.equal(probe(line).kind, 'malformed', line)
  }
  assert.equal(probe(`SSH-2.0-${'x'.repeat(245)}\r\n`).kind, 'match') // 255 bytes
  assert.equal(probe(`SSH-2.0-${'x'.repeat(246)}\r\n`).kind, 'malformed')
  assert.equal(probe(`SSH-2.0-${'x'.repeat(300)}`).kind, 'malformed')
})

test('random bytes never throw', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      (bytes) => void probeSsh(Buffer.concat([Buffer.from('SSH-'), bytes])),
    ),
  )
})

test('a banner that an HTTP server could take for a request is refused', () => {
  const bytes = Buffer.from('SSH-2.0-x / HTTP/1.1\r\nHost: www.example.org\r\n\r\n')
  assert.equal(probeSsh(bytes).kind, 'malformed')
  assert.equal(inspectStream(bytes).kind, 'malformed')
})

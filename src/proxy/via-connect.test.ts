import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connectConversation } from './via-connect.ts'
import { conversationFor } from './via-protocols.ts'

const target = { host: undefined, address: '10.0.4.2', port: 443 }
const answer = (text: string) => connectConversation(target, undefined).next(Buffer.from(text, 'latin1'))

test('asks for an authority, by address or by name, with credentials', () => {
  const said = (...args: Parameters<typeof connectConversation>) =>
    Buffer.from(connectConversation(...args).opening).toString()
  assert.equal(said(target, undefined), 'CONNECT 10.0.4.2:443 HTTP/1.1\r\nHost: 10.0.4.2:443\r\n\r\n')
  assert.match(said({ ...target, address: 'fd00::2' }, undefined), /^CONNECT \[fd00::2\]:443 HTTP\/1\.1\r\n/)
  assert.match(said({ ...target, host: 'www.example' }, undefined), /^CONNECT www\.example:443 /)
  assert.match(said(target, { user: 'me', password: 'a:b' }), /\r\nProxy-Authorization: Basic bWU6YTpi\r\n\r\n$/)
})

test('any 2xx opens the tunnel, whatever its fields say, and what comes behind its head stays', () => {
  for (const head of [
    'HTTP/1.1 200 Connection established\r\n\r\n',
    'HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n',
    'HTTP/1.1 204\r\ncontent-length: 5\r\n\r\n',
    'HTTP/1.1 100 Continue\r\n\r\n',
  ]) {
    for (let length = 0; length < head.length; length++) assert.equal(answer(head.slice(0, length)).kind, 'more')
    const step = answer(`${head}SSH-2.0-x\r\n`)
    assert.deepEqual(step.kind === 'open' || step.kind === 'say' ? step.used : step, head.length)
  }
})

test('a refusal is told as soon as its status line is there', () => {
  assert.deepEqual(answer('HTTP/1.1 407 Proxy Authentication\x1b Required\r\nPro'), {
    kind: 'refused',
    why: '407 Proxy Authentication\\x1b Required',
  })
})

test('what is no answer of HTTP/1 is not believed', () => {
  for (const text of [
    'SSH-2.0-x\r\n',
    'HTTP/2.0 200 OK\r\n\r\n',
    'HTTP/1.1 2OO OK\r\n\r\n',
    'HTTP/1.1 200 OK\n\n',
    'HTTP/1.1 200 OK\r\na: b\n\r\n',
    'HTTP/1.1 101 Switching\r\n\r\n',
    `HTTP/1.1 200 ${'x'.repeat(9_000)}`,
    `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(2_000)}`,
  ]) {
    assert.equal(answer(text).kind, 'failed', text.slice(0, 30))
  }
})

test('interim answers have an end', () => {
  const talk = connectConversation(target, undefined)
  const kinds = Array.from({ length: 5 }, () => talk.next(Buffer.from('HTTP/1.1 102 Wait\r\n\r\n')).kind)
  assert.deepEqual(kinds, ['say', 'say', 'say', 'say', 'failed'])
})

test('a host that is none by its letters is not handed on', () => {
  const via = { kind: 'connect', proxy: target, credentials: undefined, names: true } as const
  const asked = (host: string | undefined, names = true) => {
    const route = { client: target, originalDst: target, destination: target, host }
    return Buffer.from(conversationFor({ ...via, names }, route).opening)
      .toString()
      .split('\r\n')[0]
  }
  assert.equal(asked('www.example.'), 'CONNECT www.example:443 HTTP/1.1')
  assert.equal(asked('www.example', false), 'CONNECT 10.0.4.2:443 HTTP/1.1')
  for (const host of ['a b', 'a\r\nHost: b', 'a:1', '', `${'a.'.repeat(200)}a`, undefined]) {
    assert.equal(asked(host), 'CONNECT 10.0.4.2:443 HTTP/1.1', host)
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { socksConversation } from './via-socks.ts'

const target = { host: undefined, address: '10.0.4.2', port: 443 }
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

test('asks for an address, and leaves what comes behind the answer', () => {
  const talk = socksConversation(target, undefined)
  assert.deepEqual([...talk.opening], [5, 1, 0])
  assert.equal(talk.next(bytes()).kind, 'more')
  assert.equal(talk.next(bytes(5)).kind, 'more')
  assert.deepEqual(talk.next(bytes(5, 0)), {
    kind: 'say',
    used: 2,
    bytes: Buffer.from([5, 1, 0, 1, 10, 0, 4, 2, 1, 187]),
  })
  assert.equal(talk.next(bytes(5, 0, 0, 1, 0, 0, 0, 0, 0)).kind, 'more')
  assert.deepEqual(talk.next(bytes(5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 83, 83, 72)), { kind: 'open', used: 10 })
})

test('an IPv6 address, a name, and answers with either', () => {
  const to6 = socksConversation({ host: undefined, address: 'fd00::2', port: 1 }, undefined)
  const step = to6.next(bytes(5, 0))
  assert.deepEqual(step.kind === 'say' && [...step.bytes.subarray(3, 8)], [4, 0xfd, 0, 0, 0])
  assert.deepEqual(to6.next(bytes(5, 0, 0, 4, ...Array(18).fill(0))), { kind: 'open', used: 22 })
  const toName = socksConversation({ ...target, host: 'www.example' }, undefined)
  const asked = toName.next(bytes(5, 0))
  const expected = Buffer.concat([bytes(5, 1, 0, 3, 11), Buffer.from('www.example'), bytes(1, 187)])
  assert.deepEqual(asked.kind === 'say' && asked.bytes, expected)
  assert.deepEqual(toName.next(bytes(5, 0, 0, 3, 2, 97, 98, 0, 80, 1)), { kind: 'open', used: 9 })
})

test('a user and password, where the proxy wants them', () => {
  const talk = socksConversation(target, { user: 'me', password: 'sécret' })
  assert.deepEqual([...talk.opening], [5, 2, 0, 2])
  const secret = Buffer.from('sécret')
  const said = { kind: 'say', used: 2, bytes: Buffer.concat([bytes(1, 2, 109, 101, 7), secret]) }
  assert.deepEqual(talk.next(bytes(5, 2)), said)
  assert.equal(talk.next(bytes(1)).kind, 'more')
  assert.equal(talk.next(bytes(1, 0)).kind, 'say')
  const other = socksConversation(target, { user: 'me', password: 'x' })
  other.next(bytes(5, 2))
  assert.deepEqual(other.next(bytes(1, 9)), { kind: 'refused', why: 'user and password (9)' })
})

test('what a proxy refuses is told, and what is no SOCKS5 is not believed', () => {
  const ask = (first: Uint8Array, second?: Uint8Array) => {
    const talk = socksConversation(target, undefined)
    const step = talk.next(first)
    return second === undefined ? step : talk.next(second)
  }
  assert.equal(ask(bytes(5, 255)).kind, 'refused')
  assert.deepEqual(ask(bytes(5, 0), bytes(5, 5)), { kind: 'refused', why: 'connection refused (5)' })
  assert.deepEqual(ask(bytes(5, 0), bytes(5, 77)), { kind: 'refused', why: 'reply (77)' })
  assert.equal(ask(bytes(5, 2)).kind, 'failed', 'a method that was not offered')
  assert.equal(ask(bytes(5, 0), bytes(4)).kind, 'failed')
  assert.equal(ask(bytes(5, 0), bytes(5, 0, 0, 2, 1)).kind, 'failed', 'an address of no known type')
  assert.deepEqual(ask(Buffer.from('HTTP/1.1 400\r\n"')), {
    kind: 'failed',
    why: 'no answer of SOCKS5: "HTTP/1.1 400\\x0d\\x0a\\x22"',
  })
})

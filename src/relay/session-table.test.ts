import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Endpoint } from '../net/address.ts'
import { SOCKADDR_WORDS, sockaddrWords } from '../sys/sockaddr.ts'
import { keyOf, SessionEntry, SessionTable } from './session-table.ts'

const SERVER = { address: '10.0.4.2', port: 53 }
const PATIENCE_MS = 1_000

function endpoint(text: string): Endpoint {
  const at = text.lastIndexOf(' ')
  return { address: text.slice(0, at), port: Number(text.slice(at + 1)) }
}

/** A table with a way to add and find sessions by their ends, `ADDRESS PORT`. */
function tableOf(sessions: number, perClient = sessions) {
  const table = new SessionTable<SessionEntry>({ sessions, perClient })
  const hashOf = (client: Endpoint, dst: Endpoint): number =>
    table.hashOf(sockaddrWords(client), 0, sockaddrWords(dst), 0, 1)
  return {
    table,
    add: (text: string, now: number, dst: Endpoint = SERVER): SessionEntry => {
      const client = endpoint(text)
      const key = keyOf(sockaddrWords(client), 0, sockaddrWords(dst), 0)
      const session = new SessionEntry(key, hashOf(client, dst), client.address, now)
      table.add(session)
      return session
    },
    find: (text: string, dst: Endpoint = SERVER): SessionEntry | undefined => {
      const client = endpoint(text)
      return table.find(hashOf(client, dst), sockaddrWords(client), 0, sockaddrWords(dst), 0, () => true)
    },
  }
}

test('a session is found by its client and where that sent to, of both families, and by nothing else', () => {
  const { add, find, table } = tableOf(100)
  const v4 = add('10.0.3.1 7000', 0)
  const v6 = add('fd00:3::1 7000', 0, { address: 'fd00:4::2', port: 53 })
  assert.equal(find('10.0.3.1 7000'), v4)
  assert.equal(find('fd00:3::1 7000', { address: 'fd00:4::2', port: 53 }), v6)
  assert.equal(find('10.0.3.1 7001'), undefined)
  assert.equal(find('10.0.3.2 7000'), undefined)
  assert.equal(find('10.0.3.1 7000', { ...SERVER, port: 54 }), undefined)
  assert.equal(find('fd00:3::1 7000', { address: 'fd00:4::3', port: 53 }), undefined)
  table.remove(v4)
  assert.equal(find('10.0.3.1 7000'), undefined)
  assert.equal(find('fd00:3::1 7000', { address: 'fd00:4::2', port: 53 }), v6)
})

test('an IPv6 client that changes its flow label stays in its session', () => {
  const { add, table } = tableOf(100)
  const dst = { address: 'fd00:4::2', port: 53 }
  const session = add('fd00:3::1 7000', 0, dst)
  const client = sockaddrWords({ address: 'fd00:3::1', port: 7_000 })
  client[1] = 0x1234
  const hash = table.hashOf(client, 0, sockaddrWords(dst), 0, 1)
  assert.equal(
    table.find(hash, client, 0, sockaddrWords(dst), 0, () => true),
    session,
  )
})

test('sessions with one hash are told apart, and leave without taking each other along', () => {
  const table = new SessionTable<SessionEntry>({ sessions: 10, perClient: 10 })
  const sessions = [1, 2, 3].map((port) => {
    const key = keyOf(sockaddrWords({ address: '10.0.3.1', port }), 0, sockaddrWords(SERVER), 0)
    const session = new SessionEntry(key, 42, '10.0.3.1', 0)
    table.add(session)
    return session
  })
  const find = (session: SessionEntry): SessionEntry | undefined =>
    table.find(42, session.key, 0, session.key, SOCKADDR_WORDS, () => true)
  for (const session of sessions) assert.equal(find(session), session)
  table.remove(sessions[1]!)
  assert.deepEqual(sessions.map(find), [sessions[0], undefined, sessions[2]])
  table.remove(sessions[2]!)
  table.remove(sessions[2]!)
  assert.deepEqual([sessions.map(find), table.size], [[sessions[0], undefined, undefined], 1])
})

test('when all are in use the one that is idle longest has to go, first those that were never answered', () => {
  const { add, table } = tableOf(3)
  const stream = add('10.0.3.1 1', 0)
  table.reclass(stream, 'stream')
  const query = add('10.0.3.2 1', 0)
  table.reclass(query, 'query')
  assert.equal(table.whoMustGo('10.0.3.9', 9_000), undefined)
  const unanswered = add('10.0.3.3 1', 5_000)
  assert.equal(table.whoMustGo('10.0.3.9', 9_000), unanswered)
  table.touch(unanswered, 9_000)
  assert.equal(table.whoMustGo('10.0.3.9', 9_000), query, 'it has been active a moment ago')
  table.touch(query, 9_000)
  assert.equal(table.whoMustGo('10.0.3.9', 9_000), stream)
  table.touch(stream, 9_000)
  assert.equal(table.whoMustGo('10.0.3.9', 9_000), 'full')
  assert.equal(table.whoMustGo('10.0.3.9', 9_000 + PATIENCE_MS), unanswered)
})

test('a client at its own bound makes room among its own sessions, and others keep theirs', () => {
  const { add, table } = tableOf(100, 2)
  add('10.0.3.2 1', 0)
  const older = add('10.0.3.1 1', 1_000)
  const newer = add('10.0.3.1 2', 2_000)
  assert.equal(table.whoMustGo('10.0.3.1', 9_000), older)
  table.touch(older, 8_900)
  assert.equal(table.whoMustGo('10.0.3.1', 9_000), newer)
  table.touch(newer, 8_900)
  assert.equal(table.whoMustGo('10.0.3.1', 9_000), 'client-full')
  table.remove(older)
  assert.equal(table.whoMustGo('10.0.3.1', 9_000), undefined)
})

test('sessions are visited from the one that is idle longest on, and may be removed meanwhile', () => {
  const { add, table } = tableOf(100)
  const [a, b, c] = [add('10.0.3.1 1', 0), add('10.0.3.1 2', 1), add('10.0.3.1 3', 2)]
  table.touch(a!, 3)
  const seen: SessionEntry[] = []
  table.oldestFirst('unanswered', (session) => {
    seen.push(session)
    table.remove(session)
    return seen.length < 2
  })
  assert.deepEqual(seen, [b, c])
  assert.deepEqual([...table], [a])
})

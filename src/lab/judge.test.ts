import assert from 'node:assert/strict'
import { test } from 'node:test'
import { predictForward, predictKnows } from '../ruleset/knows.ts'
import { judge, observedKnowledge, predictedKnowledge } from './judge.ts'
import { X_ADDRESSES } from './owners.ts'
import type { FlowScenario, ScenarioName } from './scenario.ts'
import { SCENARIOS, selectScenarios } from './scenarios.ts'
import type { SocketRow } from './sockets.ts'

const S3 = flow('S3')
const Y = { address: '10.0.3.1', port: 40_000 }
const Z = { address: '10.0.4.2', port: 80 }
const good = {
  sight: { client: Y, clientSees: Z, serverSees: Y },
  sockets: [
    socket('LISTEN', { address: '127.0.0.1', port: 50_080 }, { address: '0.0.0.0', port: 0 }),
    socket('ESTAB', Z, Y),
    socket('ESTAB', Y, Z),
  ],
}

function flow(wanted: ScenarioName): FlowScenario {
  const found = SCENARIOS.find(({ name }) => name === wanted)
  assert.equal(found?.kind, 'flow')
  return found as FlowScenario
}

function socket(state: string, local: SocketRow['local'], peer: SocketRow['peer']): SocketRow {
  return { state, local, peer, program: 'node', pid: 1 }
}

function predicted() {
  const rows = S3.config(4).listeners.flatMap((listener) => predictKnows(listener, X_ADDRESSES))
  return predictedKnowledge(rows, S3, 4)
}

test('what is seen in S3 as it was predicted makes no difference', () => {
  assert.deepEqual(judge(S3, 4, good, predicted()), [])
  assert.equal(observedKnowledge(good.sight, predicted()).verdict, predicted().verdict)
})

test('a server that sees X, or another port of Y, is a difference', () => {
  for (const serverSees of [
    { address: '10.0.4.1', port: 40_000 },
    { address: '10.0.3.1', port: 40_001 },
  ]) {
    const sockets = [good.sockets[1]!, socket('ESTAB', serverSees, Z)]
    const differences = judge(S3, 4, { sight: { ...good.sight, serverSees }, sockets }, predicted())
    assert.equal(differences.length, 1)
    assert.match(differences[0]!, /^Z sees .*; predicted: Y with its port$/)
  }
})

test('a socket on the intercepted port, and a socket that ss does not show, are differences', () => {
  const listening = socket('LISTEN', { address: '0.0.0.0', port: 80 }, { address: '0.0.0.0', port: 0 })
  const sockets = [listening, good.sockets[1]!]
  const differences = judge(S3, 4, { sight: good.sight, sockets }, predicted())
  assert.deepEqual(differences, [
    'ss on X shows no socket 10.0.3.1:40000 with the peer 10.0.4.2:80',
    'something on X listens on port 80; predicted: nothing, its packets are intercepted',
  ])
})

test('scenarios are selected by name in any case, also several with commas; an unknown one is a usage error', () => {
  const names = (wanted?: string[]) => selectScenarios(wanted).map(({ name }) => name)
  assert.deepEqual(names(), ['S1', 'S2', 'S3', 'S4'])
  assert.deepEqual(names(['s3,S1']), ['S1', 'S3'])
  assert.deepEqual(names(['S2', 'S4']), ['S2', 'S4'])
  assert.deepEqual(names(['Bridge,dnat']), ['dnat', 'bridge'])
  assert.equal(names(['all']).length, SCENARIOS.length)
  assert.throws(() => selectScenarios(['S5']), { code: 'LIMPID_USAGE' })
})

test("with redirect X's end of the client's connection is its own; the client still sees the server", () => {
  const redirect = flow('redirect')
  const own = { address: '10.0.3.101', port: 50_080 }
  const rows = redirect.config(4).listeners.flatMap((listener) => predictKnows(listener, X_ADDRESSES))
  const knowledge = predictedKnowledge(rows, redirect, 4)
  const serverSees = { address: Y.address, port: 40_001 }
  const sight = { client: Y, clientSees: Z, serverSees }
  const sockets = [socket('ESTAB', own, Y), socket('ESTAB', serverSees, Z)]
  assert.deepEqual(judge(redirect, 4, { sight, sockets }, knowledge), [])
  assert.deepEqual(judge(redirect, 4, { sight, sockets: [socket('ESTAB', Z, Y), sockets[1]!] }, knowledge), [
    'ss on X shows no socket 10.0.3.101:50080 with the peer 10.0.3.1:40000',
  ])
})

test('what the kernel passes on has no socket on X', () => {
  const forward = flow('port-forward')
  const rows = forward.config(4).forwards.map(predictForward)
  const dialled = { address: '10.0.3.101', port: 8080 }
  const sight = { client: Y, clientSees: dialled, serverSees: Y }
  const knowledge = predictedKnowledge(rows, forward, 4)
  assert.deepEqual(judge(forward, 4, { sight, sockets: [] }, knowledge), [])
  assert.deepEqual(judge(forward, 4, { sight, sockets: [socket('ESTAB', dialled, Y)] }, knowledge), [
    'ss on X shows a socket with the peer 10.0.3.1:40000; predicted: none, the kernel passes packets on',
  ])
})

test('answers to datagrams leave by a socket with the address asked, or by the listener that has the port', () => {
  const udp = flow('udp')
  const asked = { address: Z.address, port: 5_300 }
  const sight = { client: Y, clientSees: asked, serverSees: Y }
  const rows = udp.config(4).listeners.flatMap((listener) => predictKnows(listener, X_ADDRESSES))
  const knowledge = predictedKnowledge(rows, udp, 4)
  const anybody = { address: '0.0.0.0', port: 0 }
  const upstream = socket('ESTAB', Y, asked)
  const sockets = [socket('UNCONN', { address: '127.0.0.1', port: 50_080 }, anybody), upstream]
  assert.deepEqual(judge(udp, 4, { sight, sockets: [...sockets, socket('UNCONN', asked, anybody)] }, knowledge), [])
  assert.deepEqual(judge(udp, 4, { sight, sockets }, knowledge), ['ss on X shows no socket 10.0.4.2:5300'])
  const listening = socket('UNCONN', { address: '0.0.0.0', port: 5_300 }, anybody)
  assert.deepEqual(judge(udp, 4, { sight, sockets: [listening, upstream] }, knowledge), [
    'ss on X shows no socket 10.0.4.2:5300',
    'something on X listens on port 5300; predicted: nothing, its packets are intercepted',
  ])
  const mark = { ...flow('udp-mark'), serverPort: 5_300, dialledPort: 5_300 }
  assert.deepEqual(judge(mark, 4, { sight, sockets: [listening, upstream] }, knowledge), [])
  assert.deepEqual(judge(mark, 4, { sight, sockets }, knowledge), ['ss on X shows nothing that listens on port 5300'])
})

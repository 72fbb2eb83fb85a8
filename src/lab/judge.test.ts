import assert from 'node:assert/strict'
import { test } from 'node:test'
import { predictKnows } from '../ruleset/knows.ts'
import { judge, observedKnowledge, predictedKnowledge, X_ADDRESSES } from './judge.ts'
import { SCENARIOS, type Scenario, selectScenarios } from './scenarios.ts'
import type { SocketRow } from './sockets.ts'

const S3 = SCENARIOS[2] as Scenario
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

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ListenerConfig } from '../config/types.ts'
import { listener } from './gateway.fixture.ts'
import { predictKnows } from './knows.ts'

const OWN = new Set(['10.0.4.1'])
const predict = (changes: Partial<ListenerConfig>) => predictKnows(listener({ families: [4], ...changes }), OWN)

const SCENARIOS = [
  ['S1', 'none', 'proxy', 'proxy', 'proxy', 'Y and Z know X, not each other', 'dials X:50080', 'nothing'],
  [
    'S2',
    'none',
    'client',
    'proxy',
    'client',
    'Y knows X; Z knows Y, not X',
    'dials X:50080',
    "a route to Y's network through X",
  ],
  [
    'S3',
    'tproxy',
    'client',
    'server',
    'client',
    'Y and Z know each other, not X',
    'nothing; its packets must pass X',
    "a route to Y's network through X",
  ],
  [
    'S4',
    'tproxy',
    'proxy',
    'server',
    'proxy',
    'Y knows Z; Z knows X, not Y',
    'nothing; its packets must pass X',
    'nothing',
  ],
] as const
for (const [name, intercept, source, clientSees, serverSees, verdict, clientSetup, serverSetup] of SCENARIOS) {
  test(`${name}: ${intercept} with source ${source}: ${verdict}`, () => {
    const [row, ...others] = predict({ intercept, source, listen: [{ address: '0.0.0.0', port: 50_080 }] })
    assert.deepEqual(others, [])
    const expected = {
      clientSees,
      serverSees,
      clientKnows: clientSees,
      serverKnows: serverSees,
      verdict,
      clientSetup,
      serverSetup,
    }
    assert.deepEqual({ ...row }, { listener: 'all', family: 4, clientDials: clientSees, ...expected })
  })
}

test("the client's port is seen too when it is kept", () => {
  assert.equal(predict({ source: 'client-port' })[0]?.serverSees, 'client:port')
  assert.equal(predict({ source: 'client-port' })[0]?.serverKnows, 'client')
})

test('a configured address is that of this host, or of nobody that the client or the server knows', () => {
  assert.deepEqual(
    predict({ source: { address: '10.0.4.1' } }).map(({ serverSees, serverKnows, serverSetup }) => [
      serverSees,
      serverKnows,
      serverSetup,
    ]),
    [['10.0.4.1', 'proxy', 'nothing']],
  )
  const [other] = predict({ source: { address: '10.0.9.9' } })
  assert.equal(other?.serverKnows, 'other')
  assert.equal(other?.verdict, 'Y knows Z; Z knows 10.0.9.9, neither X nor Y')
  assert.equal(other?.serverSetup, 'a route to 10.0.9.9 through X')
})

test('a listener that takes packets to this host too has a row for each way of dialling', () => {
  const rows = predict({ addressedHere: true, source: 'client' })
  assert.deepEqual(
    rows.map(({ clientDials, verdict }) => [clientDials, verdict]),
    [
      ['server', 'Y and Z know each other, not X'],
      ['proxy', 'Y knows X; Z knows Y, not X'],
    ],
  )
})

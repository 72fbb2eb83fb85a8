import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MATCH_ANY } from '../config/defaults.ts'
import type { ListenerConfig } from '../config/types.ts'
import { listener } from './gateway.fixture.ts'
import { predictForward, predictKnows } from './knows.ts'

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
    assert.deepEqual({ ...row }, { listener: 'all', local: false, family: 4, clientDials: clientSees, ...expected })
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

test('redirect, dnat and mark leave the client in the same belief as tproxy', () => {
  const [expected] = predict({ source: 'client' })
  for (const intercept of ['redirect', 'dnat', 'mark'] as const) {
    assert.deepEqual(predict({ intercept, source: 'client' }), [expected])
  }
})

test('a process of this host has its addresses: whatever the source, the server knows X', () => {
  for (const source of ['proxy', 'client', 'client-port'] as const) {
    const [row, ...others] = predict({ paths: ['local'], source })
    assert.deepEqual(others, [])
    assert.deepEqual(
      [row?.local, row?.clientSees, row?.serverSees, row?.verdict, row?.clientSetup, row?.serverSetup],
      [true, 'server', 'proxy', 'Y, a process of X, knows Z; Z knows X', 'nothing; it runs on X', 'nothing'],
    )
  }
  const both = predict({ paths: ['forwarded', 'local'], source: 'client' })
  assert.deepEqual(
    both.map(({ local, serverKnows }) => [local, serverKnows]),
    [
      [false, 'client'],
      [true, 'proxy'],
    ],
  )
})

test('across a bridge nobody needs a route', () => {
  const [row] = predict({ paths: ['bridged'], source: 'client' })
  assert.equal(row?.clientSetup, 'nothing; its frames must cross a bridge of X')
  assert.equal(row?.serverSetup, 'nothing; its frames must cross the bridge too')
})

test('a port that the kernel passes on shows the server the client and the client this host, unless it is to be hidden', () => {
  const forward = {
    name: 'web',
    protocols: ['tcp'],
    match: { ...MATCH_ANY, ports: [{ from: 8080, to: 8080 }] },
    exclude: MATCH_ANY,
    to: { address: '10.0.4.2', port: 80 },
    healthMs: 0,
  } as const
  const open = predictForward({ ...forward, source: 'client' })
  assert.deepEqual(
    [open.clientSees, open.serverSees, open.verdict, open.clientSetup, open.serverSetup],
    ['proxy', 'client:port', 'Y knows X; Z knows Y, not X', 'dials X:8080', "a route to Y's network through X"],
  )
  const hidden = predictForward({ ...forward, source: 'proxy' })
  assert.deepEqual([hidden.serverSees, hidden.verdict], ['proxy', 'Y and Z know X, not each other'])
})

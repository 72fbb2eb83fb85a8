import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSockets } from './sockets.ts'

test('a line of ss gives state, both ends, program and pid', () => {
  const [row] = parseSockets(
    'ESTAB 0 0 [fd00:4::2]:80 [fd00:3::1]:57716 users:(("node",pid=17,fd=23),("node",pid=18,fd=3))\n',
  )
  assert.deepEqual(row, {
    state: 'ESTAB',
    local: { address: 'fd00:4::2', port: 80 },
    peer: { address: 'fd00:3::1', port: 57716 },
    program: 'node',
    pid: 17,
  })
})

test('a listening socket has no peer port, whatever ss calls its address', () => {
  const rows = parseSockets(
    [
      'LISTEN 0      4096       0.0.0.0:50080      0.0.0.0:*    users:(("node",pid=14,fd=20))',
      'LISTEN 0      4096             *:8080             *:*',
      'LISTEN 0      4096 127.0.0.53%lo:53         0.0.0.0:*',
      'LISTEN 0      4096 [fe80::1]%x-y:53            [::]:*',
      '',
    ].join('\n'),
  )
  assert.deepEqual(
    rows.map(({ local, peer }) => [local.address, local.port, peer.port]),
    [
      ['0.0.0.0', 50080, 0],
      ['::', 8080, 0],
      ['127.0.0.53', 53, 0],
      ['fe80::1', 53, 0],
    ],
  )
  assert.equal(rows[1]!.program, undefined)
})

test('a UDP socket that is not connected has no peer port', () => {
  const [row] = parseSockets('UNCONN 0 0 10.0.4.2:5300 0.0.0.0:* users:(("limpid",pid=14,fd=20))')
  assert.deepEqual([row?.state, row?.local, row?.peer.port], ['UNCONN', { address: '10.0.4.2', port: 5_300 }, 0])
})

test('an IPv4 connection on a socket of both families counts as IPv4', () => {
  const [row] = parseSockets('ESTAB 0 0 [::ffff:10.0.3.101]:50080 [::ffff:10.0.3.1]:4000\n')
  assert.deepEqual(row?.local, { address: '10.0.3.101', port: 50080 })
})

test('a line that is not of ss is an error which shows it', () => {
  assert.throws(() => parseSockets('Netid State Recv-Q\n'), /LIMPID_LAB|cannot read this line of ss: Netid/)
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSockets } from './kernel-sockets.ts'
import { parseDescriptorLimit } from './limits.ts'
import { parseTcpCounters } from './tcp-counters.ts'

test('/proc/net/tcp and tcp6 are read with addresses, states and retransmits', () => {
  const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C3A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0103000A:9C40 0204000A:0050 02 00000001:00000000 01:00000064 00000002     0        0 0 2 0000000000000000
`
  const text6 = `  sl  local_address remote_address st
   0: 00000000000000000000000001000000:C3A0 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 678 1
`
  assert.deepEqual(parseSockets(text), [
    {
      state: 'LISTEN',
      local: { address: '127.0.0.1', port: 50_080 },
      remote: { address: '0.0.0.0', port: 0 },
      retransmits: 0,
      inode: '12345',
    },
    {
      state: 'SYN-SENT',
      local: { address: '10.0.3.1', port: 40_000 },
      remote: { address: '10.0.4.2', port: 80 },
      retransmits: 2,
      inode: '0',
    },
  ])
  assert.deepEqual(parseSockets(text6)[0]?.local, { address: '::1', port: 50_080 })
})

test('counters of dropped packets are read from pairs of lines', () => {
  const text = 'TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 3 14\nIpExt: InNoRoutes InOctets\nIpExt: 2 999\n'
  assert.deepEqual(parseTcpCounters(text), { reversePath: 14, noRoute: 2 })
  assert.deepEqual(parseTcpCounters(''), { reversePath: 0, noRoute: 0 })
})

test('the descriptor limit of a process is its soft one', () => {
  assert.equal(parseDescriptorLimit('Max open files            256                  4096                 files\n'), 256)
  assert.equal(parseDescriptorLimit(''), undefined)
})

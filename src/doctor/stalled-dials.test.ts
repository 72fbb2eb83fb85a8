import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KernelSocket } from './kernel-sockets.ts'
import { stalledDialFindings } from './stalled-dials.ts'

function dial(from: string, to: string, retransmits = 1): KernelSocket {
  const local = { address: from, port: 40_000 }
  return { state: 'SYN-SENT', local, remote: { address: to, port: 80 }, retransmits, inode: '1' }
}

const OWN = new Set(['10.0.4.1'])
const DOCTOR = 'limpid doctor --intercept tproxy'

test('dials that nobody answers are a note, with all that may be the reason, and what tells them apart', () => {
  assert.deepEqual(stalledDialFindings([dial('10.0.3.1', '10.0.4.2')], OWN, DOCTOR), [
    {
      id: 'server',
      status: 'note',
      what: "1 dial to 10.0.4.2:80 with a client's address gets no answer: the server is down, filtered, or has no route back to 10.0.3.1 through this host",
      cure: 'limpid doctor --intercept tproxy --server 10.0.4.2:80 (tells which)',
    },
  ])
  const [many] = stalledDialFindings([dial('10.0.3.1', '10.0.4.2'), dial('10.0.3.2', '10.0.4.2')], OWN, DOCTOR)
  assert.match(many?.what ?? '', /^2 dials to 10\.0\.4\.2:80 with a client's address get no answer: /)
})

test('dials of this host itself, and those that were sent once only, are nothing to tell', () => {
  assert.deepEqual(
    stalledDialFindings([dial('10.0.4.1', '10.0.4.2'), dial('10.0.3.1', '10.0.4.2', 0)], OWN, DOCTOR),
    [],
  )
})

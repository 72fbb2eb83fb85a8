import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LimpidError } from '../errors.ts'
import { effectiveCapabilities, parseCapabilities, requireCapabilities } from './capability.ts'

test('the bits of CapEff are names', () => {
  assert.deepEqual(
    [...parseCapabilities('CapPrm:\tffff\nCapEff:\t0000000000003000\n')],
    ['CAP_NET_ADMIN', 'CAP_NET_RAW'],
  )
  assert.deepEqual([...parseCapabilities('CapEff:\t0000000000000000\n')], [])
})

test('a missing capability is one line that says which, and what to do', () => {
  assert.throws(
    () => requireCapabilities(['CAP_NET_ADMIN', 'CAP_NET_RAW'], 'install rules', new Set(['CAP_NET_RAW'])),
    (error: LimpidError) => {
      assert.equal(error.exitCode, 77)
      assert.match(error.message, /^cannot install rules: this process lacks CAP_NET_ADMIN \(/)
      assert.match(error.cure ?? '', /run as root, .*--ambient-caps=\+net_admin /)
      return error instanceof LimpidError
    },
  )
  requireCapabilities(['CAP_NET_RAW'], 'do it', new Set(['CAP_NET_RAW']))
})

test('asking takes less than a millisecond', () => {
  effectiveCapabilities()
  const durations = Array.from({ length: 20 }, () => {
    const startedAt = performance.now()
    effectiveCapabilities()
    return performance.now() - startedAt
  })
  assert.ok(Math.min(...durations) < 1) // another process may come between
})

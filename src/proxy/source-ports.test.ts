import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SourcePorts } from './source-ports.ts'

const KERNEL = { from: 32_768, to: 60_999 }
const to = { address: '10.0.4.2', port: 80 }

test("ports that are chosen lie between 1024 and 65535, outside of the kernel's range, and most of them are used", () => {
  const ports = new SourcePorts(KERNEL)
  const seen = new Set<number>()
  for (let i = 0; i < 200_000; i++) seen.add(ports.next())
  for (const port of seen)
    assert.ok(port >= 1_024 && port <= 65_535 && (port < KERNEL.from || port > KERNEL.to), `${port}`)
  assert.ok(seen.size > 34_000, `${seen.size} of 36,280`)
})

test("when the kernel's range is all there is, nothing is crowded: the kernel goes on choosing", () => {
  const ports = new SourcePorts({ from: 1_024, to: 65_535 })
  ports.noteConnect('10.0.3.1', to, Number.POSITIVE_INFINITY, 0)
  assert.equal(ports.isCrowded('10.0.3.1', to, 1), false)
  assert.equal(ports.next(), 65_535)
})

test('a pair is crowded for 5 s after a connect that found nothing, and no other pair is', () => {
  const ports = new SourcePorts(KERNEL)
  ports.noteConnect('10.0.3.1', to, 0.02, 0)
  assert.equal(ports.isCrowded('10.0.3.1', to, 1), false)
  ports.noteConnect('10.0.3.1', to, Number.POSITIVE_INFINITY, 0)
  assert.equal(ports.isCrowded('10.0.3.1', to, 4_999), true)
  assert.equal(ports.isCrowded('10.0.3.1', to, 5_000), false)
  assert.equal(ports.isCrowded('10.0.3.1', { ...to, port: 81 }, 1), false)
  assert.equal(ports.isCrowded('10.0.3.2', to, 1), false)
})

test('a pair is crowded after three slow connects in a row, not after one', () => {
  const ports = new SourcePorts(KERNEL)
  for (const ms of [2, 2, 0.02, 2, 2]) ports.noteConnect('10.0.3.1', to, ms, 0)
  assert.equal(ports.isCrowded('10.0.3.1', to, 1), false)
  ports.noteConnect('10.0.3.1', to, 2, 0)
  assert.equal(ports.isCrowded('10.0.3.1', to, 1), true)
})

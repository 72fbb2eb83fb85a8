import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Candidate, chooseServer, hashOf } from './balance.ts'

const servers = (count: number): Candidate[] =>
  Array.from({ length: count }, (_, i) => ({ hash: hashOf(`10.0.4.${i}:80`), flows: 0, mayServe: true }))
const clients = Array.from({ length: 20_000 }, (_, i) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)

test('in turn, and one that may not serve gives its turn to all others', () => {
  const pool = servers(4).map((one, i) => ({ ...one, mayServe: i !== 1 }))
  const counts = [0, 0, 0, 0]
  for (let flow = 0, turn = 0; flow < 300; flow++) {
    const place = chooseServer('round-robin', pool, turn, '')
    counts[place]!++
    turn = place + 1
  }
  assert.deepEqual(counts, [100, 0, 100, 100])
})

test('the fewest flows, and among equals in turn', () => {
  const pool = servers(3).map((one, i) => ({ ...one, flows: [5, 2, 2][i]! }))
  assert.equal(chooseServer('least-flows', pool, 0, ''), 1)
  assert.equal(chooseServer('least-flows', pool, 2, ''), 2)
  assert.equal(chooseServer('least-flows', pool, 3, ''), 1)
})

test('a client keeps its server, and clients are shared out evenly', () => {
  const pool = servers(8)
  const counts = pool.map(() => 0)
  for (const client of clients) {
    const place = chooseServer('client-hash', pool, 5, client)
    assert.equal(chooseServer('client-hash', pool, 2, client), place)
    counts[place]!++
  }
  // binomial: 2,500 ± 47; five standard deviations
  assert.ok(Math.min(...counts) > 2_500 - 5 * 47 && Math.max(...counts) < 2_500 + 5 * 47, counts.join(' '))
})

test('a server that goes takes only its own clients along, and shares them out', () => {
  const pool = servers(8)
  const without = pool.map((one, i) => ({ ...one, mayServe: i !== 3 }))
  const moved = pool.map(() => 0)
  for (const client of clients) {
    const before = chooseServer('client-hash', pool, 0, client)
    const after = chooseServer('client-hash', without, 0, client)
    if (before !== 3) assert.equal(after, before)
    else moved[after]!++
  }
  assert.equal(moved[3], 0)
  assert.ok(
    moved.every((count, i) => i === 3 || count > 250),
    moved.join(' '),
  )
})

test('none where none may serve', () => {
  for (const balance of ['round-robin', 'least-flows', 'client-hash'] as const) {
    assert.equal(
      chooseServer(
        balance,
        servers(2).map((one) => ({ ...one, mayServe: false })),
        1,
        'x',
      ),
      -1,
    )
    assert.equal(chooseServer(balance, [], 0, 'x'), -1)
  }
})

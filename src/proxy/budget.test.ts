import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_LIMITS } from '../config/defaults.ts'
import { planBudget } from './budget.ts'

test('flows and pipes together stay below the descriptor limit, with a reserve', () => {
  for (const descriptors of [128, 256, 1_024, 20_000, 1_048_576]) {
    const { flows, pipes } = planBudget(DEFAULT_LIMITS, descriptors)
    assert.ok(flows * 2 + pipes * 2 <= descriptors - 64, `${descriptors}: ${flows} flows, ${pipes} pipes`)
    assert.ok(flows >= 1)
  }
})

test('a configured bound holds where it is lower than what the descriptors allow', () => {
  assert.equal(planBudget({ ...DEFAULT_LIMITS, flows: 10 }, 20_000).flows, 10)
  assert.ok(planBudget({ ...DEFAULT_LIMITS, flows: 1_000_000 }, 1_024).flows < 500)
})

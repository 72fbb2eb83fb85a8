import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type HookOutcome, HookRunner } from './hook-runner.ts'

function runnerWith(options: { deadlineMs?: number; mostWaiting?: number } = {}) {
  const notes: string[] = []
  const runner = new HookRunner({
    name: 'onFlow',
    number: 1,
    computing: new Uint32Array(1),
    deadlineMs: 50,
    mostWaiting: 10,
    ...options,
    note: (line) => notes.push(line),
  })
  const outcomes: HookOutcome<unknown>[] = []
  const run = (call: () => unknown, onLate?: () => void) =>
    runner.run(call, (outcome) => outcomes.push(outcome), onLate)
  return { runner, notes, outcomes, run }
}

test('a hook that returns no promise is done within the call', () => {
  const { outcomes, run, runner } = runnerWith()
  // biome-ignore lint/suspicious/noThenProperty: the word of a decision, which is no promise for that
  run(() => ({ then: 'reject' }))
  // biome-ignore lint/suspicious/noThenProperty: as above
  assert.deepEqual(outcomes, [{ kind: 'returned', value: { then: 'reject' } }])
  assert.equal(runner.waiting, 0)
})

test('a hook that throws, or whose promise rejects, with whatever, has failed and nothing else', async () => {
  const { outcomes, run, runner, notes } = runnerWith()
  const unprintable = {
    toString() {
      throw new Error('no')
    },
  }
  for (const thrown of [new Error('a\nb'), undefined, unprintable]) {
    run(() => {
      throw thrown
    })
    run(() => Promise.reject(thrown))
  }
  await sleep(5)
  assert.deepEqual(
    outcomes.map(({ kind }) => kind),
    Array(6).fill('failed'),
  )
  assert.deepEqual([runner.counters.failures, runner.waiting], [6, 0])
  assert.deepEqual(notes, ['hook onFlow failed: Error: a b'], 'told once, the rest is counted')
})

test('a hook that does not settle fails at its deadline, and what it says later is ignored', async () => {
  const { outcomes, run, runner } = runnerWith()
  let isLate = false
  run(
    () => sleep(80, 'late'),
    () => {
      isLate = true
    },
  )
  run(() => sleep(80).then(() => Promise.reject(new Error('late'))))
  run(() => new Promise(() => {}))
  await sleep(70)
  assert.deepEqual([outcomes.length, runner.waiting, isLate], [3, 0, true])
  await sleep(40)
  assert.deepEqual(
    outcomes.map(({ kind }) => kind),
    Array(3).fill('failed'),
  )
  assert.deepEqual(runner.counters, { failures: 0, timeouts: 3, skipped: 0 })
})

test('who has given up is told nothing any more', async () => {
  const { outcomes, run, runner } = runnerWith()
  const late: string[] = []
  run(
    () => sleep(10, 'answer'),
    () => late.push('aborted'),
  )()
  assert.deepEqual([late, runner.waiting], [['aborted'], 0])
  await sleep(70)
  assert.deepEqual([outcomes, runner.counters.timeouts], [[], 0])
})

test('beyond the calls that may be waited for a hook is not called, until one has settled', async () => {
  const { outcomes, run, runner } = runnerWith({ mostWaiting: 2 })
  let calls = 0
  const hook = () => {
    calls++
    return sleep(10)
  }
  for (let i = 0; i < 5; i++) run(hook)
  assert.deepEqual([calls, outcomes.length, runner.counters.skipped], [2, 3, 3])
  await runner.quiet()
  run(hook)
  assert.equal(calls, 3)
  await runner.quiet()
  assert.deepEqual(
    outcomes.map(({ kind }) => kind),
    ['failed', 'failed', 'failed', 'returned', 'returned', 'returned'],
  )
})

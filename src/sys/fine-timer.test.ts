import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FineTimer } from './fine-timer.ts'
import { EventLoop } from './loop.ts'

test('a timer expires once for each time it was set, and not before its time', async () => {
  const loop = new EventLoop()
  const waits = [0.3, 1.7, 0, 1000.2]
  const early: number[] = []
  await new Promise<void>((resolve) => {
    let turn = 0
    let dueAt = 0
    const next = (): void => {
      if (turn === waits.length) {
        timer.close()
        resolve()
        return
      }
      const wait = waits[turn++]!
      dueAt = performance.now() + wait
      timer.set(wait)
    }
    const timer = new FineTimer(loop, () => {
      if (performance.now() < dueAt - 0.001) early.push(turn)
      next()
    })
    next()
  })
  assert.deepEqual(early, [])
})

test('what is set again does not expire at the former time', async () => {
  const loop = new EventLoop()
  let expired = 0
  const timer = new FineTimer(loop, () => expired++)
  timer.set(0.1)
  timer.set(60_000)
  await new Promise((resolve) => setTimeout(resolve, 150))
  timer.close()
  assert.equal(expired, 0)
})

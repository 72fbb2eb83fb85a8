import assert from 'node:assert/strict'
import { readdirSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { ffi } from './ffi.ts'
import { EPOLLET, EPOLLIN, EventLoop } from './loop.ts'
import { closeFd } from './socket.ts'

/** Long enough for events to come also on a busy machine. */
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 150))

function makePipe(): { readFd: number; write(): void; close(): void } {
  const fds = new Int32Array(2)
  assert.equal(ffi.pipe2(fds, 0o4000), 0)
  const [readFd = -1, writeFd = -1] = fds
  return {
    readFd,
    write: () => void writeSync(writeFd, 'x'),
    close: () => {
      closeFd(readFd)
      closeFd(writeFd)
    },
  }
}

test('an event reaches the target that the watch has at that moment', async () => {
  const loop = new EventLoop()
  const pipe = makePipe()
  const seen: string[] = []
  const watch = loop.add(pipe.readFd, EPOLLIN | EPOLLET, { onEvents: () => seen.push('first') })
  pipe.write()
  await turn()
  watch.target = { onEvents: () => seen.push('second') }
  pipe.write()
  await turn()
  loop.remove(watch)
  pipe.close()
  assert.deepEqual(seen, ['first', 'second'])
})

test('a removed watch gets no event, not even one of the same batch', async () => {
  const loop = new EventLoop()
  const pipes = [makePipe(), makePipe()]
  let events = 0
  const watches = pipes.map((pipe) =>
    loop.add(pipe.readFd, EPOLLIN | EPOLLET, {
      onEvents: () => {
        events++
        for (const watch of watches) loop.remove(watch)
      },
    }),
  )
  for (const pipe of pipes) pipe.write()
  await turn()
  assert.equal(events, 1)
  for (const pipe of pipes) pipe.close()
})

test('a loop that watches nothing holds no descriptor', async () => {
  const before = readdirSync('/proc/self/fd').length
  const loop = new EventLoop()
  const pipe = makePipe()
  const watch = loop.add(pipe.readFd, EPOLLIN, { onEvents: () => {} })
  assert.equal(readdirSync('/proc/self/fd').length, before + 3)
  loop.remove(watch)
  pipe.close()
  await turn()
  assert.equal(readdirSync('/proc/self/fd').length, before)
})

test('promises that an event settles go on before the next turn of timers', async () => {
  const loop = new EventLoop()
  const pipe = makePipe()
  const order: string[] = []
  const watch = loop.add(pipe.readFd, EPOLLIN | EPOLLET, {
    onEvents: () => {
      setImmediate(() => order.push('immediate'))
      void Promise.resolve().then(() => order.push('promise'))
    },
  })
  pipe.write()
  await turn()
  loop.remove(watch)
  pipe.close()
  assert.deepEqual(order, ['promise', 'immediate'])
})

test('work put off with later() runs once, in the next turn', async () => {
  const loop = new EventLoop()
  let runs = 0
  loop.later(() => runs++)
  assert.equal(runs, 0)
  await turn()
  await turn()
  assert.equal(runs, 1)
})

test('unhurried work comes behind the events of its batch, and lets others have theirs in between', async () => {
  const loop = new EventLoop()
  const [bulk, small, late] = [makePipe(), makePipe(), makePipe()]
  const order: string[] = []
  const watches = [
    loop.add(bulk.readFd, EPOLLIN | EPOLLET, {
      onEvents: () => {
        order.push('bulk has an event')
        loop.unhurried(() => {
          order.push('bulk begins')
          late.write()
          loop.deliver()
          order.push('bulk goes on')
        })
      },
    }),
    loop.add(small.readFd, EPOLLIN | EPOLLET, { onEvents: () => order.push('small') }),
    loop.add(late.readFd, EPOLLIN | EPOLLET, {
      onEvents: () => {
        order.push('late')
        loop.unhurried(() => order.push('late has much to do'))
      },
    }),
  ]
  bulk.write()
  small.write()
  await turn()
  for (const watch of watches) loop.remove(watch)
  for (const pipe of [bulk, small, late]) pipe.close()
  assert.deepEqual(order, ['bulk has an event', 'small', 'bulk begins', 'late', 'bulk goes on', 'late has much to do'])
})

test('unhurried work that never ends keeps neither timers nor other work waiting', async () => {
  const loop = new EventLoop()
  const pipe = makePipe()
  let turns = 0
  const work = (): void => {
    turns++
    if (turns < 1_000) loop.unhurried(work)
  }
  const watch = loop.add(pipe.readFd, EPOLLIN | EPOLLET, { onEvents: () => loop.unhurried(work) })
  pipe.write()
  const seen = await new Promise<number>((resolve) => {
    const look = (): void => {
      if (turns === 0) setImmediate(look)
      else resolve(turns)
    }
    setImmediate(look)
  })
  assert.ok(seen < 10, `${seen} turns before anybody else had one`)
  await turn()
  assert.equal(turns, 1_000)
  loop.remove(watch)
  pipe.close()
})

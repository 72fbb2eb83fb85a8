import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { cpuSeconds, processTree, userBytes } from './process-tree.ts'

/** Starts a child that does `work`, says so, and waits. */
const CHILD = (work: string): string => `${work}; process.stdout.write('done'); setInterval(() => {}, 1000)`
const BURN = 'const end = Date.now() + 300; while (Date.now() < end); globalThis.kept = Buffer.alloc(5e7, 1)'
const PARENT = `const { spawn } = require('node:child_process')
  spawn(process.execPath, ['-e', ${JSON.stringify(CHILD(BURN))}], { stdio: 'inherit' })
  process.on('disconnect', () => process.exit())`

test('a process is measured with its children', async () => {
  const parent = spawn(process.execPath, ['-e', PARENT], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
  await once(parent.stdout!, 'data')
  const tree = processTree(parent.pid!)
  try {
    assert.equal(tree.length, 2)
    assert.equal(tree[0], parent.pid)
    assert.ok(cpuSeconds(tree) - cpuSeconds([parent.pid!]) >= 0.1, 'what the child used counts')
    assert.ok(userBytes(tree) - userBytes([parent.pid!]) >= 5e7, 'what the child holds counts')
  } finally {
    for (const pid of tree) process.kill(pid, 'SIGKILL')
    await once(parent, 'exit')
  }
})

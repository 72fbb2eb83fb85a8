import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { DEFAULT_RULES } from '../config/defaults.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { hostFacts } from '../sys/host.ts'
import { Cleaner, isCleanerAlive } from './cleaner.ts'
import { allInterceptions, asChains, listenerFor, scriptsOf } from './iptables.fixture.ts'
import { listChains, listOurChains, loadChains, removeChains } from './iptables-commands.ts'
import { JournalFile, journalOf, startTime } from './journal.ts'

await enterNamespaces()

afterEach(async () => {
  JournalFile.find().remove()
  for (const { program, name } of await listOurChains()) await removeChains(program, name)
})

const SCRIPTS = scriptsOf(allInterceptions([listenerFor('tproxy', 'forwarded')], hostFacts())).map(asChains)

async function startLoader(onDown: 'open' | 'closed'): Promise<{ child: ChildProcess; cleaner: number }> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./cleaner.fixture.js', import.meta.url)), onDown], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(child.stdout!, 'data')) as [Buffer]
  const [, cleaner] = /^READY (\d+)/.exec(line.toString())!
  return { child, cleaner: Number(cleaner) }
}

for (const onDown of ['open', 'closed'] as const) {
  test(`the chains of a killed process are gone within two seconds; ${onDown}: the guard ${onDown === 'open' ? 'is not there' : 'stays'}`, async () => {
    const { child } = await startLoader(onDown)
    assert.notEqual(await listChains('iptables-restore', 'limpid'), undefined)
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
    await chainsGone()
    assert.equal((await listOurChains()).length, onDown === 'open' ? 0 : 2)
  })
}

async function chainsGone(): Promise<void> {
  const deadline = performance.now() + 2_000
  while ((await listOurChains()).some(({ name }) => name === 'limpid')) {
    assert.ok(performance.now() < deadline, 'still there after two seconds')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

test('signals that end a group of processes do not keep it from its work', async () => {
  const { child, cleaner } = await startLoader('open')
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(cleaner, signal)
  const record = { pid: cleaner, startTime: startTime(cleaner) ?? '' }
  assert.ok(isCleanerAlive(record))
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
  await chainsGone()
})

test('closing removes the chains before it returns, and is not called a loss', async () => {
  const losses: string[] = []
  const cleaner = Cleaner.start(SCRIPTS, (error) => losses.push(error.message))
  for (const script of SCRIPTS) await loadChains(script)
  assert.notEqual(await listChains('iptables-restore', 'limpid'), undefined)
  const record = cleaner.process
  await cleaner.close()
  assert.deepEqual(await listOurChains(), [])
  assert.ok(!isCleanerAlive(record))
  assert.deepEqual(losses, [])
})

test('a cleaner that is killed is reported once', async () => {
  const losses: string[] = []
  const cleaner = Cleaner.start(SCRIPTS, (error) => losses.push(error.message))
  process.kill(cleaner.process.pid, 'SIGKILL')
  const deadline = performance.now() + 2_000 // it does not keep this process running: a timer does
  while (losses.length === 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(losses.length, 1)
  assert.match(losses[0]!, /ended \(SIGKILL\)/)
})

test('the chains of a process that has started meanwhile are left alone', async () => {
  const cleaner = Cleaner.start(SCRIPTS, () => {})
  for (const script of SCRIPTS) await loadChains(script)
  JournalFile.make().write({ ...journalOf('process', DEFAULT_RULES, []), pid: 1, startTime: startTime(1) ?? '' })
  await cleaner.close()
  assert.notEqual(await listChains('iptables-restore', 'limpid'), undefined)
})

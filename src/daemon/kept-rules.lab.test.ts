import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { enterNamespaces } from '../lab/namespace.ts'
import { until } from '../lab/traffic.fixture.ts'
import { configOf, listener, setSysctl } from '../ruleset/gateway.fixture.ts'
import { installRuleset } from '../ruleset/install.ts'
import { type Plan, planRuleset } from '../ruleset/plan.ts'
import { removeRuleset } from '../ruleset/sweep.ts'
import { verifyRuleset } from '../ruleset/verify.ts'
import { hostFacts, readSysctl } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import { KeptRules } from './kept-rules.ts'

await enterNamespaces()
await mustRun('ip', ['link', 'set', 'lo', 'up'])

const KEY = 'net.ipv4.conf.lo.rp_filter'
const notes: string[] = []
const note = (line: string) => void notes.push(line)

function plan(changes: Partial<Plan> = {}): Plan {
  return { ...planRuleset(configOf(listener({ onDown: 'closed' })), hostFacts()), ...changes }
}

test('a sysctl of the plan is put back, and has its former value in the end', async () => {
  const descriptors = readdirSync('/proc/self/fd').length
  const former = readSysctl(KEY)!
  const rules = await KeptRules.install(plan({ sysctls: [{ key: KEY, value: '2', former, why: 'a test' }] }), note)
  setSysctl(KEY, '1')
  const startedAt = performance.now()
  await until(() => readSysctl(KEY) === '2', 'restored sysctl')
  console.log(`a sysctl was put back after ${(performance.now() - startedAt).toFixed(0)} ms`)
  await until(() => rules.restorations === 1, 'count')
  await rules.remove({ keepGuard: false })
  assert.match(
    notes.at(-1)!,
    /^rules restored in \d+ ms: sysctl net\.ipv4\.conf\.lo\.rp_filter was changed to 1 \(1 rest/,
  )
  assert.equal(readSysctl(KEY), former)
  await until(() => readdirSync('/proc/self/fd').length <= descriptors, 'closing of all descriptors')
})

test('rules that were installed to stay are kept, too, until they are removed by `limpid rules remove`', async () => {
  await installRuleset(plan(), { owner: 'persistent' })
  const rules = await KeptRules.install(plan(), note)
  await mustRun('nft', ['flush', 'ruleset'])
  await until(() => rules.restorations === 1, 'restoration')
  assert.deepEqual(await verifyRuleset(plan()), [])
  await removeRuleset(plan().rules)
  await until(() => notes.at(-1)?.includes('limpid rules remove') === true, 'note')
  assert.equal(await mustRun('nft', ['list', 'ruleset']), '')
  assert.doesNotMatch(await mustRun('ip', ['rule']), /fwmark/)
  await rules.remove({ keepGuard: false })
})

test('an nft table of somebody else that takes the place of ours is left alone, and said', async () => {
  const rules = await KeptRules.install(plan(), note)
  await mustRun('nft', ['-f', '-'], {
    input: 'delete table inet limpid-guard\ntable inet limpid-guard {\n\tchain theirs {\n\t}\n}\n',
  })
  await until(() => notes.at(-1)?.includes('of somebody else') === true, 'note')
  assert.match(await mustRun('nft', ['list', 'tables']), /limpid-guard/)
  await mustRun('nft', ['delete', 'table', 'inet', 'limpid-guard'])
  await until(() => rules.restorations > 0, 'restoration')
  assert.deepEqual(await verifyRuleset(plan()), [])
  await rules.remove({ keepGuard: false })
  assert.equal(await mustRun('nft', ['list', 'ruleset']), '')
})

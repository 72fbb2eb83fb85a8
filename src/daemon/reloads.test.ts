import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../config/parse.ts'
import type { Config } from '../config/types.ts'
import { Reloads } from './reloads.ts'

const LISTENERS = 'listeners: [{ name: all }]\n'
const RUNNING = parsed('policy: { rules: [{ name: no, then: reject }] }')

function parsed(text: string): Config {
  return parseConfig(`${LISTENERS}${text}`, '/etc/limpid/limpid.yaml')
}

/** Of a Limpid that began with RUNNING, and finds `text` when it reads its file again. */
function reloads(text: string) {
  const used: Config[] = []
  const notes: string[] = []
  const reloads = new Reloads(RUNNING, {
    reread: async () => parsed(text),
    use: async (config) => void used.push(config),
    note: (line) => notes.push(line),
  })
  return { reloads, used, notes }
}

test('a file of which the policy is elsewhere now does not open the gateway: the policy stays as it was', async () => {
  const { reloads: one, used, notes } = reloads('policyFrom: { directory: /etc/limpid/policy }')
  await assert.rejects(one.reload(), /the file has "policyFrom" now, and had a policy of its own at the start/)
  assert.deepEqual([used, one.counts], [[], { reloads: 0, reloadsFailed: 1 }])
  assert.match(notes.join('\n'), /^policy stays as it was: LIMPID_CONFIG: .*; start Limpid again/)
})

test('keys that were not there at the start are told to need a restart, and so are those that are gone', async () => {
  const { reloads: one } = reloads('records: { file: /var/log/flows.json }\nlimits: { flows: 7 }')
  const { needsRestart, rules } = await one.reload()
  assert.deepEqual([needsRestart, rules], [['limits', 'records'], 0])
})

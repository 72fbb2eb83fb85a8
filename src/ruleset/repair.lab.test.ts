import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { DEFAULT_RULES } from '../config/defaults.ts'
import type { Config } from '../config/types.ts'
import type { LimpidError } from '../errors.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { hostFacts } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import { configOf, listener } from './gateway.fixture.ts'
import { installRuleset } from './install.ts'
import { planRuleset } from './plan.ts'
import { formatRules, showRules } from './show.ts'
import { stateFolder } from './state-folder.ts'
import { removeRuleset } from './sweep.ts'
import { describeDifference, verifyRuleset } from './verify.ts'

await enterNamespaces()

const NONE = 'no rules of Limpid are installed\n'
const custom = { ...DEFAULT_RULES, nftTable: 'mine', routeTable: 4242, rulePriority: 70 }
const configs: Record<'open' | 'closed' | 'custom', Config> = {
  open: configOf(listener()),
  closed: configOf(listener({ onDown: 'closed' })),
  custom: { ...configOf(listener({ onDown: 'closed' })), rules: custom },
}
const plan = (name: keyof typeof configs) => planRuleset(configs[name], hostFacts())
const ip = (line: string) => mustRun('ip', line.split(' '))
let folder: string

before(async () => {
  await ip('link set lo up')
  await ip('link add veth0 type veth peer name veth1')
  await ip('link set veth0 up')
})
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'limpid-state-'))
  process.env.LIMPID_STATE_DIR = folder
})
afterEach(async () => {
  await removeRuleset(DEFAULT_RULES)
  assert.equal(await mustRun('nft', ['list', 'ruleset']), '')
  rmSync(folder, { recursive: true, force: true })
})
after(() => {
  delete process.env.LIMPID_STATE_DIR
})

const DAMAGES: Record<string, () => Promise<unknown>> = {
  'the nft table deleted': () => mustRun('nft', ['delete table inet limpid']),
  'the guard deleted': () => mustRun('nft', ['delete table inet limpid-guard']),
  'all nft tables flushed': () => mustRun('nft', ['flush ruleset']),
  'an ip rule deleted': () => ip('-6 rule del pref 195'),
  'an ip rule of our protocol added': () => ip('rule add pref 300 fwmark 0x10000000/0x30000000 lookup 7 protocol 195'),
  'a route deleted': () => ip('route flush table 19536'),
  "somebody's rule in our table": () => mustRun('nft', ['insert rule inet limpid prerouting counter drop']),
}
for (const [damage, inflict] of Object.entries(DAMAGES)) {
  test(`${damage}: install to stay repairs it and says so; so does a run, which leaves the rules`, async () => {
    await installRuleset(plan('closed'), { owner: 'persistent' })
    for (const owner of ['persistent', 'process'] as const) {
      await inflict()
      assert.notDeepEqual(await verifyRuleset(plan('closed')), [])
      const repaired = await installRuleset(plan('closed'), { owner })
      assert.match(repaired.summary, /^ruleset repaired \(nft table inet limpid, \d+ rules\)$/)
      assert.match(repaired.notices.join('\n'), /^repaired: /m)
      if (owner === 'process') await repaired.remove()
      assert.deepEqual(await verifyRuleset(plan('closed')), [])
    }
    const again = await installRuleset(plan('closed'), { owner: 'persistent' })
    assert.match(again.summary, /^ruleset already installed/)
  })
}

test('rules of other settings are refused, whole or damaged, with the cure and no digest', async () => {
  await installRuleset(plan('open'), { owner: 'persistent' })
  for (const damage of [async () => '', () => ip('rule del pref 195')]) {
    await damage()
    for (const owner of ['persistent', 'process'] as const) {
      await assert.rejects(installRuleset(plan('closed'), { owner }), {
        code: 'LIMPID_RULES_CLASH',
        message: 'rules of other settings are installed to stay (nft table inet limpid)',
        cure: 'limpid rules remove first',
      })
    }
  }
})

test('rules under names of their own are shown and removed although their state file is lost and no config names them', async () => {
  const clean = await ip('rule show')
  await installRuleset(plan('custom'), { owner: 'persistent' })
  for (const file of readdirSync(folder)) rmSync(join(folder, file))
  const shown = formatRules(await showRules())
  for (const part of ['table inet mine {', 'table inet mine-guard {', 'lookup 4242', 'dev lo table 4242']) {
    assert.ok(shown.includes(part), `${part} in ${shown}`)
  }
  assert.deepEqual(await removeRuleset(DEFAULT_RULES), [
    'nft table inet mine',
    '6 ip rules',
    '2 routes in route table 4242',
    'nft table inet mine-guard',
  ])
  assert.equal(await ip('rule show'), clean)
  assert.equal(formatRules(await showRules()), NONE)
})

test('what is left when the tables and the state file are lost is shown and removed too', async () => {
  await installRuleset(plan('custom'), { owner: 'persistent' })
  rmSync(folder, { recursive: true })
  await mustRun('nft', ['flush ruleset'])
  assert.match(formatRules(await showRules()), /^# owner: leftover\nip -4 rule pref 69 /)
  assert.deepEqual(await removeRuleset(DEFAULT_RULES), ['6 ip rules', '2 routes in route table 4242'])
})

test('reading makes no state folder and leaves the mode of one that is there', async () => {
  process.env.LIMPID_STATE_DIR = join(folder, 'none')
  await showRules()
  await verifyRuleset(plan('open'))
  await removeRuleset(DEFAULT_RULES)
  assert.equal(existsSync(join(folder, 'none')), false)
  process.env.LIMPID_STATE_DIR = folder
  chmodSync(folder, 0o777)
  await showRules()
  await verifyRuleset(plan('open'))
  assert.throws(stateFolder, /others can write the folder/)
  assert.equal(statSync(folder).mode & 0o777, 0o777)
})

test('a read-only state folder can be read, and the kernel is clean after remove, which warns', async () => {
  await installRuleset(plan('open'), { owner: 'persistent' })
  await mustRun('mount', ['--bind', folder, folder])
  await mustRun('mount', ['-o', 'remount,bind,ro', folder])
  try {
    assert.match(formatRules(await showRules()), /^# owner: persistent\n/)
    assert.deepEqual(await verifyRuleset(plan('open')), [])
    const warnings: string[] = []
    const removed = await removeRuleset(DEFAULT_RULES, { onWarning: (line) => warnings.push(line) })
    assert.equal(removed.length, 3)
    assert.match(warnings.join(), /^cannot remove the state file: EROFS/)
    assert.equal(formatRules(await showRules()), NONE)
    await assert.rejects(installRuleset(plan('open'), { owner: 'process' }), { code: 'LIMPID_RULES_FAILED' })
  } finally {
    await mustRun('umount', [folder])
  }
})

test('a state folder that cannot be one is refused at once, before any change', async () => {
  const file = join(folder, 'file')
  writeFileSync(file, '')
  for (const [path, why] of [
    ['/proc/x', /cannot make the folder \/proc\/x: ENOENT/],
    ['/proc/x/y/z', /cannot make the folder \/proc\/x: ENOENT/],
    [file, /file is not a folder/],
    [join(file, 'below'), /file is not a folder/],
  ] as const) {
    process.env.LIMPID_STATE_DIR = path
    await assert.rejects(installRuleset(plan('open'), { owner: 'process' }), (error: LimpidError) => {
      assert.equal(error.code, 'LIMPID_RULES_FAILED')
      assert.match(error.message, why)
      return true
    })
    assert.equal(formatRules(await showRules()), NONE)
    assert.deepEqual(await removeRuleset(DEFAULT_RULES), [])
  }
})

test('a relative state folder is taken from where the command runs, and made with its parents', async () => {
  mkdirSync(join(folder, 'a'))
  process.env.LIMPID_STATE_DIR = relative(process.cwd(), join(folder, 'a', 'b', 'c'))
  assert.equal(stateFolder(), join(folder, 'a', 'b', 'c'))
  const installed = await installRuleset(plan('open'), { owner: 'process' })
  assert.equal(readdirSync(join(folder, 'a', 'b', 'c')).length, 1)
  await installed.remove()
})

test('a missing nft table is named once, and an interface that is gone is no reason to fail', async () => {
  const config = configOf(listener({ match: { ...configs.open.listeners[0]!.match, interfaces: ['veth0'] } }))
  await installRuleset(planRuleset(config, hostFacts()), { owner: 'persistent' })
  await ip('link del veth0')
  assert.throws(() => planRuleset(config, hostFacts()), { code: 'LIMPID_INTERFACE' })
  const noted = planRuleset(config, hostFacts(), { missingInterface: 'note' })
  assert.deepEqual(noted.notes, ['listener all: there is no interface veth0 on this host'])
  assert.deepEqual(await verifyRuleset(noted), [])
  await mustRun('nft', ['delete table inet limpid'])
  assert.deepEqual((await verifyRuleset(noted)).map(describeDifference), ['nft table inet limpid: missing'])
})

test('lo that is down is named before any change', async () => {
  await ip('link set lo down')
  await assert.rejects(installRuleset(plan('open'), { owner: 'process' }), {
    message: 'cannot install the rules: the interface lo is down',
    cure: 'ip link set lo up',
  })
  assert.deepEqual(readdirSync(folder), [])
  await ip('link set lo up')
})

test('what the kernel says to an ip rule or route names the command once', async () => {
  const whole = plan('open')
  const broken = { ...whole, routes: [...whole.routes, whole.routes[0]!] }
  await assert.rejects(installRuleset(broken, { owner: 'process' }), (error: LimpidError) => {
    assert.match(error.message, /^cannot install the rules: ip -4 route add [^(]*: EEXIST \(nothing is left of it\)$/)
    return true
  })
})

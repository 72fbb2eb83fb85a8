import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { after, afterEach, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { DEFAULT_RULES } from '../config/defaults.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { PATIENCE_MS } from '../lab/traffic.fixture.ts'
import { parsePrefix } from '../net/prefix.ts'
import { hostFacts } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import {
  ask,
  configOf,
  FAMILIES,
  type Gateway,
  listener,
  raiseGateway,
  SERVER,
  SILENT_MS,
  setSysctl,
} from './gateway.fixture.ts'
import { type InstallOptions, installRuleset } from './install.ts'
import { JournalFile } from './journal.ts'
import { listTable } from './nft-commands.ts'
import { type Plan, planRuleset } from './plan.ts'
import { formatRules, showRules } from './show.ts'
import { stateFolder } from './state-folder.ts'
import { removeRuleset, sweep } from './sweep.ts'
import { verifyRuleset } from './verify.ts'

await enterNamespaces()

const INSTALLER = fileURLToPath(new URL('install.fixture.js', import.meta.url))
let gateway: Gateway
let clean: string

before(async () => {
  gateway = await raiseGateway()
  clean = await everything()
})
after(async () => await gateway.close())
afterEach(async () => {
  assert.equal(await everything(), clean)
  assert.deepEqual(readdirSync(stateFolder()), [])
})

const PROCESS: InstallOptions = { owner: 'process' }
const PERSISTENT: InstallOptions = { owner: 'persistent' }
const closed = configOf(listener({ onDown: 'closed' }))
const open = configOf(listener())
const plan = (config: Config, changes: Partial<Plan> = {}) => ({ ...planRuleset(config, hostFacts()), ...changes })
const code = (wanted: string) => (error: unknown) => error instanceof LimpidError && error.code === wanted

/** The kernel's whole state that rules could change, in its programs' words. */
async function everything(): Promise<string> {
  const texts = await Promise.all([
    mustRun('nft', ['-s', 'list', 'ruleset']),
    ...['-4', '-6'].flatMap((family) => [
      mustRun('ip', [family, 'rule', 'show']),
      mustRun('ip', [family, 'route', 'show', 'table', 'all']),
    ]),
  ])
  return [...texts, JSON.stringify([...hostFacts().sysctls])].join('\n').replaceAll(/ expires \d+sec/g, '')
}

async function startInstaller(config: Config): Promise<ChildProcess> {
  const child = spawn(process.execPath, [INSTALLER, JSON.stringify(config)], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout!, 'data')
  return child
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

/** How soon is held by daemon/kill. */
async function soon(holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `not within ${PATIENCE_MS} ms`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

test('rules are read back as planned, held by a process of their own session, and leave nothing when removed', async () => {
  const installed = await installRuleset(plan(closed), PROCESS)
  assert.match(installed.summary, /^ruleset installed \(nft table inet limpid, \d+ rules\)$/)
  assert.deepEqual(await installed.verify(), [])
  assert.match((await listTable('limpid'))!, /flags owner/)
  assert.match(formatRules(await showRules(DEFAULT_RULES)), new RegExp(`# owner: process ${process.pid}\n`))
  await installed.remove()
  await installed.remove()
  assert.equal(formatRules(await showRules(DEFAULT_RULES)), 'no rules of Limpid are installed\n')
})

test('whatever is changed behind our back is named by verify', async () => {
  const installed = await installRuleset(plan(closed), PERSISTENT)
  await mustRun('ip', ['-6', 'rule', 'del', 'pref', '195'])
  await mustRun('ip', ['route', 'flush', 'table', '19536'])
  await mustRun('nft', ['add rule inet limpid prerouting counter'])
  await mustRun('nft', ['delete table inet limpid-guard'])
  assert.deepEqual(
    (await installed.verify()).map(({ what, expected, found }) => [what, expected !== undefined, found !== undefined]),
    [
      ['nft table inet limpid', false, true],
      ['nft table inet limpid-guard', true, false],
      ['ip -4 route', true, false],
      ['ip -6 rule', true, false],
    ],
  )
  await installed.remove()
})

test('a second install to stay says that it is already there, and a process leaves it there', async () => {
  await installRuleset(plan(open), PERSISTENT)
  const before = await everything()
  const again = await installRuleset(plan(open), PERSISTENT)
  assert.match(again.summary, /^ruleset already installed \(nft table inet limpid, \d+ rules\)$/)
  const passing = await installRuleset(plan(open), PROCESS)
  assert.equal(passing.already, true)
  await passing.remove()
  assert.deepEqual(await sweep(DEFAULT_RULES), [])
  assert.equal(await everything(), before)
  await assert.rejects(installRuleset(plan(closed), PROCESS), code('LIMPID_RULES_CLASH'))
  assert.deepEqual(await verifyRuleset(plan(open)), [])
  assert.deepEqual(await removeRuleset(DEFAULT_RULES), [
    'nft table inet limpid',
    '6 ip rules',
    '2 routes in route table 19536',
  ])
  assert.deepEqual(await removeRuleset(DEFAULT_RULES), [])
})

test("another's nft tables, ip rules and routes stay as they are", async () => {
  await mustRun('nft', ['-f', '-'], {
    input: [
      'add table inet other',
      'add set inet other s { type ipv4_addr; }',
      'add element inet other s { 1.2.3.4 }',
      'add chain inet other c { type filter hook prerouting priority mangle; policy accept; }',
      'add rule inet other c ip saddr @s counter drop',
      'add table ip nat',
      'add chain ip nat p { type nat hook postrouting priority srcnat; }',
      'add rule ip nat p oifname "z" counter masquerade',
    ].join('\n'),
  })
  const rules = ['not pref 32000 fwmark 51820 lookup 51820', 'pref 50 fwmark 0x4000/0x4000 lookup 77 protocol 99']
  for (const rule of rules) await mustRun('ip', ['rule', 'add', ...rule.split(' ')])
  await mustRun('ip', ['route', 'add', '10.99.0.0/16', 'dev', 'z', 'table', '77', 'proto', '195'])
  const before = await everything()
  const installed = await installRuleset(plan(closed), PROCESS)
  assert.notEqual(await everything(), before)
  await installed.remove()
  assert.equal(await everything(), before)
  await kill(await startInstaller(closed))
  await soon(async () => (await listTable('limpid')) === undefined)
  await sweep(DEFAULT_RULES)
  assert.equal(await everything(), before)
  await mustRun('nft', ['delete table inet other; delete table ip nat'])
  for (const rule of rules) await mustRun('ip', ['rule', 'del', ...rule.split(' ')])
  await mustRun('ip', ['route', 'flush', 'table', '77'])
})

const CLASHES = {
  'an nft table of the same name': {
    add: ['nft', 'add table inet limpid'],
    remove: ['nft', 'delete table inet limpid'],
    key: /rules\.nftTable/,
  },
  'a route in our route table': {
    add: ['ip', 'route add 10.98.0.0/16 dev z table 19536'],
    remove: ['ip', 'route del 10.98.0.0/16 dev z table 19536'],
    key: /rules\.routeTable/,
  },
  'a rule at our priority': {
    add: ['ip', '-6 rule add pref 196 lookup main'],
    remove: ['ip', '-6 rule del pref 196 lookup main'],
    key: /rules\.rulePriority/,
  },
  'a rule with our mark bits': {
    add: ['ip', 'rule add pref 900 fwmark 0x10000000/0xff000000 lookup main'],
    remove: ['ip', 'rule del pref 900 fwmark 0x10000000/0xff000000 lookup main'],
    key: /rules\.markMask/,
  },
}
for (const [name, { add, remove, key }] of Object.entries(CLASHES)) {
  test(`${name} is a clash that names the key to change, and nothing is changed`, async () => {
    await mustRun(add[0]!, add[1]!.split(' '))
    const before = await everything()
    await assert.rejects(installRuleset(plan(open), PROCESS), (error: LimpidError) => {
      assert.equal(error.code, 'LIMPID_RULES_CLASH')
      assert.match(error.cure ?? '', key)
      return true
    })
    assert.equal(await everything(), before)
    await mustRun(remove[0]!, remove[1]!.split(' '))
  })
}

test('when a step fails, the error names it and all steps before it are undone', async () => {
  const broken = plan(closed)
  for (const [changes, step] of [
    [
      {
        guard: [
          {
            program: 'nft',
            name: 'inet limpid-guard',
            text: 'table inet limpid-guard {\n\tchain broken { nonsense } }',
          },
        ],
      },
      /nft table inet limpid-guard/,
    ],
    [{ routes: [...broken.routes, broken.routes[0]!] }, /route add .* table 19536 proto 195: EEXIST/],
    [{ ipRules: [...broken.ipRules, broken.ipRules[0]!] }, /rule add pref 194 .*: EEXIST/],
    [
      { main: broken.main.map((script) => ({ ...script, text: script.text.replace('goto take', 'goto nowhere') })) },
      /nft table inet limpid: /,
    ],
    [{ sysctls: [{ key: 'net.ipv4.none', value: '1', former: '0', why: '' }] }, /sysctl net\.ipv4\.none/],
  ] as [Partial<Plan>, RegExp][]) {
    for (const options of [PROCESS, PERSISTENT]) {
      await assert.rejects(installRuleset({ ...broken, ...changes }, options), (error: LimpidError) => {
        assert.equal(error.code, 'LIMPID_RULES_FAILED')
        assert.match(error.message, step)
        return true
      })
      assert.equal(await everything(), clean)
      assert.deepEqual(readdirSync(stateFolder()), [])
    }
  }
})

test('sysctls go back to their former values, unless somebody else changed them meanwhile', async () => {
  const change = { value: '1', former: '0', why: 'a test' }
  const keys = ['net.ipv4.conf.all.rp_filter', 'net.ipv4.conf.y.rp_filter']
  const changed = plan(open, { sysctls: keys.map((key) => ({ key, ...change })) })
  const installed = await installRuleset(changed, PROCESS)
  assert.equal(hostFacts().sysctls.get(keys[0]!), '1')
  await installed.remove()
  assert.equal(hostFacts().sysctls.get(keys[0]!), '0')
  const again = await installRuleset(changed, PROCESS)
  setSysctl(keys[1]!, '2')
  assert.deepEqual(
    (await again.verify()).map(({ what }) => what),
    [`sysctl ${keys[1]}`],
  )
  await again.remove()
  assert.equal(hostFacts().sysctls.get(keys[0]!), '0')
  assert.equal(hostFacts().sysctls.get(keys[1]!), '2')
  setSysctl(keys[1]!, '0')
})

test('rules that a running process holds are refused, with its pid, by install, sweep and remove', async () => {
  const child = await startInstaller(open)
  const before = await everything()
  const names = (error: unknown) => code('LIMPID_RULES_HELD')(error) && `${error}`.includes(`process ${child.pid}`)
  await assert.rejects(installRuleset(plan(open), PROCESS), names)
  await assert.rejects(sweep(DEFAULT_RULES), names)
  await assert.rejects(removeRuleset(DEFAULT_RULES), (error: LimpidError) => {
    assert.equal(
      error.cure,
      `limpid run (pid ${child.pid}) holds them and removes them when it stops: kill ${child.pid}`,
    )
    return names(error)
  })
  assert.equal(await everything(), before)
  await kill(child)
  await sweep(DEFAULT_RULES)
})

test('after SIGKILL the nft table goes; open lets packets pass, closed does not, and install starts afresh', async () => {
  for (const [config, expected, waitMs] of [
    [open, /^server saw/, undefined],
    [closed, /^silence$/, SILENT_MS],
  ] as const) {
    const child = await startInstaller(config)
    await kill(child)
    await soon(async () => (await listTable('limpid')) === undefined)
    for (const family of FAMILIES) {
      assert.match(await ask(gateway.y.connect({ address: SERVER[family], port: 80 }), waitMs), expected)
    }
    const again = await installRuleset(plan(config), PROCESS)
    assert.deepEqual(await again.verify(), [])
    await again.remove()
    assert.match(await ask(gateway.y.connect({ address: SERVER[4], port: 80 })), /^server saw/)
  }
})

test('an install that is killed at any moment leaves nothing that the next start does not sweep', async () => {
  for (let ms = 20; ms <= 300; ms += 20) {
    const child = spawn(process.execPath, [INSTALLER, JSON.stringify(closed)], { stdio: 'ignore' })
    await new Promise((resolve) => setTimeout(resolve, ms))
    await kill(child)
    await soon(async () => (await listTable('limpid')) === undefined)
    await sweep(DEFAULT_RULES)
    assert.equal(await everything(), clean, `killed after ${ms} ms`)
    assert.equal(JournalFile.find().read(), undefined)
  }
})

test('when the nft process dies, it is reported once, and everything else can still be removed', async () => {
  const lost: LimpidError[] = []
  const installed = await installRuleset(plan(closed), { owner: 'process', onLost: (error) => lost.push(error) })
  const pid = childNamed('nft')
  assert.notEqual(sessionOf(pid), sessionOf(process.pid))
  process.kill(pid, 'SIGKILL')
  await soon(async () => lost.length === 1)
  assert.equal(lost[0]?.code, 'LIMPID_RULES_FAILED')
  assert.deepEqual(
    (await installed.verify()).map(({ what }) => what),
    ['nft table inet limpid'],
  )
  await installed.remove()
  assert.equal(lost.length, 1)
})

test('a long list of prefixes is installed as a named set, and a missing element is named by verify', async () => {
  // a user namespace cannot raise nft's send buffer over net.core.wmem_max: as real root 10 000 take 0.8 s
  const sources = Array.from({ length: 200 }, (_, i) => parsePrefix(`10.${i}.0.0/17`)!)
  const match = { ...open.listeners[0]!.match, sources }
  const installed = await installRuleset(plan(configOf(listener({ match }))), PERSISTENT)
  assert.deepEqual(await installed.verify(), [])
  await mustRun('nft', ['delete element inet limpid listener-all-sources4 { 10.7.0.0/17 }'])
  const differences = await installed.verify()
  assert.ok(differences.some(({ expected }) => expected?.includes('10.7.0.0/17')))
  await installed.remove()
})

test('a kernel without tproxy or socket match is named, and nothing is changed', async () => {
  for (const [feature, name] of [
    ['tproxy', /CONFIG_NFT_TPROXY/],
    ['socket', /CONFIG_NFT_SOCKET/],
  ] as const) {
    process.env.LIMPID_PROBE_FAIL = feature
    await assert.rejects(installRuleset(plan(open), PROCESS), (error: LimpidError) => {
      assert.equal(error.code, 'LIMPID_KERNEL')
      assert.match(error.message, name)
      return true
    })
  }
  delete process.env.LIMPID_PROBE_FAIL
})

test('on a kernel whose nft tables have no owner the rules stay after a kill until the next start, and that is said', async () => {
  process.env.LIMPID_PROBE_FAIL = 'owner'
  const child = await startInstaller(open)
  await kill(child)
  assert.doesNotMatch((await listTable('limpid'))!, /owner/)
  const installed = await installRuleset(plan(open), PROCESS)
  assert.match(installed.notices.join(), /Linux 5\.12/)
  await installed.remove()
  delete process.env.LIMPID_PROBE_FAIL
})

function childNamed(name: string): number {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1').trim().split(' ').map(Number)
  return children.find((pid) => readFileSync(`/proc/${pid}/comm`, 'latin1').trim() === name)!
}

function sessionOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]!
}

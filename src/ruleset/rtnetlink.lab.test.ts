import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_RULES } from '../config/defaults.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { EEXIST, ENETDOWN, SyscallError } from '../sys/errno.ts'
import { mustRun } from '../sys/program.ts'
import { familySwitch, listRules } from './ip-commands.ts'
import { ipRuleArgs, ipRulesFor, type LocalRoute, routeArgs } from './policy-routing.ts'
import { PolicyRouting } from './rtnetlink.ts'

await enterNamespaces()
await mustRun('ip', ['link', 'set', 'lo', 'up'])

const RULES = ([4, 6] as const).flatMap((family) => ipRulesFor(family, DEFAULT_RULES))
const ROUTES: LocalRoute[] = [
  { family: 4, table: DEFAULT_RULES.routeTable },
  { family: 6, table: DEFAULT_RULES.routeTable },
]
const errno = (expected: number) => (error: unknown) => error instanceof SyscallError && error.errno === expected

/** What `ip` says about rules and routes. */
async function shown(): Promise<string> {
  const texts: string[] = []
  for (const family of ['-4', '-6']) {
    texts.push(await mustRun('ip', [family, 'rule']))
    const routes = await mustRun('ip', [family, 'route', 'show', 'table', 'all', 'proto', '195'])
    texts.push(routes)
  }
  return texts.join('\n')
}

test('rules and routes made by netlink are those that ip makes, and each reads the other’s', async () => {
  const clean = await shown()
  for (const rule of RULES) await mustRun('ip', [familySwitch(rule.family), 'rule', 'add', ...ipRuleArgs(rule)])
  for (const route of ROUTES) await mustRun('ip', [familySwitch(route.family), 'route', 'add', ...routeArgs(route)])
  const byIp = await shown()
  using kernel = new PolicyRouting()
  const [rules, routes] = [kernel.rules(), kernel.routes(DEFAULT_RULES.routeTable)]
  assert.deepEqual(
    rules.map(({ text }) => text),
    RULES.map((rule) => ipRuleArgs(rule).join(' ')),
  )
  assert.deepEqual(
    routes.map(({ text }) => text),
    ROUTES.map((route) => routeArgs(route).join(' ')),
  )
  for (const rule of rules) kernel.deleteRule(rule)
  for (const route of routes) kernel.deleteRoute(route)
  assert.equal(await shown(), clean)
  for (const rule of RULES) kernel.addRule(rule)
  for (const route of ROUTES) kernel.addRoute(route)
  assert.equal(await shown(), byIp)
  assert.throws(() => kernel.addRule(RULES[0]!), errno(EEXIST))
  assert.throws(() => kernel.addRoute(ROUTES[0]!), errno(EEXIST))
  for (const rule of kernel.rules()) kernel.deleteRule(rule)
  for (const route of kernel.routes(DEFAULT_RULES.routeTable)) kernel.deleteRoute(route)
  assert.equal(await shown(), clean)
})

test('rules and routes of others are not read as ours, and a rule of ours with more to it is another one', async () => {
  await mustRun('ip', ['rule', 'add', 'pref', '90', 'fwmark', '7', 'lookup', '19536'])
  await mustRun('ip', ['route', 'add', 'local', '192.0.2.0/24', 'dev', 'lo', 'table', '19536'])
  using kernel = new PolicyRouting()
  assert.deepEqual(kernel.rules(), [])
  assert.deepEqual(kernel.routes(19_536), [])
  assert.deepEqual(kernel.routes(), [])
  assert.deepEqual(kernel.routes(4_711), [], 'a route table that is not there')
  assert.deepEqual(
    [19_536, 4_711].map((table) => kernel.hasForeignRoutes(table)),
    [true, false],
  )
  assert.deepEqual(
    kernel.foreignRules().filter(({ priority }) => priority < 32_766 && priority > 0),
    [{ priority: 90, mark: 7, mask: 0xffff_ffff }],
  )
  const more = ['pref', '195', 'from', '192.0.2.0/24', 'fwmark', '0x10000000/0x30000000', 'lookup', '19536']
  await mustRun('ip', ['rule', 'add', ...more, 'protocol', '195'])
  await mustRun('ip', ['rule', 'add', 'not', 'pref', '195', 'fwmark', '1', 'blackhole', 'protocol', '195'])
  assert.deepEqual(
    kernel.rules().map(({ text }) => text),
    [
      'pref 195 fwmark 0x10000000/0x30000000 attribute 2 lookup 19536 protocol 195',
      'not pref 195 fwmark 0x1/0xffffffff action 6 protocol 195',
    ],
  )
  for (const rule of kernel.rules()) kernel.deleteRule(rule)
  assert.equal((await listRules()).filter(({ ours }) => ours).length, 0)
})

test('our routes are found in whatever route table, apart from those that we would not have made', () => {
  using kernel = new PolicyRouting()
  for (const table of [77, 1_000_000]) kernel.addRoute({ family: 4, table })
  assert.deepEqual(
    new Map(kernel.routes().map(({ table, isPlanned }) => [table, isPlanned])),
    new Map([77, 1_000_000].map((table) => [table, true])),
  )
  for (const route of kernel.routes()) kernel.deleteRoute(route)
  assert.deepEqual(kernel.routes(), [])
})

test('an IPv6 route to lo is refused with ENETDOWN while lo is down', async () => {
  using kernel = new PolicyRouting()
  assert.equal(kernel.isLoopbackUp(), true)
  await mustRun('ip', ['link', 'set', 'lo', 'down'])
  assert.equal(kernel.isLoopbackUp(), false)
  assert.throws(() => kernel.addRoute({ family: 6, table: 77 }), errno(ENETDOWN))
})

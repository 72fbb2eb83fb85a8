import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MATCH_ANY } from '../config/defaults.ts'
import type { Config, ListenerConfig } from '../config/types.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { PATIENCE_MS } from '../lab/traffic.fixture.ts'
import { hostFacts, readSysctl } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import { ask, configOf, FAMILIES, type Gateway, raiseGateway, SERVER, SILENT_MS, setSysctl } from './gateway.fixture.ts'
import { type InstalledRuleset, installRuleset } from './install.ts'
import { listenerFor, raiseBridge, relayFor } from './iptables.fixture.ts'
import { listOurChains } from './iptables-commands.ts'
import { planRuleset } from './plan.ts'
import { sweep } from './sweep.ts'
import { describeDifference } from './verify.ts'

await enterNamespaces()

let gateway: Gateway
before(async () => {
  gateway = await raiseGateway()
})
after(async () => await gateway.close())

function configFor(...listeners: ListenerConfig[]): Config {
  const config = configOf(...listeners)
  return { ...config, rules: { ...config.rules, backend: 'iptables' } }
}

const install = (config: Config, owner: 'process' | 'persistent' = 'process'): Promise<InstalledRuleset> =>
  installRuleset(planRuleset(config, hostFacts()), { owner })
const fromY = (family: 4 | 6, waitMs?: number) => ask(gateway.y.connect({ address: SERVER[family], port: 80 }), waitMs)
const names = async () => (await listOurChains()).map(({ program, name }) => `${program} ${name}`)
const problems = async (rules: InstalledRuleset) => (await rules.verify()).map(describeDifference)

/** What others could notice: rules and routes, without counters and without tables that are there but empty. */
async function kernelState(): Promise<string> {
  const parts = await Promise.all([
    mustRun('iptables-save', []),
    mustRun('ip6tables-save', []),
    ...['-4', '-6'].flatMap((family) => [
      mustRun('ip', [family, 'rule']),
      mustRun('ip', [family, 'route', 'show', 'table', 'all']),
    ]),
  ])
  return parts
    .join('')
    .replaceAll(/^[#*:C].*\n/gm, '')
    .replaceAll(/ expires \d+sec/g, '')
}

test('rules are installed, verified, and gone after removal: the kernel is as it was', async () => {
  const before = await kernelState()
  const listener = listenerFor('redirect', 'forwarded', { source: 'client-port', onDown: 'closed' })
  await using _relay = relayFor(listener)
  const installed = await install(configFor(listener))
  assert.match(installed.summary, /^ruleset installed \(iptables chains limpid, \d+ rules\)$/)
  assert.deepEqual(await problems(installed), [])
  for (const family of FAMILIES) assert.match(await fromY(family), /^to .*: server saw /)
  await installed.remove()
  assert.deepEqual(await names(), [])
  assert.equal(await kernelState(), before)
  for (const family of FAMILIES) assert.match(await fromY(family), /^server saw /)
})

test('rules for UDP, on every path, are installed, verified, and gone after removal', async () => {
  const bridge = await raiseBridge()
  const before = await kernelState()
  const changes = { protocols: ['tcp', 'udp'], match: MATCH_ANY, source: 'client', onDown: 'closed' } as const
  const paths = (['forwarded', 'local', 'bridged'] as const).map((path) => listenerFor('tproxy', path, changes))
  const installed = await install(configFor(...paths, listenerFor('redirect', 'forwarded', changes)))
  assert.deepEqual(await problems(installed), [])
  await mustRun('ip6tables', ['-t', 'mangle', '-F', 'limpid-udpdivert'])
  assert.notDeepEqual(await problems(installed), [])
  await installed.restore({ tables: true })
  assert.deepEqual(await problems(installed), [])
  await installed.remove()
  assert.deepEqual(await names(), [])
  assert.equal(await kernelState(), before)
  await bridge.close()
  await mustRun('ip', ['link', 'del', 'br9'])
})

test('rules flushed and jumps deleted behind our back are found and restored', async () => {
  const listener = listenerFor('tproxy', 'forwarded')
  await using _relay = relayFor(listener)
  const installed = await install(configFor(listener))
  try {
    for (const damage of [
      ['-F', 'limpid-prerouting'],
      ['-F', 'PREROUTING'],
      ['-I', 'limpid-take', '-j', 'RETURN'],
    ]) {
      await mustRun('iptables', ['-t', 'mangle', ...damage])
      assert.notDeepEqual(await problems(installed), [], damage.join(' '))
      await installed.restore({ tables: true })
      assert.deepEqual(await problems(installed), [], damage.join(' '))
      assert.match(await fromY(4), /^to .*: server saw /)
    }
  } finally {
    await installed.remove()
  }
})

test('a kernel without TPROXY is told in one sentence, with what can be done, and nothing is changed', async () => {
  const before = await kernelState()
  process.env.LIMPID_PROBE_FAIL = 'tproxy'
  try {
    await assert.rejects(install(configFor(listenerFor('tproxy', 'forwarded', { onDown: 'closed' }))), {
      code: 'LIMPID_KERNEL',
      message: /has no TPROXY/,
      cure: /redirect/,
    })
    const redirected = await install(configFor(listenerFor('redirect', 'forwarded')))
    await redirected.remove()
  } finally {
    delete process.env.LIMPID_PROBE_FAIL
  }
  assert.equal(await kernelState(), before)
})

test('rules that are to stay stay, are recognised, and are removed by the one who installed them', async () => {
  const config = configFor(listenerFor('tproxy', 'forwarded'))
  await install(config, 'persistent')
  const again = await install(config, 'persistent')
  assert.match(again.summary, /^ruleset already installed/)
  await again.remove()
  assert.deepEqual(await names(), [])
})

async function startAndKill(config: Config): Promise<void> {
  const program = fileURLToPath(new URL('./install.fixture.js', import.meta.url))
  const child = spawn(process.execPath, [program, JSON.stringify(config)], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout!, 'data')
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

async function untilAnswer(family: 4 | 6, expected: RegExp): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS // how soon: daemon/udp-kill
  for (;;) {
    const answer = await fromY(family, SILENT_MS)
    if (expected.test(answer)) return
    assert.ok(performance.now() < deadline, `still ${answer}`)
  }
}

for (const mode of ['tproxy', 'redirect', 'dnat', 'mark'] as const) {
  test(`${mode}, open: after SIGKILL the servers are reached past us`, async () => {
    await startAndKill(configFor(listenerFor(mode, 'forwarded')))
    for (const family of FAMILIES) await untilAnswer(family, /^server saw /)
    await sweep(configFor().rules)
  })

  test(`${mode}, closed: after SIGKILL nothing passes, until the next start has swept`, async () => {
    await startAndKill(configFor(listenerFor(mode, 'forwarded', { onDown: 'closed' })))
    await Promise.all(
      FAMILIES.map(async (family) => {
        await untilAnswer(family, /^silence$/)
        assert.equal(await fromY(family, SILENT_MS), 'silence')
      }),
    )
    await sweep(configFor().rules)
    for (const family of FAMILIES) assert.match(await fromY(family), /^server saw /)
    assert.deepEqual(await names(), [])
  })
}

test('who starts right after a kill gets rules that the killed one’s cleaner does not take away', async () => {
  const listener = listenerFor('tproxy', 'forwarded')
  await using _relay = relayFor(listener)
  for (let i = 0; i < 3; i++) {
    await startAndKill(configFor(listener))
    const installed = await install(configFor(listener))
    await new Promise((resolve) => setTimeout(resolve, 500)) // a cleaner would be done by now
    assert.deepEqual(await problems(installed), [])
    assert.match(await fromY(4), /^to .*: server saw /)
    await installed.remove()
  }
})

test('on a bridge, bridge-nf-call is cleared while the rules are there, and restored', async () => {
  const bridge = await raiseBridge()
  const keys = ['net.bridge.bridge-nf-call-iptables', 'net.bridge.bridge-nf-call-ip6tables']
  for (const key of keys) setSysctl(key, '1')
  const listener = listenerFor('tproxy', 'bridged', { source: 'client' })
  await using _relay = relayFor(listener)
  const installed = await install(configFor(listener))
  assert.ok((await names()).includes('ebtables-restore limpid'))
  for (const address of ['10.0.9.2', 'fd00:9::2']) {
    assert.match(await ask(bridge.y.connect({ address, port: 80 })), /^to .*: server saw /)
  }
  await installed.remove()
  assert.deepEqual(keys.map(readSysctl), ['1', '1'])
  assert.deepEqual(await names(), [])
  await bridge.close()
})

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseConfig } from '../config/parse.ts'
import type { Config, Intercept, Path } from '../config/types.ts'
import type { HostFacts } from '../sys/host.ts'
import { type BackendName, planRuleset } from './plan.ts'
import { printPlan } from './print.ts'

// The whole text of the rules of every mode, path and backend, as `limpid plan` prints it, is kept in
// src/ruleset/golden/MODE-PATH-BACKEND.txt. After an intended change write them anew, and read what `git diff` says:
//     LIMPID_GOLDEN=write node --test dist/ruleset/golden.test.js

const FOLDER = fileURLToPath(new URL('../../src/ruleset/golden', import.meta.url))
const REWRITE = process.env.LIMPID_GOLDEN === 'write'

const MODES = ['tproxy', 'redirect', 'dnat', 'mark'] as const satisfies readonly Intercept[]
const PATHS: readonly Path[] = ['forwarded', 'local', 'bridged']
const BACKENDS: readonly BackendName[] = ['nft', 'iptables']

const BRIDGE_SYSCTLS = ['net.bridge.bridge-nf-call-iptables', 'net.bridge.bridge-nf-call-ip6tables']

/** A gateway with two networks, and a bridge with an address of its own beside one without. */
const FACTS: HostFacts = {
  interfaces: [
    { name: 'lo', addresses: ['127.0.0.1', '::1'], up: true },
    { name: 'lan0', addresses: ['10.0.3.101', 'fd00:3::101'], up: true },
    { name: 'wan0', addresses: ['10.0.4.1', 'fd00:4::1'], up: true },
    { name: 'br0', addresses: ['10.0.9.101', 'fd00:9::101'], up: true },
    { name: 'br1', addresses: ['fe80::1'], up: true },
    ...['b-y', 'b-z', 'c-y', 'c-z'].map((name) => ({ name, addresses: [], up: true })),
  ],
  bridges: [
    { name: 'br0', mac: '02:00:00:00:00:01', ports: ['b-y', 'b-z'] },
    { name: 'br1', mac: '02:00:00:00:00:02', ports: ['c-y', 'c-z'] },
  ],
  ipv6: true,
  sysctls: new Map([['net.ipv4.ip_forward', '1'], ...BRIDGE_SYSCTLS.map((key): [string, string] => [key, '1'])]),
  namespace: 1,
}

const MANY = 10 // more than stand within a rule
const PREFIXES = Array.from({ length: MANY }, (_, i) => [`10.1.${2 * i}.0/24`, `fd01:${2 * i}::/64`]).flat()
const ADDRESSES = Array.from({ length: MANY }, (_, i) => [`192.0.2.${2 * i}`, `fd02::${2 * i}`]).flat()

/** One listener for each thing that changes the rules; both families, unless `addressedHere` needs its one `to`. */
function configOf(mode: Exclude<Intercept, 'none'>, path: Path): Config {
  const listeners = [
    { name: 'long', ports: [80], sources: PREFIXES, exclude: { destinations: ADDRESSES } },
    { name: 'closed', ports: [81], onDown: 'closed', interfaces: interfacesOf(path), exclude: { sources: '10.0.3.9' } },
    { name: 'here', ports: [82], addressedHere: true, to: '10.0.4.2:80', family: 4, onDown: 'closed' },
    { name: 'client', ports: [83], source: 'client', fwmarks: ['0x1/0xff', '0x2/0xff', '0x100'] },
    { name: 'client-port', ports: [84], source: 'client-port', exclude: { fwmarks: '0x4/0xff', ports: [8_000] } },
    ...(path === 'local' ? OF_PROCESSES : []),
    ...(mode === 'mark' ? [] : [{ name: 'wide', ports: [90, '8000-8100', 443] }]),
    ...ofUdp(mode, path),
  ].map((listener, index) => ({ ...listener, intercept: mode, paths: path, ...listenOf(mode, path, index, listener) }))
  const forwards = [
    { name: 'dns', protocols: ['tcp', 'udp'], ports: 53, to: '10.0.4.2:5353', interfaces: 'lan0' },
    { name: 'web', ports: [8_080, 8_443], to: '[fd00:4::2]', source: 'proxy', destinations: 'fd00:3::101' },
  ]
  // one within another, which the kernel would refuse
  const bypass = ['10.9.0.0/16', '10.9.1.0/24', 'fd09::/32', '192.0.2.77']
  return parseConfig(JSON.stringify({ listeners, forwards, bypass }), 'golden')
}

function ofUdp(mode: Intercept, path: Path) {
  const closed = { ports: [54], onDown: 'closed', interfaces: interfacesOf(path), source: 'client' }
  return [
    { name: 'dns', ports: [53], protocols: ['udp'] },
    { name: 'both', protocols: ['tcp', 'udp'], ...closed },
    ...(mode === 'mark' ? [] : [{ name: 'games', ports: '27000-27100', protocols: ['udp'], ...OF_GAMES }]),
    { name: 'vpn', ports: [51_820], protocols: ['udp'], addressedHere: true, to: '10.0.4.2:80', family: 4 },
  ]
}

const OF_GAMES = { onDown: 'closed', source: 'client-port', exclude: { sources: ADDRESSES, ports: [27_050] } }

const OF_PROCESSES = [
  { name: 'uids', ports: [85], uids: ['0', '1000-1999'], cgroups: ['system.slice/web.service', 'user.slice'] },
  { name: 'not-uids', ports: [86], exclude: { uids: ['0', '65534'], cgroups: 'system.slice/web.service' } },
]

function interfacesOf(path: Path): string[] {
  return { forwarded: ['lan0', 'ppp*'], local: ['wan0'], bridged: ['b-y'] }[path]
}

/** What cannot be left out of the listener's `listen`, or what is worth trying there. */
function listenOf(mode: Intercept, path: Path, index: number, { name, family }: { name: string; family?: number }) {
  const port = 50_080 + 10 * index
  if (mode === 'redirect' && name === 'wide') return { listen: `${port}-${port + 3}` }
  if (mode !== 'dnat') return {}
  const addresses = {
    forwarded: ['10.0.3.101', '[fd00:3::101]'],
    local: ['10.0.4.1', '[fd00:4::1]'],
    bridged: ['10.0.9.101', '[fd00:9::101]'],
  }[path]
  return { listen: addresses.slice(0, family === 4 ? 1 : 2).map((address) => `${address}:${port}`) }
}

const written = new Set<string>()

for (const backend of BACKENDS) {
  for (const path of PATHS) {
    for (const mode of MODES) {
      compare(`${mode}-${path}-${backend}.txt`, () =>
        printPlan(planRuleset(configOf(mode, path), FACTS, { backend, missingInterface: 'refuse' })),
      )
    }
  }
  compare(`none-forwarded-${backend}.txt`, () => {
    const listeners = [{ intercept: 'none', listen: 21, to: '10.0.4.2:21', source: 'client', family: 4 }]
    return printPlan(planRuleset(parseConfig(JSON.stringify({ listeners }), 'golden'), FACTS, { backend }))
  })
}

test('every golden file belongs to a mode, path and backend', () => {
  assert.deepEqual(readdirSync(FOLDER).toSorted(), [...written].toSorted())
})

function compare(file: string, planned: () => string): void {
  written.add(file)
  test(`the rules are those of golden/${file}`, () => {
    const text = planned()
    if (REWRITE) {
      mkdirSync(FOLDER, { recursive: true })
      writeFileSync(join(FOLDER, file), text)
    }
    assert.equal(text, readFileSync(join(FOLDER, file), 'utf8'), 'LIMPID_GOLDEN=write writes it anew')
  })
}

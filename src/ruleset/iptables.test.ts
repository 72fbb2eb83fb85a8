import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ForwardConfig, ListenerConfig } from '../config/types.ts'
import { parsePrefix } from '../net/prefix.ts'
import type { HostFacts } from '../sys/host.ts'
import { allInterceptions, guardsOf, listenerFor, MODES, scriptsOf } from './iptables.fixture.ts'
import { iptablesNotes, iptablesScripts } from './iptables.ts'
import { chainsDigest, parseSaved, replacingChains } from './iptables-commands.ts'
import { chainPrefix } from './iptables-text.ts'
import type { Script } from './script.ts'

const FACTS = { bridges: [{ name: 'br0', mac: '02:00:00:00:00:01', ports: ['p1', 'p2'] }] } as unknown as HostFacts
const prefixes = (...texts: string[]) => texts.map((text) => parsePrefix(text)!)
const render = (...listeners: ListenerConfig[]) => scriptsOf(allInterceptions(listeners, FACTS))
const textOf = (scripts: readonly Script[], program: Script['program']) =>
  scripts.find((script) => script.program === program)?.text ?? ''
const rulesOf = (text: string, chain: string) =>
  text
    .split('\n')
    .filter((line) => line.startsWith(`-A ${chain} `))
    .map((line) => line.slice(`-A ${chain} `.length))

test('alternatives get chains of their own, and exclusions return to where the next listener is asked', () => {
  const match = {
    ...MATCH_ANY,
    interfaces: ['eth0', 'ppp*'],
    sources: prefixes('10.0.3.0/24', '10.0.5.0/24'),
    ports: [{ from: 80, to: 80 }],
  }
  const exclude = { ...MATCH_ANY, destinations: prefixes('10.0.4.9/32'), ports: [{ from: 8_000, to: 8_100 }] }
  const text = textOf(render(listenerFor('tproxy', 'forwarded', { name: 'web', match, exclude })), 'iptables-restore')
  const tproxy = '-j TPROXY --on-port 50080 --on-ip 127.0.0.1 --tproxy-mark 0x10000000/0x30000000'
  assert.ok(
    rulesOf(text, 'limpid-prerouting').includes(
      '-p tcp -m multiport --dports 80 -m comment --comment "listener web" -j limpid-l1',
    ),
    text,
  )
  assert.deepEqual(rulesOf(text, 'limpid-l1'), [
    '-p tcp -m multiport --dports 8000:8100 -j RETURN',
    '-d 10.0.4.9/32 -j RETURN',
    '-p tcp -i eth0 -g limpid-l2',
    '-p tcp -i ppp+ -g limpid-l2',
  ])
  assert.deepEqual(rulesOf(text, 'limpid-l2'), [`-p tcp -s 10.0.3.0/24 ${tproxy}`, `-p tcp -s 10.0.5.0/24 ${tproxy}`])
})

test('more ports than one multiport holds are asked in several rules', () => {
  const ports = Array.from({ length: 9 }, (_, i) => ({ from: 1_000 + 10 * i, to: 1_004 + 10 * i }))
  const match = { ...MATCH_ANY, ports }
  const text = textOf(render(listenerFor('redirect', 'forwarded', { match })), 'iptables-restore')
  const lists = [...text.matchAll(/^-A limpid-l\d+ -p tcp -m multiport --dports (\S+) -j REDIRECT/gm)]
  assert.deepEqual(
    lists.map(([, list]) => list!.split(',').length),
    [7, 2],
  )
})

test('of 10 000 prefixes, a packet is compared with fewer than 600', () => {
  const destinations = Array.from(
    { length: 10_000 },
    (_, i) => parsePrefix(`${1 + (i % 200)}.${i >> 8}.${i & 255}.0/24`)!,
  )
  for (const key of ['match', 'exclude'] as const) {
    const changes = { [key]: { ...MATCH_ANY, destinations } }
    const text = textOf(render(listenerFor('tproxy', 'forwarded', changes)), 'iptables-restore')
    assert.equal([...text.matchAll(/ -d [\d.]+\/24 /g)].length, 10_000)
    assert.ok(longestWalk(text, 'limpid-prerouting') < 600, `${longestWalk(text, 'limpid-prerouting')} rules`)
  }
})

/** How many rules the most unlucky packet is compared with: each chain to its end, and the longest of those it leads to. */
function longestWalk(text: string, chain: string): number {
  const rules = rulesOf(text, chain)
  const inner = rules.map((rule) => / -[jg] (limpid-l\d+)$/.exec(rule)?.[1]).filter((name) => name !== undefined)
  return rules.length + Math.max(0, ...[...new Set(inner)].map((name) => longestWalk(text, name)))
}

test('a family that no listener serves has no chains', () => {
  const listener = listenerFor('redirect', 'forwarded', { families: [4] })
  const interceptions = allInterceptions([listener], FACTS)
  const scripts = iptablesScripts({ rules: DEFAULT_RULES, interceptions, forwards: [], divert: [], bypass: [] })
  assert.deepEqual(
    scripts.map(({ program }) => program),
    ['iptables-restore'],
  )
})

test('a listener for TCP brings no rule for UDP, and the other way round', () => {
  for (const path of ['forwarded', 'local', 'bridged'] as const) {
    for (const mode of MODES) {
      const texts = (['tcp', 'udp'] as const).map((protocol) => {
        const listener = listenerFor(mode, path, { protocols: [protocol], source: 'client', onDown: 'closed' })
        const interceptions = allInterceptions([listener], FACTS)
        return [...scriptsOf(interceptions), ...guardsOf(interceptions)].map(({ text }) => text).join('')
      })
      assert.doesNotMatch(texts[0]!, /udp/, `${mode} ${path}`)
      assert.doesNotMatch(texts[1]!, /tcp/i, `${mode} ${path}`)
    }
  }
})

test('UDP brings conntrack only where its ports may be those that answers go to, and says so', () => {
  for (const [ports, needed] of [
    [[{ from: 53, to: 53 }], false],
    [[{ from: 53, to: 1_023 }], false],
    [[{ from: 53, to: 1_024 }], true],
    [[], true],
  ] as const) {
    const listeners = (['forwarded', 'local'] as const).map((path) =>
      listenerFor('tproxy', path, { protocols: ['udp'], onDown: 'closed', match: { ...MATCH_ANY, ports } }),
    )
    const interceptions = allInterceptions(listeners, FACTS)
    for (const { text } of [...scriptsOf(interceptions), ...guardsOf(interceptions)]) {
      assert.equal(/conntrack|CONNMARK/.test(text), needed, text)
    }
    assert.equal(iptablesNotes(interceptions).length > 0, needed)
  }
})

test('conditions that no packet of a family fulfils leave that family out', () => {
  const match = { ...MATCH_ANY, sources: prefixes('10.0.3.0/24') }
  const scripts = render(listenerFor('tproxy', 'forwarded', { match }))
  assert.match(textOf(scripts, 'iptables-restore'), /TPROXY/)
  assert.doesNotMatch(textOf(scripts, 'ip6tables-restore'), /TPROXY/)
})

test('who sent a packet is asked where it is sent, and not again where it comes back', () => {
  const match = { ...MATCH_ANY, uids: [{ from: 1_000, to: 1_999 }], cgroups: ['system.slice/web.service'] }
  const text = textOf(render(listenerFor('tproxy', 'local', { match })), 'iptables-restore')
  assert.match(text, /^-A limpid-output .*-m owner --uid-owner 1000-1999 -m cgroup --path "system.slice\/web.service"/m)
  assert.doesNotMatch(rulesOf(text, 'limpid-back').join('\n'), /owner|cgroup/)
})

test('a listener whose source is the proxy needs no conntrack zone', () => {
  for (const [source, zoned] of [
    ['proxy', false],
    ['client', true],
    ['client-port', true],
  ] as const) {
    const text = textOf(render(listenerFor('redirect', 'forwarded', { source })), 'iptables-restore')
    assert.equal(text.includes('--zone-orig'), zoned, source)
  }
})

test('without closed listeners there is no guard', () => {
  assert.deepEqual(guardsOf(allInterceptions([listenerFor('tproxy', 'forwarded')], FACTS)), [])
})

test('a forward is rewritten for each of its protocols, and masqueraded only when the server is to see the proxy', () => {
  const forward: ForwardConfig = {
    ...{ name: 'dns', protocols: ['tcp', 'udp'], match: { ...MATCH_ANY, ports: [{ from: 53, to: 53 }] } },
    ...{ exclude: MATCH_ANY, to: { address: '10.0.4.2', port: 5_353 }, source: 'client', healthMs: 0 },
  }
  const input = { rules: DEFAULT_RULES, interceptions: [], bypass: [], divert: [] }
  const own = iptablesScripts({ ...input, forwards: [forward] })
  assert.deepEqual(
    own.map(({ program }) => program),
    ['iptables-restore'],
  )
  assert.equal([...own[0]!.text.matchAll(/--dst-type LOCAL .*-j DNAT --to-destination 10\.0\.4\.2:5353$/gm)].length, 2)
  assert.doesNotMatch(own[0]!.text, /MASQUERADE/)
  const masked = iptablesScripts({ ...input, forwards: [{ ...forward, source: 'proxy' }] })
  assert.equal([...masked[0]!.text.matchAll(/-d 10\.0\.4\.2 --dport 5353 .*-j MASQUERADE$/gm)].length, 2)
})

test('the digest changes with the rules, and is found in the text and in a listing', () => {
  const [one] = render(listenerFor('tproxy', 'forwarded'))
  const [other] = render(listenerFor('tproxy', 'forwarded', { onDown: 'closed', source: 'client', name: 'x' }))
  assert.notEqual(chainsDigest(one!.text), chainsDigest(other!.text))
  assert.match(chainsDigest(one!.text)!, /^[0-9a-f]{12}$/)
  const ebtables = textOf(render(listenerFor('tproxy', 'bridged')), 'ebtables-restore')
  assert.match(chainsDigest(ebtables)!, /^[0-9a-f]{12}$/)
})

test('names of chains stay within what the kernel takes, however long the configured name', () => {
  for (const name of ['limpid', 'limpid-two', `limpid${'x'.repeat(24)}`]) {
    assert.ok(`${chainPrefix(name)}-guard-prerouting`.length <= 28, name)
  }
})

const SAVED = `*mangle
:PREROUTING ACCEPT [5:300]
:limpid-prerouting - [0:0]
:limpid-old - [0:0]
:limpid-guard-forward - [0:0]
:other - [0:0]
-A PREROUTING -j other
-A PREROUTING -p tcp -m comment --comment "limpid 0123456789ab" -j limpid-prerouting
-A FORWARD -m comment --comment "limpid 0123456789ac" -j limpid-guard-forward
-A limpid-prerouting -j limpid-old
-A other -j ACCEPT
COMMIT
`

test('what is replaced goes in the same step as what comes, and nothing of others is touched', () => {
  const text = replacingChains(
    'iptables-restore',
    parseSaved(SAVED, 'limpid'),
    textOf(render(listenerFor('tproxy', 'forwarded')), 'iptables-restore'),
  )
  const lines = text.split('\n')
  assert.equal(lines.filter((line) => line === '*mangle').length, 1)
  assert.ok(lines.includes('-D PREROUTING -p tcp -m comment --comment "limpid 0123456789ab" -j limpid-prerouting'))
  assert.ok(lines.includes('-X limpid-old'))
  assert.ok(!lines.includes('-X limpid-prerouting'))
  assert.doesNotMatch(text, /other|guard/)
})

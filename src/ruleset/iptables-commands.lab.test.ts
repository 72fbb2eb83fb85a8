import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { MATCH_ANY } from '../config/defaults.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { parsePrefix } from '../net/prefix.ts'
import { hostFacts } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import { allInterceptions, asChains, guardsOf, listenerFor, scriptsOf } from './iptables.fixture.ts'
import {
  chainsDigest,
  checkRules,
  listChains,
  listChainsWithCounters,
  listOurChains,
  loadChains,
  removeChains,
} from './iptables-commands.ts'

await enterNamespaces()

const LISTED = allInterceptions(
  [listenerFor('redirect', 'forwarded', { source: 'client', onDown: 'closed' })],
  hostFacts(),
)

afterEach(async () => {
  for (const { program, name } of await listOurChains()) await removeChains(program, name)
})

const saved = async () => (await mustRun('iptables-save', [])).replaceAll(/^#.*\n|\[\d+:\d+\]/gm, '')

test('loading twice leaves what loading once does, with the digest of the script', async () => {
  const [script] = scriptsOf(LISTED).map(asChains)
  await loadChains(script!)
  const once = await listChains('iptables-restore', 'limpid')
  await loadChains(script!)
  assert.deepEqual(await listChains('iptables-restore', 'limpid'), once)
  assert.equal(once!.digest, chainsDigest(script!.text))
  assert.match(await listChainsWithCounters('iptables-restore', 'limpid'), /^\[0:0\] -A limpid-/m)
})

test('rules of others are as they were after load, change and removal, and so is their order', async () => {
  const others = [
    '*nat',
    ':OTHER - [0:0]',
    '-A PREROUTING -p tcp --dport 9 -j OTHER',
    '-A OTHER -j ACCEPT',
    'COMMIT',
    '',
  ]
  await mustRun('iptables-restore', ['--noflush'], { input: others.join('\n') })
  for (const { text, ...script } of scriptsOf(LISTED).map(asChains))
    await loadChains({ ...script, text: text.replaceAll(/^-A .*\n/gm, '') })
  await removeChains('iptables-restore', 'limpid')
  const before = await saved() // with the tables that loading made
  for (const script of [...scriptsOf(LISTED), ...guardsOf(LISTED)].map(asChains)) await loadChains(script)
  const wider = allInterceptions([listenerFor('tproxy', 'forwarded', { match: MATCH_ANY })], hostFacts())
  for (const script of scriptsOf(wider).map(asChains)) await loadChains(script)
  assert.notEqual(await saved(), before)
  for (const { program, name } of await listOurChains()) await removeChains(program, name)
  assert.deepEqual(sections(await saved()), { ...sections(await saved()), ...sections(before) })
  await mustRun('iptables-restore', ['--noflush'], {
    input: '*nat\n-D PREROUTING -p tcp --dport 9 -j OTHER\n-F OTHER\n-X OTHER\nCOMMIT\n',
  })
})

/** The rules of each table; one without is as one that is not there. */
function sections(text: string): Record<string, string> {
  const parts = text.split(/^\*/m).slice(1)
  return Object.fromEntries(
    parts.map((part) => [
      part.split('\n')[0]!,
      part
        .split('\n')
        .filter((line) => line.startsWith('-A'))
        .join('\n'),
    ]),
  )
}

test('chains and guard are told apart, and removed apart', async () => {
  for (const script of [...scriptsOf(LISTED), ...guardsOf(LISTED)].map(asChains)) await loadChains(script)
  const names = (await listOurChains()).map(({ program, name }) => `${program} ${name}`)
  assert.deepEqual(names, [
    'iptables-restore limpid',
    'iptables-restore limpid-guard',
    'ip6tables-restore limpid',
    'ip6tables-restore limpid-guard',
  ])
  await removeChains('iptables-restore', 'limpid')
  assert.equal(await listChains('iptables-restore', 'limpid'), undefined)
  assert.match((await listChains('iptables-restore', 'limpid-guard'))!.listing, /-j DROP/)
})

test('a rule that the kernel refuses is named, and nothing of its table is left', async () => {
  const text = '*mangle\n:limpid-prerouting - [0:0]\n-A limpid-prerouting -m owner --uid-owner 1 -j ACCEPT\nCOMMIT\n'
  await assert.rejects(loadChains({ program: 'iptables-restore', name: 'limpid', text }), {
    code: 'LIMPID_PROGRAM',
  })
  assert.equal(await listChains('iptables-restore', 'limpid'), undefined)
})

test('the kernel is asked for what it can by rules that are gone afterwards', async () => {
  const tproxy = { table: 'mangle', rule: '-p tcp -j TPROXY --on-port 1 --on-ip 127.0.0.1' }
  const nonsense = { table: 'nat', rule: '-j NOSUCH' }
  assert.equal(await checkRules('iptables-restore', [tproxy]), undefined)
  assert.match((await checkRules('iptables-restore', [tproxy, nonsense]))!, /NOSUCH/)
  assert.deepEqual(await listOurChains(), [])
})

test('10 000 prefixes load within five seconds', async (t) => {
  const destinations = Array.from(
    { length: 10_000 },
    (_, i) => parsePrefix(`${1 + (i % 200)}.${i >> 8}.${i & 255}.0/24`)!,
  )
  const interceptions = allInterceptions(
    [listenerFor('tproxy', 'forwarded', { match: { ...MATCH_ANY, destinations }, families: [4] })],
    hostFacts(),
  )
  const [script] = scriptsOf(interceptions).map(asChains)
  const begun = performance.now()
  await loadChains(script!)
  const took = performance.now() - begun
  t.diagnostic(`${took.toFixed(0)} ms`)
  assert.ok(took < 30_000, `${took.toFixed(0)} ms`)
  await loadChains(script!)
  const listing = await listChains('iptables-restore', 'limpid')
  assert.equal([...listing!.listing.matchAll(/ -d \S+\/24 /g)].length, 10_000)
})

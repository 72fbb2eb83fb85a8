import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MATCH_ANY } from '../config/defaults.ts'
import { parsePortRange } from '../net/ports.ts'
import { formatPrefix, parsePrefix } from '../net/prefix.ts'
import {
  matchConditions,
  mergedRanges,
  NamedSets,
  portExpression,
  withoutConditions,
  withoutContained,
} from './nft-match.ts'

const prefixes = (...texts: string[]) => texts.map((text) => parsePrefix(text)!)
const ports = (...texts: string[]) => texts.map((text) => parsePortRange(text)!)

test('prefixes within others are left out, whatever their order', () => {
  const kept = withoutContained(prefixes('10.1.0.0/16', '192.168.0.1', '10.0.0.0/8', '10.0.0.0/8', '192.168.0.0/31'))
  assert.deepEqual(kept.map(formatPrefix), ['10.0.0.0/8', '192.168.0.0/31'])
})

test('port ranges that overlap or touch are joined', () => {
  assert.deepEqual(mergedRanges(ports('443', '80', '8000-8100', '81', '8050-9000')), ports('80-81', '443', '8000-9000'))
  assert.equal(portExpression(ports('443', '80')), '{ 80, 443 }')
  assert.equal(portExpression(ports('443')), '443')
  assert.equal(portExpression(ports('1-65535')), undefined)
  assert.equal(portExpression([]), undefined)
})

test('a match for the other family takes nothing; one for everything has no condition', () => {
  const match = { ...MATCH_ANY, sources: prefixes('10.0.0.0/8') }
  assert.deepEqual(matchConditions(match, 4, 'x', new NamedSets()), ['ip saddr 10.0.0.0/8'])
  assert.equal(matchConditions(match, 6, 'x', new NamedSets()), undefined)
  const all = { ...MATCH_ANY, sources: prefixes('0.0.0.0/0', '10.0.0.0/8') }
  assert.deepEqual(matchConditions(all, 4, 'x', new NamedSets()), [])
})

test('each list of exclusions excludes by itself', () => {
  const exclude = {
    ...MATCH_ANY,
    interfaces: ['eth1'],
    sources: prefixes('10.0.0.1', 'fd00::/8'),
    destinations: prefixes('fd01::1'),
    ports: ports('22', '25'),
  }
  assert.deepEqual(withoutConditions(exclude, 4, 'x', new NamedSets()), [
    'iifname != "eth1"',
    'ip saddr != 10.0.0.1',
    'tcp dport != { 22, 25 }',
  ])
  assert.deepEqual(withoutConditions(exclude, 6, 'x', new NamedSets()), [
    'iifname != "eth1"',
    'ip6 saddr != fd00::/8',
    'ip6 daddr != fd01::1',
    'tcp dport != { 22, 25 }',
  ])
  assert.equal(withoutConditions({ ...MATCH_ANY, destinations: prefixes('::/0') }, 6, 'x', new NamedSets()), undefined)
  assert.equal(withoutConditions({ ...MATCH_ANY, ports: ports('1-65535') }, 6, 'x', new NamedSets()), undefined)
})

test('a long list becomes a named set', () => {
  const sets = new NamedSets()
  const many = Array.from({ length: 9 }, (_, i) => parsePrefix(`10.${i}.0.0/16`)!)
  assert.equal(sets.expression('web-sources', 4, many), '@web-sources4')
  assert.ok(sets.lines().includes('set web-sources4 {'))
})

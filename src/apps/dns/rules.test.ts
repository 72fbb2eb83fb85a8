import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DnsRule } from '../../config/types.ts'
import { queryFor } from '../../inspect/dns.fixture.ts'
import { emptyQuery, readQuery } from '../../inspect/dns.ts'
import { questionKey } from './question-key.ts'
import { DnsRules } from './rules.ts'
import { KnownUpstreams } from './upstreams.ts'

const NO_RULE: DnsRule = {
  name: 'r',
  names: [],
  suffixes: [],
  types: [],
  decision: 'forward',
  answers: undefined,
  to: [],
}

function finder(...rules: Partial<DnsRule>[]): (name: string, type?: string) => string | undefined {
  const known = new KnownUpstreams()
  const ready = new DnsRules(
    rules.map((rule) => ({ ...NO_RULE, ...rule })),
    (endpoints) => known.group(endpoints),
  )
  return (name, type = 'A') => {
    const message = queryFor(name, { type })
    const query = emptyQuery()
    assert.equal(readQuery(message, query), undefined)
    return ready.find(questionKey(message, query, undefined, undefined), query.nameEnd, query.qtype)?.decision
  }
}

test('a name is exact, a suffix is the name itself and all below it, in whatever case', () => {
  const find = finder({ names: ['one.example'], decision: 'nxdomain' }, { suffixes: ['two.example'], decision: 'drop' })
  assert.deepEqual(
    ['one.example', 'ONE.example', 'a.one.example', 'xone.example'].map((name) => find(name)),
    ['nxdomain', 'nxdomain', undefined, undefined],
  )
  assert.deepEqual(
    ['two.example', 'a.b.Two.Example', 'xtwo.example', 'example'].map((name) => find(name)),
    ['drop', 'drop', undefined, undefined],
  )
})

test('the first rule that takes name and type decides, however it names them', () => {
  const find = finder(
    { names: ['a.ads.example'], types: [28], decision: 'drop' },
    { suffixes: ['a.ads.example'], types: [1], decision: 'refuse' },
    { suffixes: ['ads.example'], decision: 'nxdomain' },
    { types: [16], decision: 'refuse' },
    { names: ['a.ads.example'], decision: 'answer' },
    { suffixes: ['.'], decision: 'forward' },
    { decision: 'answer' },
  )
  assert.equal(find('a.ads.example', 'AAAA'), 'drop')
  assert.equal(find('a.ads.example'), 'refuse')
  assert.equal(find('a.ads.example', 'TXT'), 'nxdomain')
  assert.equal(find('else.example', 'TXT'), 'refuse')
  assert.equal(find('else.example'), 'forward')
  assert.equal(find('.'), 'forward')
  assert.equal(finder()('a.example'), undefined)
})

test('a hundred thousand names are found, and no other', () => {
  const suffixes = Array.from({ length: 50_000 }, (_, i) => `s${i}.example`)
  const names = Array.from({ length: 50_000 }, (_, i) => `n${i}.example`)
  const find = finder({ suffixes, decision: 'nxdomain' }, { names, decision: 'refuse' })
  assert.equal(find('deep.below.s49999.example'), 'nxdomain')
  assert.equal(find('n49999.example'), 'refuse')
  assert.equal(find('n50000.example'), undefined)
  assert.equal(find('below.n1.example'), undefined)
})

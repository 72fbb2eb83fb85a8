import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { matchesPattern, type NameEntry, parseNameEntry } from './name-entry.ts'
import { MAX_PATTERNS, type NameSet, NameSetBuilder } from './name-set.ts'

function setOf(texts: readonly string[], seed?: number): NameSet {
  const builder = new NameSetBuilder(seed)
  for (const text of texts) assert.equal(builder.add(parseNameEntry(text)!), true, text)
  return builder.build()
}

test('an exact name is that name, a suffix also what is below it, *. only what is below it, at any depth', () => {
  const set = setOf(['www.example.org', '.example.com', '*.example.net'])
  for (const name of [
    'www.example.org',
    'example.com',
    'a.example.com',
    'a.b.example.com',
    'a.example.net',
    'a.b.example.net',
  ])
    assert.equal(set.has(name), true, name)
  for (const name of [
    'example.org',
    'a.www.example.org',
    'example.net',
    'badexample.com',
    'com',
    'org',
    'example.com.evil',
  ])
    assert.equal(set.has(name), false, name)
  assert.equal(set.size, 3)
})

test('* elsewhere stands for any characters, dots too, or none', () => {
  const set = setOf(['ads*.example.org', '*tracker*', 'www.example.*', 'a*b*c.d'])
  for (const name of [
    'ads.example.org',
    'ads1.x.example.org',
    'tracker',
    'my-tracker7.net',
    'www.example.co.uk',
    'abc.d',
    'a-b-b-c.d',
  ])
    assert.equal(set.has(name), true, name)
  for (const name of ['ad.example.org', 'xads.example.org', 'www.examples.org', 'acb.d', 'ac.d'])
    assert.equal(set.has(name), false, name)
})

test('the parts of a pattern do not overlap in a name', () => {
  assert.equal(matchesPattern('aba', ['ab', 'ba']), false)
  assert.equal(matchesPattern('abba', ['ab', 'ba']), true)
  assert.equal(matchesPattern('ab', ['a', 'b', 'b']), false)
})

test('the entry that matched is told as its list has it: the most particular one', () => {
  const set = setOf(['.org', '*.example.org', 'www.example.org', '.www.example.org', 'www*', '.Example.COM.'])
  assert.equal(set.find('www.example.org'), 'www.example.org')
  assert.equal(set.find('a.www.example.org'), '.www.example.org')
  assert.equal(set.find('b.example.org'), '*.example.org')
  assert.equal(set.find('example.org'), '.org')
  assert.equal(set.find('www.example.net'), 'www*')
  assert.equal(set.find('example.com'), '.example.com')
  assert.equal(set.find('example.net'), undefined)
})

test('what is no entry, or would match everything, is none', () => {
  for (const text of [
    '',
    '.',
    '*',
    '**',
    '*.',
    '*.*',
    '..',
    '.*',
    'a b',
    '||ads.com^',
    '-a',
    'a..b',
    '*a..b',
    '10.0.0.1',
    'a/b',
    '*.a.*b c',
  ])
    assert.equal(parseNameEntry(text), undefined, text)
  assert.equal(parseNameEntry('a*b*c*d*e*f*g*h*i*j'), undefined)
})

test('there are no more patterns than can be tried one by one', () => {
  const builder = new NameSetBuilder()
  for (let i = 0; i < MAX_PATTERNS; i++) assert.equal(builder.add({ kind: 'pattern', text: `a*${i}` }), true)
  assert.equal(builder.add({ kind: 'pattern', text: 'a*0' }), true)
  assert.equal(builder.add({ kind: 'pattern', text: 'b*' }), false)
})

test('an empty set has nothing', () => {
  assert.equal(setOf([]).has('example.org'), false)
  assert.equal(setOf([]).has(''), false)
})

const label = fc.constantFrom('a', 'b', 'aa', 'ab', 'x-1', '_s')
const name = fc.array(label, { minLength: 1, maxLength: 5 }).map((labels) => labels.join('.'))
const entry = fc.oneof(
  name,
  name.map((text) => `.${text}`),
  name.map((text) => `*.${text}`),
  fc.tuple(name, name).map(([before, behind]) => `${before}*${behind}`),
)

test('a set answers as its entries do, tried one by one', () => {
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 60 }),
      fc.array(name, { maxLength: 30 }),
      fc.integer(),
      (texts, names, seed) => {
        const set = setOf(texts, seed)
        const entries = texts.map((text) => parseNameEntry(text)!)
        assert.equal(set.size, new Set(texts).size - repeatedKinds(texts))
        for (const asked of names) {
          const matching = entries.filter((one) => matchesNaively(one, asked)).map(textOf)
          assert.equal(set.has(asked), matching.length > 0, asked)
          const found = set.find(asked)
          assert.equal(found !== undefined, matching.length > 0, asked)
          if (found !== undefined) assert.ok(matching.includes(found), `${asked}: ${found} of ${matching}`)
          const longest = Math.max(0, ...matching.filter((text) => !text.slice(1).includes('*')).map(baseLength))
          if (longest > 0) assert.equal(baseLength(found!), longest, asked)
        }
      },
    ),
    { numRuns: 500 },
  )
})

/** A name counts once, whatever the kinds it is in the list as. */
function repeatedKinds(texts: readonly string[]): number {
  const named = [...new Set(texts)].filter((text) => !text.slice(1).includes('*'))
  return named.length - new Set(named.map((text) => text.replace(/^\*?\./, ''))).size
}

const baseLength = (text: string): number => text.replace(/^\*?\./, '').length

function textOf(one: NameEntry): string {
  if (one.kind === 'pattern') return one.text
  return `${one.kind === 'exact' ? '' : one.kind === 'suffix' ? '.' : '*.'}${one.name}`
}

function matchesNaively(one: NameEntry, asked: string): boolean {
  if (one.kind === 'pattern') {
    return new RegExp(`^${one.text.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(asked)
  }
  const isSame = asked === one.name
  const isBelow = asked.endsWith(`.${one.name}`)
  return one.kind === 'exact' ? isSame : one.kind === 'below' ? isBelow : isSame || isBelow
}

test('100,000 names take 12 bytes each besides their own and two, and are all found', () => {
  const builder = new NameSetBuilder()
  const names = Array.from({ length: 100_000 }, (_, i) => `host-${i}.example${i % 7}.org`)
  for (const text of names) builder.add({ kind: 'exact', name: text })
  const set = builder.build()
  assert.equal(set.size, names.length)
  assert.ok(names.every((text) => set.has(text)))
  assert.ok(!names.some((text) => set.has(`x${text}`)))
  assert.ok(set.bytes <= names.reduce((sum, text) => sum + text.length + 2 + 12, 16), `${set.bytes}`)
})

test('repeated names give their bytes back', () => {
  const builder = new NameSetBuilder()
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 100_000; i++) builder.add({ kind: 'suffix', name: `a-rather-long-name-${i}.example.org` })
  }
  const set = builder.build()
  assert.equal(set.size, 100_000)
  assert.ok(set.bytes < 100_000 * (2 + 36 + 3 * 12), `${set.bytes}`)
  for (let i = 0; i < 100_000; i += 99) assert.equal(set.has(`www.a-rather-long-name-${i}.example.org`), true)
})

test('names that hash alike are told apart by their bytes', () => {
  const seed = 1
  const [one, other] = ['lzt8.test', 'pa3f.test'] as const // found by trying: one hash with this seed
  assert.equal(setOf([one], seed).has(other), false)
  const both = setOf([one, other], seed)
  assert.deepEqual([both.size, both.find(one), both.find(other)], [2, one, other])
})

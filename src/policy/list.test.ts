import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { MAX_PROBLEMS } from '../config/problem.ts'
import { formatPrefix } from '../net/prefix.ts'
import { type List, MAX_ENTRIES, parseList } from './list.ts'
import type { ListError } from './list-error.ts'
import { MAX_PREFIXES } from './list-line.ts'

const parsed = (text: string | Buffer): Promise<List> => parseList(Buffer.from(text as string), 'ads.txt')

async function problemsOf(text: string | Buffer): Promise<readonly string[]> {
  try {
    await parsed(text)
  } catch (error) {
    return (error as ListError).problems
  }
  return []
}

test('a list has names, suffixes, wildcards, patterns, addresses and prefixes, one a line, with comments', async () => {
  const list = await parsed(
    '\ufeff# ads\n\nWWW.Example.org.\r\n  .example.com # all of it\n*.example.net\nads*.example.de\n10.0.3.0/24\n192.0.2.7\nfd00::/8\n::1',
  )
  for (const name of ['www.example.org', 'example.com', 'a.example.net', 'ads3.example.de'])
    assert.equal(list.names.has(name), true, name)
  assert.equal(list.names.size, 4)
  for (const address of ['10.0.3.9', '192.0.2.7', 'fd12::1', '::1'])
    assert.equal(list.prefixes.has(address), true, address)
  assert.equal(formatPrefix(list.prefixes.find('10.0.3.9')!), '10.0.3.0/24')
  assert.equal(list.prefixes.size, 4)
})

test('of a hosts file the names count, not the addresses nor the host itself', async () => {
  const list = await parsed(
    '127.0.0.1 localhost\n::1\tip6-localhost ip6-loopback\nfe80::1%lo0 localhost\n0.0.0.0 0.0.0.0\n0.0.0.0 ads.example.org\n:: ads.example.org track.example.org # both\n',
  )
  assert.equal(list.names.size, 2)
  assert.equal(list.names.find('track.example.org'), 'track.example.org')
  assert.equal(list.prefixes.size, 0)
})

test('a name in another script is the name on the wire', async () => {
  const list = await parsed('bücher.example\n.Straße.example\n*.例え。テスト\n')
  for (const name of ['xn--bcher-kva.example', 'a.xn--strae-oqa.example', 'a.xn--r8jz45g.xn--zckzah'])
    assert.equal(list.names.has(name), true, name)
})

test('what is wrong is told with file and line, all of it', async () => {
  const problems = await problemsOf(
    'good.example\n||ads.example^\n\n10.0.3.1/24\n10.0.0.0/33\na b\nexample.org/path\n*\nads*.bücher.example\n-a.example\n0.0.0.0 a..b\n1.2.3\nb%41ü.example\n',
  )
  assert.deepEqual(
    problems.map((problem) => problem.split(': ')[0]),
    [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map((line) => `ads.txt:${line}`),
  )
  assert.match(problems[0]!, /found "\|\|ads\.example\^"/)
  assert.match(problems[1]!, /host bits must be zero, as in 10\.0\.3\.0\/24/)
  assert.match(problems[3]!, /one entry/)
})

test('bytes that are not UTF-8 are told in an entry, and do not matter in a comment', async () => {
  assert.match(
    (await problemsOf(Buffer.from('a.example\nb\xfccher.example\n', 'latin1')))[0] ?? '',
    /ads\.txt:2: .*not UTF-8/,
  )
  assert.deepEqual(await problemsOf(Buffer.from('# f\xfcr alle\na.example\n', 'latin1')), [])
})

test('a file of another kind ends after some problems, and control characters are escaped in them', async () => {
  const problems = await problemsOf('<html>\x1b[31m\n'.repeat(100_000))
  assert.equal(problems.length, MAX_PROBLEMS)
  assert.equal(problems.join('').includes('\x1b'), false)
  assert.ok(problems.every((problem) => problem.length < 300))
  assert.match((await problemsOf('a'.repeat(100_000)))[0] ?? '', /ads\.txt:1: a line of more than 16384 bytes/)
})

test('a list is bounded in entries, in prefixes and in patterns', async () => {
  assert.match((await problemsOf('\n'.repeat(MAX_ENTRIES + 1)))[0] ?? '', /more than 2000000 lines or entries/)
  const pattern = Array.from({ length: 1_001 }, (_, i) => `a${i}*b`).join('\n')
  assert.match((await problemsOf(pattern))[0] ?? '', /ads\.txt:1001: more than 1000 patterns/)
  const prefixes = Array.from({ length: MAX_PREFIXES + 1 }, (_, i) => `${i >> 16}.${(i >> 8) & 255}.${i & 255}.1`)
  assert.match((await problemsOf(prefixes.join('\n')))[0] ?? '', /ads\.txt:250001: more than 250000 prefixes/)
})

test('lines are the same wherever the pieces end that they are read in', async () => {
  const line = fc.integer({ min: 1, max: 60 }).map((length) => 'a'.repeat(length))
  await fc.assert(
    fc.asyncProperty(fc.array(line, { minLength: 500, maxLength: 900 }), fc.boolean(), async (names, isEnded) => {
      const numbered = names.map((name, i) => `${name}${i}.example`)
      const list = await parsed(numbered.join('\n') + (isEnded ? '\n' : ''))
      assert.equal(list.names.size, numbered.length)
      assert.ok(numbered.every((name) => list.names.has(name)))
    }),
    { numRuns: 20 },
  )
})

test('other work goes on while a list is read, and reading can be given up', async () => {
  const text = Array.from({ length: 200_000 }, (_, i) => `host${i}.example.org`).join('\n')
  let turns = 0
  const count = (): void => {
    turns++
    next = setImmediate(count)
  }
  let next = setImmediate(count)
  await parsed(text)
  clearImmediate(next)
  assert.ok(turns > 3, `${turns}`)
  const closing = new AbortController()
  setImmediate(() => closing.abort())
  await assert.rejects(parseList(Buffer.from(text), 'ads.txt', closing.signal), { name: 'AbortError' })
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { canonicalHost } from './host-name.ts'

test('a name has one form, whatever its case and with or without the dot of the root', () => {
  for (const text of ['www.example.org', 'WWW.Example.ORG', 'www.example.org.']) {
    assert.equal(canonicalHost(text), 'www.example.org')
  }
  assert.equal(canonicalHost('_sip.xn--bcher-kva.example'), '_sip.xn--bcher-kva.example')
  assert.equal(canonicalHost('localhost'), 'localhost')
})

test('what is no host name has no form: it matches nothing', () => {
  const long = `${'a'.repeat(63)}.`.repeat(4)
  for (const text of [
    '',
    '.',
    '..',
    'a..b',
    '.a',
    'a..',
    '10.0.4.2',
    '[::1]',
    '::1',
    '0x7f000001',
    '127.0.0x1',
    'a b',
    'a\0.b',
    'a/b',
    '-a.b',
    'a-.b',
    'bücher.de',
    `${'a'.repeat(64)}.b`,
    long,
  ]) {
    assert.equal(canonicalHost(text), undefined, JSON.stringify(text))
  }
  assert.equal(canonicalHost(long.slice(0, -3))?.length, 253)
})

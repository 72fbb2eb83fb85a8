import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printable } from './printable.ts'

test('a terminal obeys nothing of it, and it stays one line', () => {
  assert.equal(printable('a\x1b[31m\r\nb\x9b2J\x7f\0'), 'a\\u001b[31m\\u000d\\u000ab\\u009b2J\\u007f\\u0000')
  assert.equal(printable('a\u2028b\u202ec'), 'a\\u2028b\\u202ec')
  for (let code = 0; code < 0xa0; code++) {
    const shown = printable(String.fromCharCode(code))
    assert.match(shown, code < 0x20 || code >= 0x7f ? /^\\u00[\da-f]{2}$/ : /^[ -~]$/)
  }
})

test('other text is left as it is, and JSON says the same afterwards', () => {
  for (const text of ['www.example.org', 'Grüße → ✓', '{"a":"b\\n"}']) assert.equal(printable(text), text)
  const value = { text: '\x7f\x9b\u2028' }
  assert.deepEqual(JSON.parse(printable(JSON.stringify(value))), value)
})

import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { readConfig } from './find.ts'
import { uidOfUnknown } from './trusted-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'limpid-trust-'))
const file = join(folder, 'limpid.yaml')
writeFileSync(file, 'listeners: []\n')
after(() => rmSync(folder, { recursive: true }))

const OTHERS_WRITE = { code: 'LIMPID_CONFIG', message: /limpid\.yaml is not followed: others can write it/ }

test('a configuration that others can write is not followed, though it may be looked at', () => {
  chmodSync(file, 0o646)
  assert.throws(() => readConfig(file, { decides: true }), OTHERS_WRITE)
  assert.equal(readConfig(file), 'listeners: []\n')
  chmodSync(file, 0o644)
  assert.equal(readConfig(file, { decides: true }), 'listeners: []\n')
})

test('nor is one that belongs to somebody else', { skip: process.geteuid!() === 0 ? false : 'needs root' }, (t) => {
  try {
    chownSync(file, 12_345, 0)
  } catch {
    t.skip('this namespace has one user alone')
    return
  }
  assert.throws(() => readConfig(file, { decides: true }), {
    code: 'LIMPID_CONFIG',
    message: /it belongs to uid 12345/,
  })
  chownSync(file, 0, 0)
})

test('what is no file is read by whoever gives it', () => {
  assert.equal(readConfig('/dev/null', { decides: true }), '') // mode 0666
})

test('owners that a user namespace does not know are told from others', () => {
  const all = '         0          0 4294967295\n'
  assert.equal(uidOfUnknown(all, '65534\n'), undefined)
  assert.equal(uidOfUnknown('0 0 1000\n1000 1000 4294966295\n', '65534\n'), undefined)
  assert.equal(uidOfUnknown('         0       1000          1\n', '65534\n'), 65_534)
  assert.equal(uidOfUnknown('0 1000 1\n1 100000 65536\n', '65534\n'), 65_534)
  assert.equal(uidOfUnknown('0 1000 1\n', ''), undefined)
})

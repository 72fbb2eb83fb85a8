import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { listener } from './parse.fixture.ts'
import { parseConfig } from './parse.ts'
import { readPolicyFolder } from './policy-folder.ts'

const folder = mkdtempSync(join(tmpdir(), 'limpid-policy-'))
const file = join(folder, 'policy.yaml')
const gateway = parseConfig(listener(), 'f')
mkdirSync(join(folder, 'lists'))
for (const name of ['ads', 'unused', '.hidden', 'no name']) writeFileSync(join(folder, 'lists', name), 'a.example\n')

after(() => rmSync(folder, { recursive: true }))

function read(text: string) {
  writeFileSync(file, text)
  chmodSync(file, 0o644)
  return readPolicyFolder(folder, gateway)
}

test('files beside a policy are lists, of which it has those that its rules name', () => {
  const { lists, rules } = read('rules: [{ lists: [ads], then: reject }]')
  assert.deepEqual(lists, { ads: join(folder, 'lists', 'ads') })
  assert.equal(rules[0]!.name, 'rule-1')
})

for (const [what, text, problem] of [
  [
    'a list that is not there',
    'rules: [{ lists: [gone], then: reject }]',
    /policy\.yaml:1:18: expected ads, unused|own key "lists"/,
  ],
  [
    'a listener of another gateway',
    'rules: [{ listeners: [mail], then: reject }]',
    /policy\.yaml:1:22: expected web, found "mail"/,
  ],
  [
    'a relative path',
    'lists: { x: lists/ads }\nrules: [{ lists: [x], then: reject }]',
    /1:13: expected an absolute path/,
  ],
  [
    'a list in two places',
    'lists: { ads: /tmp/x }\nrules: [{ lists: [ads], then: reject }]',
    /1:15: list "ads" lies beside/,
  ],
  ['a whole configuration', 'policy: { rules: [] }', /policy\.yaml:1:1: expected one of .*found "policy"/],
  [
    'keys of a rule',
    'rules:\n  - { then: reject, hostz: [a] }',
    /policy\.yaml:2:21: expected a known key, found "hostz"/,
  ],
] as const) {
  test(`${what}: told, with its place`, () => assert.throws(() => read(text), problem))
}

test('a policy that others can write is not read (T22)', () => {
  writeFileSync(file, 'rules: []')
  chmodSync(file, 0o666)
  assert.throws(() => readPolicyFolder(folder, gateway), /LIMPID_CONFIG|others can write it/)
})

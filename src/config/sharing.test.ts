import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listener, problemsOf } from './parse.fixture.ts'
import { parseConfig } from './parse.ts'

test('a bucket is kept below /var/lib/limpid, and servers are given their scheme and port', () => {
  const { nats, policyFrom, records } = parseConfig(
    `${listener()}
nats: { servers: [10.0.0.5, 'tls://nats.example:4223', '[fd00::5]'], tls: {} }
policyFrom: { bucket: limpid-policy }
records: { subject: limpid.flows }
`,
    'f',
  )
  assert.deepEqual(nats!.servers, ['nats://10.0.0.5:4222', 'tls://nats.example:4223', 'nats://[fd00::5]:4222'])
  assert.deepEqual(policyFrom, {
    kind: 'bucket',
    bucket: 'limpid-policy',
    keep: '/var/lib/limpid/policy/limpid-policy',
  })
  assert.deepEqual(records, { gateway: undefined, file: undefined, subject: 'limpid.flows' })
})

test('without the keys there is nothing in the configuration that could be shared', () => {
  const config = parseConfig(listener(), 'f')
  for (const key of ['nats', 'policyFrom', 'records']) assert.ok(!(key in config), key)
})

for (const [what, text, problem] of [
  ['two policies', 'policy: {}\npolicyFrom: { directory: /p }', /^4:1: expected "policy" or "policyFrom", found both/],
  [
    'two places',
    'nats: { servers: a }\npolicyFrom: { directory: /p, bucket: b }',
    /^4:13: expected one of "directory" and "bucket"/,
  ],
  ['no place', 'policyFrom: {}', /^3:13: expected one of "directory" and "bucket"/],
  ['a bucket, and no servers', 'policyFrom: { bucket: b }', /expected "nats": policyFrom has a bucket/],
  ['a subject, and no servers', 'records: { subject: s }', /expected "nats": records have a subject/],
  ['records to nowhere', 'records: { gateway: g }', /^3:10: expected "file" or "subject", or both/],
  [
    'a path that depends on where it is started',
    'policyFrom: { directory: policy }',
    /expected the absolute path of a folder/,
  ],
  [
    'a subject with a wildcard',
    'nats: { servers: a }\nrecords: { subject: flows.> }',
    /expected a subject without wildcards/,
  ],
  ['a password in a server', 'nats: { servers: "nats://me:secret@a" }', /who we are is told by "user" and "password"/],
  ['half of who we are', 'nats: { servers: a, user: me }', /^3:7: expected both "user" and "password", or none/],
  [
    'a keep without a bucket',
    'policyFrom: { directory: /p, keep: /k }',
    /^3:30: "keep" has no meaning without a bucket/,
  ],
  ['an unknown key', 'policyFrom: { folder: /p }', /expected .*found "folder"/],
] as const) {
  test(`${what}: told, with its place`, () => assert.match(problemsOf(`${listener()}\n${text}\n`)[0]!, problem))
}

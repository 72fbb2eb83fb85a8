import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BucketView } from './bucket-view.ts'

function put(key: string, text: string, revision = 1) {
  return { key, revision, operation: 'PUT', value: Buffer.from(text) } as const
}

test('keys of a bucket are the policy and its lists; others mean nothing', () => {
  const view = new BucketView()
  for (const [index, key] of ['policy.yaml', 'lists/ads', 'lists', 'notes/of/mine'].entries())
    view.take(put(key, key, index + 1))
  assert.equal(Buffer.from(view.policy!.bytes).toString(), 'policy.yaml')
  assert.deepEqual([...view.lists.keys()], ['ads'])
  assert.deepEqual([view.revision, view.problems.size], [4, 0])
  view.take({ key: 'lists/ads', revision: 5, operation: 'DEL', value: Buffer.alloc(0) })
  view.take({ key: 'policy.yaml', revision: 6, operation: 'PURGE', value: Buffer.alloc(0) })
  assert.deepEqual([view.policy, view.lists.size], [undefined, 0])
})

for (const name of ['../../etc/passwd', '..', '.', '', 'a/b', '.new', 'a\nb', 'a'.repeat(33)]) {
  test(`lists/${JSON.stringify(name)} does not become a file`, () => {
    const view = new BucketView()
    view.take(put(`lists/${name}`, '192.0.2.1'))
    assert.equal(view.lists.size, 0)
    assert.match([...view.problems.values()].join(), /it is not the name of a list/)
  })
}

test('a bucket has no more lists than a policy', () => {
  const view = new BucketView()
  for (let number = 0; number < 300; number++) view.take(put(`lists/l${number}`, '192.0.2.1'))
  assert.deepEqual([view.lists.size, view.problems.size], [256, 44])
})

test('of what cannot be taken some is told, however much there is; of the policy always', () => {
  const view = new BucketView()
  for (let number = 0; number < 1_000; number++) view.take(put(`lists/no name ${number}`, '192.0.2.1'))
  view.take(put('policy.yaml', '#'.repeat(1_048_577)))
  assert.deepEqual([view.problems.size, view.problems.has('policy.yaml')], [65, true])
})

test('a policy that is larger than a configuration may be is not taken', () => {
  const view = new BucketView()
  view.take(put('policy.yaml', '#'.repeat(1_048_577)))
  assert.equal(view.policy, undefined)
  assert.match(view.problems.get('policy.yaml')!, /1048577 bytes are more than 1048576/)
})

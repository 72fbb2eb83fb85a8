import assert from 'node:assert/strict'
import { test } from 'node:test'
import { distrust } from './trust.ts'

test('a file of root or the running user that others cannot write is trusted', () => {
  assert.equal(distrust({ uid: 0, gid: 0, mode: 0o100644 }, 1000), undefined)
  assert.equal(distrust({ uid: 1000, gid: 1000, mode: 0o100600 }, 1000), undefined)
  assert.equal(distrust({ uid: 0, gid: 0, mode: 0o100664 }, 0), undefined)
})

test('a file that others own or can write is not, and it is said why', () => {
  assert.match(distrust({ uid: 1001, gid: 0, mode: 0o100600 }, 1000) ?? '', /uid 1001/)
  assert.match(distrust({ uid: 0, gid: 0, mode: 0o100646 }, 0) ?? '', /others can write/)
  assert.match(distrust({ uid: 1000, gid: 50, mode: 0o100664 }, 1000) ?? '', /gid 50/)
})

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { enterNamespaces } from '../lab/namespace.ts'
import { until } from '../lab/traffic.fixture.ts'
import { findProgram } from '../sys/program.ts'
import { NatsLink } from './nats-link.ts'
import { RecordFile } from './record-file.ts'
import { RecordStream } from './record-stream.ts'

await enterNamespaces() // for a small file system

const PIECES = 200
const folder = mkdtempSync(join(tmpdir(), 'limpid-records-'))
const small = join(folder, 'small')
const LINE = 'x'.repeat(999)

before(() => {
  mkdirSync(small)
  execFileSync(findProgram('mount'), ['-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', small])
})

after(() => {
  execFileSync(findProgram('umount'), [small])
  rmSync(folder, { recursive: true })
})

const linesOf = (path: string): string[] => readFileSync(path, 'utf8').split('\n').slice(0, -1)

test('a full disk makes nobody wait: lines wait within a bound, others are dropped and counted, and it goes on when there is room', async () => {
  const notes: string[] = []
  const path = join(small, 'flows.jsonl')
  const file = await RecordFile.open(path, (line) => notes.push(line))
  for (let line = 0; line < PIECES; line++) file.write(LINE)
  await until(() => notes.length > 0, 'the full disk')
  assert.match(notes[0]!, /records wait, and are dropped when there are too many: cannot write \S+: ENOSPC/)
  for (let line = 0; line < 6_000; line++) file.write(LINE)
  const { dropped, written } = file.stats
  assert.ok(dropped > 1_000, `${dropped} dropped`)
  assert.ok(written > 100 && written < PIECES, `${written} written`)
  truncateSync(path) // as who makes room would
  await until(() => file.stats.written > written, 'lines again')
  await file.close(100)
  const { written: inAll, dropped: atEnd } = file.stats
  assert.equal(inAll + atEnd, PIECES + 6_000)
  assert.match(notes[1]!, /records are written again/)
  rmSync(path)
})

test('a line that was begun is ended before the next begins, also when the disk was full between', async () => {
  const path = join(small, 'whole.jsonl')
  const ballast = join(small, 'ballast')
  writeFileSync(ballast, Buffer.alloc(64 * 1024))
  const file = await RecordFile.open(path, () => {})
  for (let line = 0; line < 100; line++) file.write(LINE)
  await until(() => file.stats.problem !== undefined, 'the full disk')
  rmSync(ballast)
  await until(() => file.stats.written === 100, 'all lines')
  assert.deepEqual([file.stats.dropped, file.stats.waiting, file.stats.problem], [0, 0, undefined])
  await file.close(1_000)
  assert.ok(linesOf(path).every((line) => line === LINE))
  assert.equal(linesOf(path).length, 100)
  rmSync(path)
})

test('a file that was moved away is begun anew when it is told so; no line is lost or broken', async () => {
  const path = join(folder, 'rotated.jsonl')
  const file = await RecordFile.open(path, assert.fail)
  assert.equal(statSync(path).mode & 0o777, 0o640 & ~process.umask())
  for (let turn = 0; turn < 3; turn++) {
    for (let line = 0; line < 500; line++) file.write(`${turn} ${line}`)
    renameSync(path, `${path}.${turn}`)
    file.reopen()
    await until(() => file.stats.written === (turn + 1) * 500, 'the lines')
  }
  file.write('last')
  await file.close(1_000)
  const all = [0, 1, 2].flatMap((turn) => linesOf(`${path}.${turn}`)).concat(linesOf(path))
  assert.equal(all.length, 1_501)
  assert.equal(new Set(all).size, 1_501)
  assert.equal(linesOf(path).at(-1), 'last')
})

test('neither a link nor a file that others can write is appended to', async () => {
  const target = join(folder, 'target')
  writeFileSync(target, '')
  symlinkSync(target, join(folder, 'link'))
  await assert.rejects(RecordFile.open(join(folder, 'link'), assert.fail), /LIMPID_RECORDS|it is a link/)
  execFileSync('chmod', ['666', target])
  await assert.rejects(RecordFile.open(target, assert.fail), /others can write it/)
  await assert.rejects(RecordFile.open(folder, assert.fail), /cannot write/)
})

test('while NATS cannot be reached a bounded number of records waits; others are dropped and counted', async () => {
  const link = new NatsLink(
    {
      servers: ['nats://192.0.2.1:4222'],
      credentials: undefined,
      user: undefined,
      password: undefined,
      tls: undefined,
    },
    { name: 'test', note: assert.fail },
  )
  const notes: string[] = []
  const stream = await RecordStream.open('flows', { link, note: (line) => notes.push(line) })
  for (let id = 1; id <= 20_000; id++) stream.write('{}', `${id}`)
  assert.deepEqual(stream.stats, {
    to: 'subject flows',
    written: 0,
    dropped: 3_616,
    waiting: 16_384,
    problem: undefined,
  })
  await stream.close(1_000)
  assert.deepEqual(notes, ['16384 records were not taken by NATS'])
})

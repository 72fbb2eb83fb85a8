import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import type { ListError } from './list-error.ts'
import { MAX_LIST_BYTES, readListFile } from './list-file.ts'
import { Lists } from './lists.ts'

const descriptors = (): number => readdirSync('/proc/self/fd').length

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'limpid-lists-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

async function until(isSo: () => boolean, what: string): Promise<void> {
  const deadlineAt = performance.now() + 20_000
  while (!isSo()) {
    assert.ok(performance.now() < deadlineAt, `no ${what} in 20 s`)
    await setTimeout(10)
  }
}

/** Lists of one file, and what they told. */
async function opened(t: TestContext, path: string) {
  const problems: string[] = []
  let swaps = 0
  const lists = await Lists.open(
    { ads: path },
    {
      onProblem: (name, error) => problems.push(`${name}: ${error.message}`),
      onSwap: () => {
        swaps++
      },
    },
  )
  t.after(() => lists.close())
  const has = (name: string): boolean => lists.get('ads')?.names.has(name) ?? false
  return { lists, problems, swaps: () => swaps, has }
}

test('a list that is renamed into its place, or written in its place, is swapped', async (t) => {
  const folder = folderFor(t)
  const path = join(folder, 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const { lists, has, swaps, problems } = await opened(t, path)
  assert.equal(has('a.example'), true)
  const old = lists.get('ads')!
  writeFileSync(`${path}.new`, 'b.example\n')
  renameSync(`${path}.new`, path)
  await until(() => has('b.example'), 'swap after a rename')
  assert.equal(has('a.example'), false)
  assert.equal(old.names.has('a.example'), true, 'who holds the former list still has it whole')
  writeFileSync(path, 'c.example\n')
  await until(() => has('c.example'), 'swap after writing')
  assert.deepEqual([swaps(), problems], [2, []])
  assert.equal(lists.get('other'), undefined)
})

test('a swap of the link that a ConfigMap makes is seen, again and again', async (t) => {
  const folder = folderFor(t)
  const publish = (version: string, text: string): void => {
    mkdirSync(join(folder, version))
    writeFileSync(join(folder, version, 'ads.txt'), text)
    symlinkSync(version, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  }
  publish('..1', 'a.example\n')
  symlinkSync('..data/ads.txt', join(folder, 'ads.txt'))
  const { has, problems } = await opened(t, join(folder, 'ads.txt'))
  for (const version of ['2', '3', '4']) {
    publish(`..${version}`, `${version}.example\n`)
    rmSync(join(folder, `..${Number(version) - 1}`), { recursive: true })
    await until(() => has(`${version}.example`), `swap to ${version}`)
  }
  assert.deepEqual(problems, [])
})

test('a file that a link leads to, in another folder, is seen when it changes', async (t) => {
  const folder = folderFor(t)
  mkdirSync(join(folder, 'far'))
  mkdirSync(join(folder, 'near'))
  writeFileSync(join(folder, 'far', 'list'), 'a.example\n')
  symlinkSync('../far/list', join(folder, 'near', 'ads.txt'))
  const { has } = await opened(t, join(folder, 'near', 'ads.txt'))
  writeFileSync(join(folder, 'far', 'list'), 'b.example\n')
  await until(() => has('b.example'), 'swap')
})

test('a list that does not parse is told once and not taken; one that does again is, and the problem is over', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const { lists, has, problems, swaps } = await opened(t, path)
  writeFileSync(path, 'a.example\nb.example\n??\n')
  await until(() => problems.length === 1, 'problem')
  assert.match(problems[0]!, /ads\.txt:3: expected/)
  assert.match(lists.problemOf('ads')?.message ?? '', /ads\.txt:3/)
  utimesSync(path, new Date(), new Date(1e12))
  await setTimeout(600)
  assert.equal(problems.length, 1, 'touched, and as wrong as before')
  assert.equal(has('a.example'), true)
  assert.equal(has('b.example'), false)
  writeFileSync(path, 'a.example\n')
  await until(() => lists.problemOf('ads') === undefined, 'end of the problem')
  assert.equal(swaps(), 0, 'it is what it was')
})

test('a list that vanishes stays as it was, is told, and is taken when it is there again', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const { lists, has, problems } = await opened(t, path)
  renameSync(path, `${path}.away`)
  await until(() => problems.length === 1, 'problem')
  assert.match(problems[0]!, /there is no such file/)
  assert.equal(has('a.example'), true)
  renameSync(`${path}.away`, path)
  await until(() => lists.problemOf('ads') === undefined, 'end of the problem')
})

test('a file that is touched, and has the content that it had, is no other list', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const { lists, swaps } = await opened(t, path)
  const before = lists.get('ads')
  for (let i = 0; i < 5; i++) {
    writeFileSync(`${path}.new`, 'a.example\n')
    renameSync(`${path}.new`, path)
    await setTimeout(100)
  }
  await setTimeout(500)
  assert.equal(lists.get('ads'), before)
  assert.equal(swaps(), 0)
})

test('a list is not read while it is being written', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const { has, swaps, problems } = await opened(t, path)
  let text = ''
  for (let i = 0; i < 40; i++) {
    text += `b${i}.exam`
    writeFileSync(path, text)
    text += 'ple\n'
    await setTimeout(20)
  }
  writeFileSync(path, text)
  await until(() => has('b39.example'), 'swap')
  assert.deepEqual(problems, [])
  assert.ok(swaps() <= 2, `${swaps()}`) // a busy machine may pause the writer for longer than it takes to settle
})

test('what must not be had at the start is refused with its reason', async (t) => {
  const folder = folderFor(t)
  const path = join(folder, 'ads.txt')
  const why = async (at: string): Promise<string> => {
    const error = await Lists.open({ ads: at }, { onProblem: assert.fail }).then(
      () => assert.fail('it was opened'),
      (cause: ListError) => cause,
    )
    assert.equal(error.code, 'LIMPID_LIST')
    return error.message
  }
  assert.match(await why(path), /there is no such file/)
  assert.match(await why(folder), /it is not a file/)
  execFileSync('mkfifo', [join(folder, 'fifo')])
  assert.match(await why(join(folder, 'fifo')), /it is not a file/)
  writeFileSync(path, 'a.example\n')
  for (const mode of [0o646, 0o666]) {
    chmodSync(path, mode)
    assert.match(await why(path), /others can write it/)
  }
  chmodSync(path, 0o644)
  writeFileSync(path, 'a.example\nb c\n')
  assert.match(await why(path), /ads\.txt:2/)
  truncateSync(path, MAX_LIST_BYTES + 1)
  assert.match(await why(path), /67108865 bytes are more than 67108864/)
})

test('a list that others can write since is told and not taken', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const { has, problems } = await opened(t, path)
  chmodSync(path, 0o666)
  writeFileSync(path, 'b.example\n')
  await until(() => problems.length === 1, 'problem')
  assert.match(problems[0]!, /others can write it/)
  assert.equal(has('b.example'), false)
})

test('closing leaves no descriptor and no timer, also while a list is read; watching alone holds no process', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'a.example\n')
  const before = { descriptors: descriptors(), resources: process.getActiveResourcesInfo().toSorted() }
  for (const pauseMs of [0, 150, 220, 300]) {
    const lists = await Lists.open({ ads: path, same: path }, { onProblem: assert.fail })
    writeFileSync(path, Array.from({ length: 200_000 }, (_, i) => `h${i}-${pauseMs}.example`).join('\n'))
    await setTimeout(pauseMs)
    await lists.close()
    await lists.close()
    writeFileSync(path, 'a.example\n')
  }
  const isSame = (): boolean =>
    descriptors() <= before.descriptors + 1 && // libuv keeps one for inotify once something was watched
    process.getActiveResourcesInfo().toSorted().join() === before.resources.join()
  await until(isSame, 'end of all watchers and timers')
  const script = `
    const { Lists } = await import(${JSON.stringify(new URL('./lists.js', import.meta.url).href)})
    await Lists.open({ ads: ${JSON.stringify(path)} }, { onProblem() {} })`
  execFileSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 }) // ends by itself
})

test('the digest is that of the content', async (t) => {
  const path = join(folderFor(t), 'ads.txt')
  writeFileSync(path, 'abc') // FIPS 180-2's example
  const { bytes, digest } = await readListFile(path)
  assert.equal(bytes.toString(), 'abc')
  assert.equal(digest, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
})

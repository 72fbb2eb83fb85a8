import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { parseConfig } from '../config/parse.ts'
import { LoadedPolicy } from '../policy/loaded-policy.ts'
import { PolicyDirectory } from './policy-directory.ts'

const WITHIN_MS = 5_000 // half of the time after which it looks without any event
const folder = mkdtempSync(join(tmpdir(), 'limpid-directory-'))
const gateway = parseConfig('listeners: [{ name: all }]', 'limpid.yaml')
const own = join(folder, 'own.txt')
mkdirSync(join(folder, 'lists'))
after(() => rmSync(folder, { recursive: true }))

function write(rules: string): void {
  writeFileSync(join(folder, 'policy.yaml'), rules)
}

/** Takes each policy whose lists can be read, as a running Limpid does; `onTaken` is called before it says so. */
async function following(onTaken: () => unknown = () => {}) {
  const names: string[] = []
  const failures: string[] = []
  const directory = new PolicyDirectory(folder, gateway)
  const take = async (): Promise<void> => {
    try {
      const policy = await directory.read()
      await (await LoadedPolicy.open(policy, () => {})).close()
      await directory.taken()
      names.push(policy.rules.map(({ name }) => name).join())
      await onTaken()
    } catch (error) {
      failures.push((error as Error).message)
    }
  }
  await take()
  directory.follow(take)
  return { directory, names, failures }
}

async function until(holds: () => boolean): Promise<void> {
  for (const endAt = performance.now() + WITHIN_MS; !holds() && performance.now() < endAt; ) await wait(20)
}

for (const [where, path, rule] of [
  ['beside it', join(folder, 'lists', 'bad'), 'rules: [{ name: second, lists: bad, then: reject }]'],
  ['elsewhere', own, `{ lists: { other: ${own} }, rules: [{ name: second, lists: other, then: reject }] }`],
] as const) {
  test(`a policy that was refused for a list ${where} is taken when the list is mended`, async () => {
    write('rules: [{ name: first, then: reject }]')
    const { directory, names, failures } = await following()
    await using _ = directory
    writeFileSync(path, '10.0.0.0/99\n')
    write(rule)
    await until(() => failures.length > 0)
    assert.match(failures.join(), /found "10\.0\.0\.0\/99"/)
    assert.deepEqual(names, ['first'])
    writeFileSync(path, '10.0.0.0/9\n')
    await until(() => names.length > 1)
    assert.deepEqual(names, ['first', 'second'])
    writeFileSync(path, '10.0.0.0/10\n') // from now on the list is read by itself
    await wait(600)
    assert.deepEqual([names, failures.length], [['first', 'second'], 1])
  })
}

test('a large policy that is being parsed keeps nobody who ends', async () => {
  write('rules: [{ name: first, then: reject }]')
  const { directory, names, failures } = await following()
  const rule = (index: number) =>
    `  - { name: r${index}, hosts: [a${index}.example], ports: ${index + 1}, then: reject }\n`
  write(`rules:\n${Array.from({ length: 13_000 }, (_, index) => rule(index)).join('')}`)
  await wait(600) // it has been seen, and takes seconds
  const startedAt = performance.now()
  await directory[Symbol.asyncDispose]()
  assert.ok(performance.now() - startedAt < 1_500, `${performance.now() - startedAt} ms`)
  assert.match(failures.join(), /policy\.yaml: nobody waits for it any more/)
  assert.deepEqual(names, ['first'])
})

test('a policy that changes while the former one is taken follows soon', async () => {
  write('rules: [{ name: first, then: reject }]')
  const { directory, names } = await following(async () => {
    if (names.at(-1) !== 'second') return
    write('rules: [{ name: third, then: reject }]')
    await wait(50) // the event has come
  })
  await using _ = directory
  write('rules: [{ name: second, then: reject }]')
  await until(() => names.length > 2)
  assert.deepEqual(names, ['first', 'second', 'third'])
})

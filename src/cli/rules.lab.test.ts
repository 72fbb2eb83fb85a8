import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LIMPID_PROGRAM } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { mustRun } from '../sys/program.ts'

await enterNamespaces()
await mustRun('ip', ['link', 'set', 'lo', 'up'])

const folder = mkdtempSync(join(tmpdir(), 'limpid-rules-'))
after(() => rmSync(folder, { recursive: true }))

function limpid(args: string) {
  const env = { ...process.env, HOME: folder, LIMPID_CONFIG: '' }
  return spawnSync(process.execPath, [LIMPID_PROGRAM, ...args.split(' ')], { encoding: 'utf8', timeout: 20_000, env })
}

test('what plan prints is a shell script that installs the rules', async () => {
  const { stdout, status } = limpid('plan --intercept tproxy --ports 80 --on-down closed --family 4')
  assert.equal(status, 0)
  const run = spawnSync('sh', ['-eu'], { input: stdout, encoding: 'utf8', timeout: 20_000 })
  assert.deepEqual(
    { status: run.status, stdout: run.stdout, stderr: run.stderr },
    { status: 0, stdout: '', stderr: '' },
  )
  assert.match(
    await mustRun('nft', ['list', 'tables']),
    /inet limpid\n[\s\S]*inet limpid-guard|limpid-guard[\s\S]*limpid\n/,
  )
  assert.equal(limpid('rules remove').status, 0)
  assert.equal(await mustRun('nft', ['list', 'ruleset']), '')
})

test('a configuration that is broken or gone does not keep the rules from being shown and removed', async () => {
  const broken = join(folder, 'broken.yaml')
  writeFileSync(broken, 'listeners: [')
  for (const path of [broken, join(folder, 'gone.yaml')]) {
    assert.equal(limpid('rules install --intercept tproxy --ports 80').status, 0)
    const show = limpid(`rules show -c ${path}`)
    assert.match(show.stderr, /^limpid: warning: LIMPID_CONFIG: [^\n]+; going on with the default names\n$/)
    assert.match(show.stdout, /table inet limpid \{/)
    assert.equal(show.status, 0)
    const remove = limpid(`rules remove -c ${path}`)
    assert.match(remove.stdout, /^removed nft table inet limpid, /)
    assert.equal(remove.status, 0)
    assert.equal(await mustRun('nft', ['list', 'ruleset']), '')
  }
})

test('diff shows what is planned and what is there instead, with exit code 3, and says when nothing differs', async () => {
  const flags = '--intercept tproxy --ports 80 --on-down closed'
  assert.equal(limpid(`rules install ${flags}`).status, 0)
  const same = limpid(`rules diff ${flags}`)
  assert.deepEqual({ stdout: same.stdout, status: same.status }, { stdout: 'the rules are as planned\n', status: 0 })
  await mustRun('ip', ['rule', 'del', 'pref', '195'])
  await mustRun('ip', ['rule', 'add', 'pref', '195', 'fwmark', '1', 'lookup', '7', 'protocol', '195'])
  await mustRun('nft', ['delete table inet limpid-guard'])
  await mustRun('nft', ['insert rule inet limpid prerouting counter drop'])
  const different = limpid(`rules diff ${flags}`)
  assert.equal(different.status, 3)
  assert.deepEqual(different.stdout.split('\n'), [
    'nft table inet limpid',
    '+ counter drop',
    '- nft table inet limpid-guard',
    'ip -4 rule',
    '+ pref 195 fwmark 0x1/0xffffffff lookup 7 protocol 195',
    '- pref 195 fwmark 0x10000000/0x30000000 lookup 19536 protocol 195',
    '',
  ])
  const json = limpid(`rules diff ${flags} --json`)
  assert.equal(json.status, 3)
  assert.deepEqual(JSON.parse(json.stdout)[1], {
    what: 'nft table inet limpid-guard',
    expected: 'nft table inet limpid-guard',
  })
  assert.equal(limpid('rules remove').status, 0)
})

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const LANES = new URL('lanes.mjs', import.meta.url)
const HEAD =
  "import assert from 'node:assert/strict'\nimport { existsSync, writeFileSync } from 'node:fs'\nimport { describe, test } from 'node:test'\n"
/** Fails in its first run. */
const FLAKY = `${HEAD}
const isFirst = !existsSync('ran')
writeFileSync('ran', '')
test('is there in time', () => assert.ok(!isFirst))
test('is another', () => {})
test('is not for here', { skip: true }, () => {})
describe('both', () => test('stands within', async (t) => await t.test('comes back', () => assert.ok(!isFirst))))
`
const STEADY = `${HEAD}test('holds', () => {})\n`
const BROKEN = `${HEAD}test('is wrong', () => assert.fail('as ever'))\ntest('is right', () => {})\n`

const isTestFile = (name) => name.endsWith('.test.mjs')

/** Runs these files, by their names, as one lane after the other. */
function run(...lanes) {
  const folder = mkdtempSync(join(tmpdir(), 'limpid-lanes-'))
  try {
    for (const [name, text] of lanes.flatMap(Object.entries)) writeFileSync(join(folder, name), text)
    const asked = lanes.map((files) => ({ files: Object.keys(files).filter(isTestFile), concurrency: 2 }))
    const program = `import { runLanes } from '${LANES}'
process.exitCode = await runLanes(${JSON.stringify(asked)}, ${JSON.stringify(folder)})`
    const args = ['--input-type=module', '--eval', program]
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 })
    return { status, stderr, lines: stdout.trimEnd().split('\n') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('a test that fails beside others and passes alone is told, and is no failure', () => {
  const { status, lines, stderr } = run(
    { 'flaky.test.mjs': FLAKY, 'steady.test.mjs': STEADY },
    { 'b.test.mjs': STEADY },
  )
  assert.deepEqual(lines.slice(-2), [
    'passed only at its second run, alone: flaky.test.mjs: is there in time; comes back',
    '6 passed, 0 failed, 1 skipped',
  ])
  assert.equal(stderr, 'limpid: running flaky.test.mjs again, alone …\n')
  assert.equal(status, 0)
})

test('a defect fails again, and fails the run', () => {
  const { status, lines } = run({ 'flaky.test.mjs': FLAKY, 'steady.test.mjs': STEADY }, { 'broken.test.mjs': BROKEN })
  assert.deepEqual(lines.slice(-2), [
    'passed only at its second run, alone: flaky.test.mjs: is there in time; comes back',
    '6 passed, 1 failed, 1 skipped',
  ])
  assert.equal(lines.filter((line) => line.startsWith('✖ is wrong')).length, 4, 'twice, each with its summary')
  assert.equal(status, 1)
})

test('more than three files that fail are not run again', () => {
  const { status, lines, stderr } = run({
    'a.test.mjs': FLAKY,
    'b.test.mjs': BROKEN,
    'c.test.mjs': BROKEN,
    'd.test.mjs': BROKEN,
  })
  assert.equal(lines.at(-1), '4 passed, 6 failed, 1 skipped')
  assert.equal(stderr, '')
  assert.equal(status, 1)
})

test('a file that cannot be loaded, or whose process fails behind its tests, fails the run under its own name', () => {
  const late = `${STEADY}process.on('exit', () => process.exit(3))\n`
  const { status, lines, stderr } = run({ 'a.test.mjs': "throw new Error('at import')", 'b.test.mjs': late })
  assert.equal(lines.at(-1), '1 passed, 2 failed, 0 skipped')
  assert.equal(stderr, 'limpid: running a.test.mjs again, alone …\nlimpid: running b.test.mjs again, alone …\n')
  assert.equal(status, 1)
})

test('a failed test whose call stands in another file is not run again', () => {
  const define = `${HEAD}export const define = () => test('from elsewhere', () => assert.ok(existsSync('ran')))\n`
  const user =
    "import { writeFileSync } from 'node:fs'\nimport { define } from './define.mjs'\ndefine()\nprocess.on('exit', () => writeFileSync('ran', ''))\n"
  const { status, lines, stderr } = run({ 'user.test.mjs': user, 'define.mjs': define })
  assert.equal(status, 1)
  assert.match(lines.at(-1), / 1 failed, /)
  assert.equal(stderr, '')
})

// npm test: the static checks, then every test; `npm test -- PATTERN` runs only the files whose path has PATTERN in it.
import { spawn, spawnSync } from 'node:child_process'
import { availableParallelism, constants } from 'node:os'
import { stop, tell } from './say.mjs'
import { filesUnder, ROOT, setUp } from './setup.mjs'

const FILE_TIMEOUT_MS = 600_000

setUp('test')
const patterns = process.argv.slice(2)
if (patterns.length === 0) checkStatically()
const files = testFiles().filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
if (files.length === 0) stop(`no test file has ${patterns.join(' or ')} in its path`)
runTests(files)

function checkStatically() {
  tell('checking format, style, types and import directions …')
  // the types were checked by the build, which leaves no stamp when they are wrong
  check('biome', [`${ROOT}/node_modules/@biomejs/biome/bin/biome`, 'check', '.'])
  check('the import check', [`${ROOT}/scripts/imports.mjs`])
}

function check(name, args) {
  const run = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' })
  if (run.status === 0) return
  process.stderr.write(`${run.stdout}${run.stderr}`)
  stop(`${name} failed (above)`)
}

/** Unit tests first: they are quick, and when they fail the others need not be read. */
function testFiles() {
  const built = filesUnder(`${ROOT}/dist`).filter((file) => file.endsWith('.test.js'))
  const isLab = (file) => file.endsWith('.lab.test.js')
  const own = filesUnder(`${ROOT}/scripts`).filter((file) => file.endsWith('.test.mjs'))
  return [...own, ...built.filter((file) => !isLab(file)), ...built.filter(isLab)].map((file) =>
    file.slice(ROOT.length + 1),
  )
}

function runTests(files) {
  tell(`running ${files.length} test file${files.length === 1 ? '' : 's'} …`)
  // half of the processors: lab tests have a client, a proxy and a server each
  const concurrency = Math.max(1, Math.floor(availableParallelism() / 2))
  const options = [
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${FILE_TIMEOUT_MS}`,
  ]
  const run = spawn(process.execPath, [...options, ...files], { cwd: ROOT, stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => run.kill(signal))
  run.once('exit', (code, signal) => {
    process.exitCode = code ?? 128 + constants.signals[signal]
  })
}

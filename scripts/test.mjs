// npm test: the static checks, then every test; `npm test -- PATTERN` runs only the files whose path has PATTERN in it.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism, constants } from 'node:os'
import { stop, tell } from './say.mjs'
import { filesUnder, ROOT, setUp } from './setup.mjs'

const FILE_TIMEOUT_MS = 600_000
const KEPT_OUTPUT = 1_000_000 // the runner's summary stands before the failures, which it tells again

/**
 * Tests that look how soon something happens, or how much of the processor it takes: nothing else runs beside them. The others mostly
 * wait for what must not arrive, so two of their files run side by side.
 */
const ALONE = [
  ...[
    'cli/bad-input',
    'daemon/heal',
    'daemon/kill',
    'daemon/matrix',
    'daemon/bridge',
    'doctor/faults',
    'proxy/abuse',
    'proxy/dead-peer',
  ],
  ...['proxy/exhaustion', 'proxy/memory', 'proxy/proxy.test', 'proxy/transfer', 'proxy/udp-flood', 'relay/patience'],
]

setUp('test')
const patterns = process.argv.slice(2)
if (patterns.length === 0) checkStatically()
const files = testFiles().filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
if (files.length === 0) stop(`no test file has ${patterns.join(' or ')} in its path`)
await runTests(files)

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

async function runTests(files) {
  tell(`running ${files.length} test file${files.length === 1 ? '' : 's'} …`)
  const isAlone = (file) => ALONE.some((name) => file.includes(`/${name}`))
  const sum = { pass: 0, fail: 0, skipped: 0 }
  const together = files.filter((file) => !isAlone(file))
  await runLane(together, Math.min(2, availableParallelism()), sum)
  await runLane(files.filter(isAlone), 1, sum)
  process.stdout.write(`${sum.pass} passed, ${sum.fail} failed, ${sum.skipped} skipped\n`)
}

/** Runs the files with Node's test runner, so many at a time, and adds what it says at its end to `sum`. */
async function runLane(files, concurrency, sum) {
  if (files.length === 0) return
  const options = [
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${FILE_TIMEOUT_MS}`,
  ]
  const run = spawn(process.execPath, [...options, ...files], { cwd: ROOT, stdio: ['inherit', 'pipe', 'inherit'] })
  const stop = (signal) => run.kill(signal)
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop)
  let end = ''
  run.stdout.setEncoding('utf8').on('data', (text) => {
    process.stdout.write(text)
    end = (end + text).slice(-KEPT_OUTPUT)
  })
  const [code, signal] = await once(run, 'close')
  for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, stop)
  process.exitCode ||= code ?? 128 + constants.signals[signal]
  for (const kind of Object.keys(sum)) {
    sum[kind] += Number([...end.matchAll(new RegExp(`^\\S+ ${kind} (\\d+)$`, 'gm'))].at(-1)?.[1] ?? 0)
  }
}

// npm test: the static checks, then every test; `npm test -- PATTERN` runs only the files whose path has PATTERN in it.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { runLanes } from './lanes.mjs'
import { stop, tell } from './say.mjs'
import { filesUnder, ROOT, setUp } from './setup.mjs'

/**
 * Tests that look how soon something happens, or how much of the processor it takes: nothing else runs beside them. The others have
 * no bound on time that a busy machine would break, or one of ten times what they take, and half of their time they wait for what must
 * not arrive, so three of their files run on two cores: with four, waits of ten seconds were too short now and then.
 */
const ALONE = [
  ...['daemon/heal', 'daemon/kill', 'daemon/udp-kill', 'proxy/abuse', 'proxy/dead-server', 'proxy/exhaustion'],
  ...['proxy/memory', 'proxy/proxy.test', 'proxy/transfer', 'proxy/udp-flood', 'relay/patience'],
]
const SIDE_BY_SIDE = availableParallelism() > 1 ? 3 : 2
/** Those that take longest begin first, so that none of them runs on when all others have ended. */
const LONGEST = [
  ...['doctor/faults', 'lab/lab.lab', 'ruleset/traffic', 'trace/trace.lab', 'daemon/matrix', 'daemon/workers'],
  ...['daemon/kernel-bypass', 'ruleset/iptables.lab', 'ruleset/install', 'ruleset/repair', 'ruleset/backend-iptables'],
  ...['daemon/bridge', 'daemon/browser', 'proxy/udp-many', 'proxy/dead-peer', 'daemon/udp-programs', 'daemon/run'],
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
  const isAlone = (file) => namedBy(ALONE, file) >= 0
  const isLab = (file) => file.endsWith('.lab.test.js')
  const together = files.filter((file) => !isAlone(file))
  const units = together.filter((file) => !isLab(file))
  process.exitCode = await runLanes(
    [
      { files: units, concurrency: Math.min(2, availableParallelism()) },
      { files: longestFirst(together.filter(isLab)), concurrency: SIDE_BY_SIDE, inOrder: true },
      { files: files.filter(isAlone), concurrency: 1 },
    ],
    ROOT,
  )
}

function longestFirst(files) {
  const rank = (file) => {
    const index = namedBy(LONGEST, file)
    return index < 0 ? LONGEST.length : index
  }
  return files.toSorted((one, other) => rank(one) - rank(other))
}

function namedBy(names, file) {
  return names.findIndex((name) => file.includes(`/${name}`))
}

// Runs test files with Node's test runner, lane by lane, and the few that failed once more.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tell } from './say.mjs'

const FILE_TIMEOUT_MS = 600_000
const MOST_RUN_AGAIN = 3 // that many files can have bad luck on a busy machine; more are no chance
const REPORTER = fileURLToPath(new URL('outcomes-reporter.mjs', import.meta.url))

/**
 * Runs `lanes`, each `{ files, concurrency, inOrder }` with paths from `folder`, one after the other. `inOrder`: files begin in the order
 * given, so that the longest do not begin last; without it in that of their names, which is Node's. Where at most three files
 * failed, they run once more, alone: what fails again fails the run, and what passes only then is told. Returns the exit code.
 */
export async function runLanes(lanes, folder) {
  const outcomes = new Map()
  let exitCode = 0
  for (const lane of lanes) {
    for (const run of lane.inOrder === true ? await runInOrder(lane, folder) : [await runLane(lane, folder)]) {
      if (run.signal !== undefined) return 128 + constants.signals[run.signal]
      for (const [file, tests] of run.outcomes) outcomes.set(file, tests)
      if (run.code !== 0 && !hasFailed(run.outcomes)) exitCode = run.code // none of the tests tells why
    }
  }
  const files = lanes.flatMap((lane) => lane.files)
  const failed = [...outcomes].filter(([, tests]) => tests.some(isFailure))
  // a test whose call stands in another file than the one that ran is not run again
  const again = failed.length > MOST_RUN_AGAIN ? [] : failed.filter(([file]) => files.includes(file))
  const lines = []
  for (const [file, tests] of again) {
    tell(`running ${file} again, alone …`)
    const run = await runFiles([file], 1, folder)
    if (run.signal !== undefined) return 128 + constants.signals[run.signal]
    outcomes.delete(file)
    for (const [name, second] of run.outcomes) outcomes.set(name, second)
    if (run.code === 0) lines.push(`passed only at its second run, alone: ${file}: ${namesOf(tests)}`)
    else if (!hasFailed(run.outcomes)) exitCode = run.code
  }
  const tests = [...outcomes.values()].flat()
  const count = (outcome) => tests.filter((test) => test.outcome === outcome).length
  lines.push(`${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`)
  process.stdout.write(`${lines.join('\n')}\n`)
  return tests.some(isFailure) ? 1 : exitCode
}

function isFailure({ outcome }) {
  return outcome === 'failed'
}

function hasFailed(outcomes) {
  return [...outcomes.values()].flat().some(isFailure)
}

/** The tests that failed by themselves, not because one within them did. */
function namesOf(tests) {
  const failed = tests.filter((test) => isFailure(test) && !test.isConsequence)
  return failed.map(({ name }) => name).join('; ')
}

function runLane({ files, concurrency }, folder) {
  return runFiles(files, concurrency, folder)
}

/** Each file by a runner of its own, so many of them at a time; what a file says is shown when it has ended. Returns as runFiles(), of each. */
async function runInOrder({ files, concurrency }, folder) {
  const waiting = [...files]
  const runs = []
  const next = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const run = await runFiles([file], 1, folder, { aside: true })
      runs.push(run)
      if (run.signal !== undefined) waiting.length = 0
    }
  }
  await Promise.all(Array.from({ length: concurrency }, next))
  return runs
}

/** Runs files, so many at a time. Returns how the runner ended, and the outcomes by file. `aside`: others run beside it. */
async function runFiles(files, concurrency, folder, { aside = false } = {}) {
  if (files.length === 0) return { code: 0, outcomes: new Map() }
  const scratch = mkdtempSync(join(tmpdir(), 'limpid-test-'))
  try {
    const told = join(scratch, 'outcomes')
    const options = [
      ...['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${FILE_TIMEOUT_MS}`],
      ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
      ...[`--test-reporter=${REPORTER}`, `--test-reporter-destination=${told}`],
    ]
    const end = await runNode([...options, ...files], folder, aside)
    return { ...end, outcomes: readOutcomes(told, folder) }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** Runs Node with these arguments and passes signals on. Returns `signal` when one ended it, or was to. `aside`: its output is shown at its end. */
async function runNode(args, folder, aside) {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env // set where a test runs this
  const run = spawn(process.execPath, args, {
    cwd: folder,
    env,
    stdio: ['inherit', aside ? 'pipe' : 'inherit', 'inherit'],
  })
  const said = []
  run.stdout?.on('data', (chunk) => said.push(chunk))
  let received
  const passOn = (signal) => {
    received = signal
    run.kill(signal)
  }
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, passOn)
  const [code, signal] = await once(run, 'close')
  for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, passOn)
  process.stdout.write(Buffer.concat(said))
  return { code, signal: received ?? signal ?? undefined }
}

function readOutcomes(path, folder) {
  const outcomes = new Map()
  const lines = readFileSync(path, 'utf8').split('\n')
  for (const line of lines.filter((text) => text !== '')) {
    const { file, ...test } = JSON.parse(line)
    const name = relative(folder, file)
    outcomes.set(name, [...(outcomes.get(name) ?? []), test])
  }
  return outcomes
}

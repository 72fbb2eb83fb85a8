// npm run fuzz [-- SUBJECT|all [COUNT [SEED]]]: mutated inputs through the parsers; all of them, 1,000,000 each unless COUNT says otherwise.
import { setUp } from './setup.mjs'

setUp('test')
const { fuzz } = await import('../dist/inspect/fuzz.fixture.js')
const { fuzzSubjects } = await import('../dist/inspect/fuzz-subjects.fixture.js')

const subjects = fuzzSubjects()
const [name = 'all', ...numbers] = process.argv.slice(2)
const count = Number(numbers[0] ?? 1_000_000)
const seed = Number(numbers[1] ?? Date.now() % 2 ** 31)
const chosen = subjects.filter((subject) => name === 'all' || subject.name === name)
if (chosen.length === 0 || !Number.isSafeInteger(count) || count < 1 || !Number.isSafeInteger(seed)) {
  process.stderr.write(
    `usage: npm run fuzz -- [${['all', ...subjects.map((subject) => subject.name)].join('|')} [COUNT [SEED]]]\n`,
  )
  process.exit(2)
}

for (const subject of chosen) {
  process.stdout.write(`${subject.name}\n`)
  const startedAt = performance.now()
  const { outcomes, slowestMs, slowest } = fuzz(subject, count, seed)
  const seconds = (performance.now() - startedAt) / 1000
  for (const [outcome, times] of [...outcomes].sort((a, b) => b[1] - a[1])) {
    process.stdout.write(`${String(times).padStart(10)}  ${outcome}\n`)
  }
  process.stdout.write(
    `${count} inputs of seed ${seed} in ${seconds.toFixed(0)} s: none threw; the slowest, ${slowest.length} bytes, took ${slowestMs.toFixed(3)} ms\n`,
  )
}

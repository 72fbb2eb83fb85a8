// npm run fuzz [-- SUBJECT|all [COUNT [SEED]]]: mutated inputs through the parsers; all of them, 1,000,000 each unless COUNT says otherwise.
// Exit code 1 when a parse hangs, or allocates more than it may; a throw ends it at once.
import { setUp } from './setup.mjs'

setUp('test')
const { fuzz } = await import('../dist/inspect/fuzz.fixture.js')
const { HANG_MS } = await import('../dist/inspect/fuzz-cost.fixture.js')
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

const say = (line) => process.stdout.write(`${line}\n`)
const hexOf = (bytes) => Buffer.from(bytes).toString('hex')

for (const subject of chosen) {
  say(`${subject.name}: ${count} inputs of seed ${seed}`)
  const startedAt = performance.now()
  const { outcomes, slowest, heaviest, keptBytes } = fuzz(subject, count, seed)
  const seconds = (performance.now() - startedAt) / 1000
  for (const [outcome, times] of [...outcomes].sort((a, b) => b[1] - a[1]))
    say(`${String(times).padStart(10)}  ${outcome}`)
  say(`none threw; ${seconds.toFixed(0)} s, ${Math.round(count / seconds)} inputs/s`)
  say(`slowest parse ${slowest.ms.toFixed(3)} ms, of ${slowest.input.length} bytes`)
  say(
    `most allocated by a parse ${heaviest.bytes} bytes, of ${heaviest.input.length} bytes; may be ${subject.mostBytes}`,
  )
  say(`held after the last input ${keptBytes} bytes more than after a tenth`)
  if (slowest.ms > HANG_MS) fail(`a parse takes longer than ${HANG_MS} ms: ${hexOf(slowest.input)}`)
  if (heaviest.bytes > subject.mostBytes) fail(`a parse allocates too much: ${hexOf(heaviest.input)}`)
  say('')
}

function fail(why) {
  process.exitCode = 1
  say(why)
}

// npm run fuzz [-- COUNT [SEED]]: mutated messages through the readers and the DNS app; 1,000,000 unless COUNT says otherwise.
import { setUp } from './setup.mjs'

setUp('test')
const { mutated, randomNumbers, readAll } = await import('../dist/inspect/dns.fixture.js')
const { fuzzApp } = await import('../dist/apps/dns/app.fixture.js')

const count = Number(process.argv[2] ?? 1_000_000)
const seed = Number(process.argv[3] ?? Date.now() % 2 ** 31)
if (!Number.isSafeInteger(count) || count < 1 || !Number.isSafeInteger(seed)) {
  process.stderr.write('usage: npm run fuzz -- [COUNT [SEED]]\n')
  process.exit(2)
}

const random = randomNumbers(seed)
const outcomes = new Map()
const offer = fuzzApp()
let slowestMs = 0
for (let i = 0; i < count; i++) {
  const bytes = mutated(random)
  const startedAt = performance.now()
  try {
    const outcome = `${readAll(bytes)}, ${offer(bytes.slice())}`
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  } catch (error) {
    process.stderr.write(`message ${i} of seed ${seed}: ${Buffer.from(bytes).toString('hex')}\n`)
    throw error
  }
  slowestMs = Math.max(slowestMs, performance.now() - startedAt)
}
for (const [outcome, times] of [...outcomes].sort((a, b) => b[1] - a[1])) {
  process.stdout.write(`${String(times).padStart(8)}  ${outcome}\n`)
}
process.stdout.write(
  `${count} messages of seed ${seed}: none threw, the slowest took ${slowestMs.toFixed(2)} ms of wall clock\n`,
)

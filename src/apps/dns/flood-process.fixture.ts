// The flood as a program, for `npm run soak -- dns`. Arguments: how many datagrams, seed. Fails when a query that means it has no answer.
import { enterNamespaces } from '../../lab/namespace.ts'
import { raiseTopology } from '../../lab/topology.ts'
import { assertSums, flood } from './flood.fixture.ts'
import { floodText } from './flood-text.fixture.ts'

await enterNamespaces()
const lab = await raiseTopology()
try {
  const report = await flood(lab, Number(process.argv[2]), Number(process.argv[3]))
  process.stdout.write(`${floodText(report)}\n`)
  assertSums(report)
  if (report.probes.lost > 0) process.exitCode = 1
} finally {
  await lab.close()
}

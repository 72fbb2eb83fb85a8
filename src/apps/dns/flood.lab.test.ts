import assert from 'node:assert/strict'
import { test } from 'node:test'
import { enterNamespaces } from '../../lab/namespace.ts'
import { raiseTopology } from '../../lab/topology.ts'
import { assertSums, flood } from './flood.fixture.ts'
import { floodText } from './flood-text.fixture.ts'

await enterNamespaces()

const DATAGRAMS = 50_000 // `npm run soak -- dns` sends a million
const MOST_MEMORY = 256 * 1024 * 1024

test('T18: malformed datagrams from everywhere neither end the DNS nor grow it, others are answered, and all are counted', async () => {
  const lab = await raiseTopology()
  try {
    const report = await flood(lab, DATAGRAMS, 20_260)
    console.log(floodText(report))
    assert.equal(report.probes.lost, 0, floodText(report))
    assertSums(report)
    assert.ok(report.memory.most < MOST_MEMORY, `${report.memory.most} bytes`)
  } finally {
    await lab.close()
  }
})

import { type ChildProcess, spawn } from 'node:child_process'
import type { Family } from '../net/address.ts'
import { findProgram } from '../sys/program.ts'
import type { ProbeAddresses } from './probe-network.ts'
import { parseTrace, type TraceStep } from './trace.ts'
import { holdTraceTable } from './trace-table.ts'

const START_MS = 200 // for nft to subscribe
const SETTLE_MS = 60 // for the last lines
const MAX_BYTES = 1024 * 1024

/** Follows the packets of one probe through nft while `work` runs: an nft table of our own asks for it, of those alone. */
export async function traced(
  family: Family,
  addresses: ProbeAddresses,
  work: () => Promise<unknown>,
): Promise<TraceStep[][]> {
  const removeTable = await holdTraceTable(family, addresses)
  let said = ''
  // with a parent's death it dies too: it writes, and would notice, only when a packet comes
  const args = ['--pdeathsig', 'KILL', '--', findProgram('nft'), '-a', 'monitor', 'trace']
  const monitor = spawn(findProgram('setpriv'), args, { stdio: ['ignore', 'pipe', 'ignore'] })
  try {
    monitor.on('error', () => {})
    monitor.stdout.on('data', (bytes: Buffer) => {
      if (said.length < MAX_BYTES) said += bytes.toString()
    })
    await pause(START_MS)
    await work()
    await pause(SETTLE_MS)
  } finally {
    await ended(monitor)
    await removeTable()
  }
  return parseTrace(said)
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  await new Promise((resolve) => {
    child.once('exit', resolve)
    child.kill('SIGKILL')
  })
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

import { spawn } from 'node:child_process'
import type { Family } from '../net/address.ts'
import { findProgram } from '../sys/program.ts'
import type { ProbeAddresses } from './probe-network.ts'

export const TRACE_TABLE = 'limpid-doctor'
const PRIORITY = -500 // before connection tracking, and before any chain that could drop the packet
const ANSWER_MS = 2_000
const EXIT_MS = 1_000
const TABLE = `inet ${TRACE_TABLE}`

/**
 * An nft table that asks the kernel to trace the packets between the probe's client and server, and no others. It belongs to
 * a child `nft -i` that reads from a pipe of ours, so it goes when we do, however that happens.
 * @returns what removes it.
 */
export async function holdTraceTable(family: Family, { client, server }: ProbeAddresses): Promise<() => Promise<void>> {
  const child = spawn(findProgram('nft'), ['-i'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { ...process.env, LC_ALL: 'C' },
  })
  const exited = new Promise((resolve) => {
    child.once('exit', resolve)
    child.once('error', resolve)
  })
  child.stdin.on('error', () => {}) // it may have ended
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ANSWER_MS) // without a table there is no trace, and the diagnosis says less
    let said = ''
    child.stdout.on('data', (bytes: Buffer) => {
      said += bytes.toString()
      if (!said.split('\n').includes(`table ${TABLE}`)) return
      clearTimeout(timer)
      resolve()
    })
    child.once('error', () => resolve())
    child.stdin.write(`${[...commands(family, client, server), 'list tables inet'].join('\n')}\n`)
  })
  return async () => {
    child.stdin.end(`delete table ${TABLE}\n`) // a kernel before 5.12 does not tie it to nft's life
    const timer = setTimeout(() => child.kill('SIGKILL'), EXIT_MS)
    await exited
    clearTimeout(timer)
  }
}

function commands(family: Family, client: string, server: string): string[] {
  const ip = family === 4 ? 'ip' : 'ip6'
  const chain = (hook: string) => [
    `add chain ${TABLE} ${hook} { type filter hook ${hook} priority ${PRIORITY}; }`,
    `add rule ${TABLE} ${hook} ${ip} saddr ${client} ${ip} daddr ${server} meta nftrace set 1`,
    `add rule ${TABLE} ${hook} ${ip} saddr ${server} ${ip} daddr ${client} meta nftrace set 1`,
  ]
  return [`add table ${TABLE} { flags owner; }`, ...chain('prerouting'), ...chain('output')]
}

import { spawn } from 'node:child_process'
import type { RulesConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { addressKeyword } from '../ruleset/nft-match.ts'
import { markIs, SYN } from '../ruleset/nft-text.ts'
import { findProgram, firstLine } from '../sys/program.ts'
import type { Flow } from './flow.ts'

/** Begins the names of the tables: each process has its own, so that several may trace at once. */
export const TRACE_TABLE = 'limpid-trace'

const PRIORITY = -350 // before connection tracking (-200), and before any chain that is likely to drop
const BRIDGE_PRIORITY = -350 // before dstnat (-300)
const RATE = 'limit rate 10/second' // a trace of one packet is some twenty messages
const ANSWER_MS = 2_000
const EXIT_MS = 1_000

/** A table that is there until it is released. */
export interface TraceTable {
  /** A second call does nothing. */
  release(): Promise<void>
}

/**
 * An nft table by which the kernel tells of the first packets of such flows, and of no others. Its further chains are empty:
 * that a packet passes them tells where it goes. It belongs to a child `nft -i` that reads from a pipe of ours, so it goes
 * when we do, however that happens; before Linux 5.12, where tables have no owner, it goes when it is released.
 * @throws LimpidError LIMPID_PROGRAM with nft's own words when the kernel refuses.
 */
export async function holdTraceTable(flow: Flow, rules: RulesConfig): Promise<TraceTable> {
  const name = `${TRACE_TABLE}-${process.pid}`
  const families = flow.path === 'bridged' ? ['inet', 'bridge'] : ['inet']
  // a session of its own: Ctrl-C on the terminal is for us, who then release it
  const child = spawn(findProgram('nft'), ['-i'], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  })
  const exited = new Promise((resolve) => {
    child.once('exit', resolve)
    child.once('error', resolve)
  })
  child.stdin.on('error', () => {}) // it may have ended
  let released: Promise<void> | undefined
  const release = async () => {
    child.stdin.end(`${families.map((family) => `delete table ${family} ${name}`).join('\n')}\n`)
    const timer = setTimeout(() => child.kill('SIGKILL'), EXIT_MS)
    await exited
    clearTimeout(timer)
  }
  const table: TraceTable = {
    release: () => {
      released ??= release()
      return released
    },
  }
  try {
    await new Promise<void>((resolve, reject) => {
      let said = ''
      let complained = ''
      const fail = (why: string) => {
        clearTimeout(timer)
        reject(new LimpidError('LIMPID_PROGRAM', `nft -i: ${firstLine(complained) ?? why}`))
      }
      const timer = setTimeout(() => fail(`no answer in ${ANSWER_MS} ms`), ANSWER_MS)
      child.stderr.on('data', (bytes: Buffer) => {
        complained += bytes.toString()
      })
      child.stdout.on('data', (bytes: Buffer) => {
        said += bytes.toString()
        // the last chain that is asked for is there: so is everything before it
        if (!said.includes(`chain ${LAST} {`)) return
        clearTimeout(timer)
        resolve()
      })
      child.once('error', (error) => fail(error.message))
      child.once('exit', () => fail('it ended'))
      const commands = families.flatMap((family) => tableCommands(family, name, flow, rules))
      child.stdin.write(`${[...commands, `list chain ${families.at(-1)} ${name} ${LAST}`].join('\n')}\n`)
    })
  } catch (error) {
    await table.release()
    throw error
  }
  return table
}

const LAST = 'forward'

function tableCommands(family: string, name: string, flow: Flow, rules: RulesConfig): string[] {
  const table = `${family} ${name}`
  const priority = family === 'bridge' ? BRIDGE_PRIORITY : PRIORITY
  const chain = (hook: string) => `add chain ${table} ${hook} { type filter hook ${hook} priority ${priority}; }`
  const rule = (hook: string, more: string) =>
    `add rule ${table} ${hook} ${[...tracedPackets(flow), more, RATE, 'meta nftrace set 1'].filter(Boolean).join(' ')}`
  // what we dial looks like the client's packet where the source is the client's: it is made here, and not asked about
  const made = flow.path === 'local' ? [rule('output', markIs(rules, '!=', rules.bypassMark))] : []
  return [
    `add table ${table} { flags owner; }`,
    `add table ${table}`, // before Linux 5.12; elsewhere it is refused, and changes nothing
    ...(family === 'bridge'
      ? [chain('prerouting'), rule('prerouting', ''), chain('forward')]
      : [
          ...['prerouting', 'output', 'input', 'postrouting'].map(chain),
          rule('prerouting', ''),
          ...made,
          chain('forward'),
        ]),
  ]
}

function tracedPackets({ client, destination, family, protocol }: Flow): string[] {
  const ip = addressKeyword(family)
  return [
    `${ip} saddr ${client} ${ip} daddr ${destination.address}`,
    destination.port === 0 ? `meta l4proto ${protocol}` : `${protocol} dport ${destination.port}`,
    ...(protocol === 'tcp' ? [SYN] : []),
  ]
}

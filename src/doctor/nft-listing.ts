import { LimpidError } from '../errors.ts'
import { firstLine, run } from '../sys/program.ts'

/** The nft ruleset of this network namespace, of whoever made it, as far as it is asked about. */
export interface NftListing {
  readonly chains: readonly NftChain[]
  readonly rules: readonly NftRule[]
}

export interface NftChain {
  readonly family: string
  readonly table: string
  readonly name: string
  /** Undefined for a chain that others jump to. */
  readonly hook: string | undefined
  readonly priority: number
  readonly policy: string | undefined
}

export interface NftRule {
  readonly family: string
  readonly table: string
  readonly chain: string
  readonly handle: number
  readonly statements: readonly Readonly<Record<string, unknown>>[]
}

interface Entry {
  readonly chain?: Readonly<Record<string, unknown>>
  readonly rule?: Readonly<Record<string, unknown>>
}

const TIMEOUT_MS = 20_000

/** Reads it, without the elements of sets. @throws LimpidError LIMPID_PROGRAM */
export async function readNftListing(): Promise<NftListing> {
  const { code, stdout, stderr } = await run('nft', ['-j', '-t', 'list', 'ruleset'], { timeoutMs: TIMEOUT_MS })
  if (code !== 0)
    throw new LimpidError('LIMPID_PROGRAM', `nft list ruleset: ${firstLine(stderr) ?? `exit code ${code}`}`)
  return parseNftListing(stdout)
}

/** From the output of `nft -j list ruleset` (libnftables-json(5)). */
export function parseNftListing(text: string): NftListing {
  const entries = (JSON.parse(text) as { nftables: Entry[] }).nftables
  const chains = entries.flatMap(({ chain }) => (chain === undefined ? [] : [chain]))
  const rules = entries.flatMap(({ rule }) => (rule === undefined ? [] : [rule]))
  return {
    chains: chains.map((chain) => ({
      family: `${chain.family}`,
      table: `${chain.table}`,
      name: `${chain.name}`,
      hook: chain.hook === undefined ? undefined : `${chain.hook}`,
      priority: Number(chain.prio ?? 0),
      policy: chain.policy === undefined ? undefined : `${chain.policy}`,
    })),
    rules: rules.map((rule) => ({
      family: `${rule.family}`,
      table: `${rule.table}`,
      chain: `${rule.chain}`,
      handle: Number(rule.handle),
      statements: (rule.expr ?? []) as NftRule['statements'],
    })),
  }
}

/** The rule as nft prints it, without counters; `handle 7` when it is gone. */
export async function ruleText({ family, table, chain, handle }: NftRule): Promise<string> {
  const { stdout } = await run('nft', ['-a', '-s', '-t', 'list', 'chain', family, table, chain], {
    timeoutMs: TIMEOUT_MS,
  })
  const line = stdout.split('\n').find((each) => each.endsWith(`# handle ${handle}`))
  return line === undefined ? `handle ${handle}` : line.slice(0, line.lastIndexOf('#')).trim()
}

import { LimpidError } from '../errors.ts'
import { firstLine, run } from '../sys/program.ts'

/** The nft ruleset of this network namespace, of whoever made it, as far as it is asked about. */
export interface NftListing {
  readonly chains: readonly NftChain[]
  readonly rules: readonly NftRule[]
  /** Tables that nft cannot put into JSON. */
  readonly unreadable: readonly { readonly family: string; readonly table: string }[]
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
  const all = await listJson(['ruleset'])
  if (all !== undefined) return parseNftListing(all)
  // nft 1.0.6 ends in the middle when it has no JSON for a single statement: then table by table
  const { stdout } = await run('nft', ['list', 'tables'], { timeoutMs: TIMEOUT_MS })
  const tables = [...stdout.matchAll(/^table (\S+) (\S+)$/gm)].map(([, family, name]) => [family!, name!])
  const listings = await Promise.all(
    tables.map(async ([family, name]) => {
      const text = await listJson(['table', family!, name!])
      return text === undefined
        ? { chains: [], rules: [], unreadable: [{ family: family!, table: name! }] }
        : parseNftListing(text)
    }),
  )
  return {
    chains: listings.flatMap(({ chains }) => chains),
    rules: listings.flatMap(({ rules }) => rules),
    unreadable: listings.flatMap(({ unreadable }) => unreadable),
  }
}

async function listJson(what: readonly string[]): Promise<string | undefined> {
  const { code, stdout, stderr } = await run('nft', ['-j', '-t', 'list', ...what], { timeoutMs: TIMEOUT_MS })
  if (code === 0) return isJson(stdout) ? stdout : undefined
  throw new LimpidError('LIMPID_PROGRAM', `nft list ${what.join(' ')}: ${firstLine(stderr) ?? `exit code ${code}`}`)
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
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
    unreadable: [],
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

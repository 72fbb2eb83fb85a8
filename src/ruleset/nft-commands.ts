import { LimpidError } from '../errors.ts'
import { firstLine, mustRun, run } from '../sys/program.ts'
import { tableDigest } from './nft.ts'
import { isBypassSet } from './nft-bypass.ts'

const TABLE_FAMILIES = ['inet', 'bridge'] as const
const NFT_TIMEOUT_MS = 20_000 // 10 000 prefixes load in a tenth of a second

/**
 * What nft says about an inet table, and the bridge table of that name, without what changes by itself (counters, elements of dynamic sets); undefined when
 * there is none. The elements of its other named sets follow, in the order of their names.
 */
export async function listTable(name: string): Promise<string | undefined> {
  const listings = await Promise.all(TABLE_FAMILIES.map((family) => listFamilyTable(family, name)))
  const found = listings.filter((listing) => listing !== undefined)
  return found.length === 0 ? undefined : found.join('')
}

async function listFamilyTable(family: string, name: string): Promise<string | undefined> {
  const table = await list(['-s', '-t', 'list', 'table', family, name])
  if (table === undefined) return undefined
  const sets = await Promise.all(staticSets(table).map((set) => list(['-s', 'list', 'set', family, name, set])))
  return [table, ...sets.map((set) => set ?? '')].join('')
}

/** For people: with counters, without the elements of named sets. */
export async function listTableWithCounters(name: string): Promise<string | undefined> {
  const listings = await Promise.all(TABLE_FAMILIES.map((family) => list(['-t', 'list', 'table', family, name])))
  const found = listings.filter((listing) => listing !== undefined)
  return found.length === 0 ? undefined : found.join('')
}

/** An inet table of ours, whatever its name: its listing has no counters and no elements of named sets. */
export interface FoundTable {
  readonly name: string
  readonly listing: string
}

/** All tables that have our comment; an inet and a bridge table of one name are one. */
export async function listOurTables(): Promise<FoundTable[]> {
  const rulesets = await Promise.all(TABLE_FAMILIES.map((family) => list(['-s', '-t', 'list', 'ruleset', family])))
  const listings = new Map<string, string>()
  for (const [listing, name] of rulesets.join('').matchAll(/^table (?:inet|bridge) (\S+) \{.*\n[\s\S]*?^\}$/gm)) {
    if (isOurs(listing)) listings.set(name!, `${listings.get(name!) ?? ''}${listing}\n`)
  }
  return [...listings].map(([name, listing]) => ({ name, listing }))
}

/** The named sets of a listing that do not fill themselves, and whose elements do not come and go. */
function staticSets(listing: string): string[] {
  const sets = [...listing.matchAll(/^\tset (\S+) \{\n([\s\S]*?)^\t\}/gm)]
  return sets.filter(([, name, body]) => !/\bdynamic\b/.test(body!) && !isBypassSet(name!)).map(([, name]) => name!)
}

async function list(args: readonly string[]): Promise<string | undefined> {
  const { code, stdout, stderr } = await run('nft', args, { timeoutMs: NFT_TIMEOUT_MS })
  if (code === 0) return stdout
  if (stderr.includes('No such file or directory')) return undefined
  throw nftError(args.join(' '), stderr)
}

/** Loads a text as one transaction: all of it or nothing. */
export async function loadText(text: string): Promise<void> {
  const { code, stderr } = await run('nft', ['-f', '-'], { input: text, timeoutMs: NFT_TIMEOUT_MS })
  if (code !== 0) throw nftError('-f -', stderr)
}

/** Removes an inet table and the bridge table of that name; no error when they are gone already. */
export async function deleteTable(name: string): Promise<void> {
  for (const family of TABLE_FAMILIES) {
    const { code, stderr } = await run('nft', ['delete', 'table', family, name])
    if (code === 0 || stderr.includes('No such file or directory')) continue
    throw nftError(`delete table ${family} ${name}`, stderr)
  }
}

/** Nothing when the kernel would take the text, else why not. Reaches the kernel, changes nothing (nft(8), --check). */
export async function checkText(text: string): Promise<string | undefined> {
  const { code, stderr } = await run('nft', ['-c', '-f', '-'], { input: text, timeoutMs: NFT_TIMEOUT_MS })
  return code === 0 ? undefined : (firstLine(stderr) ?? `nft ended with exit code ${code}`)
}

export async function nftVersion(): Promise<string> {
  return (await mustRun('nft', ['--version'])).trim()
}

/** Whether a listing is that of a table of ours. */
export function isOurs(listing: string): boolean {
  return tableDigest(listing) !== undefined
}

/** Whether a listing is that of a table that belongs to a running process (`flags owner`, or with others). */
export function isOwned(listing: string): boolean {
  return /^\tflags [a-z,]*\bowner\b/m.test(listing)
}

/** Whether a listing is that of a guard: it comes after whatever takes packets. */
export function isGuard(listing: string): boolean {
  return /^\t\ttype .* priority dstnat \+ 1;/m.test(listing)
}

export function countRules(listing: string): number {
  const chains = [...listing.matchAll(/^\tchain \S+ \{\n([\s\S]*?)^\t\}/gm)].map(([, body]) => body!)
  return chains.flatMap((body) => body.split('\n')).filter((line) => /^\t\t(?!type .*hook)/.test(line)).length
}

function nftError(args: string, stderr: string): LimpidError {
  const why = firstLine(stderr) ?? 'failed without a word'
  // nft goes beyond this bound only with CAP_NET_ADMIN outside all user namespaces (socket(7), SO_SNDBUFFORCE)
  const cure = why.includes('Message too long')
    ? 'raise net.core.wmem_max on the host, or list fewer prefixes'
    : undefined
  return new LimpidError('LIMPID_PROGRAM', `nft ${args}: ${why}`, { cure })
}

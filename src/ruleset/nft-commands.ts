import { LimpidError } from '../errors.ts'
import { firstLine, mustRun, run } from '../sys/program.ts'
import { versionOf } from '../sys/program-version.ts'
import { tableDigest } from './nft.ts'
import { isBypassSet } from './nft-bypass.ts'
import { type TableName, tableNames } from './nft-names.ts'

const TABLE_FAMILIES = ['inet', 'bridge'] as const
const NFT_TIMEOUT_MS = 20_000 // 10 000 prefixes load in a tenth of a second

/**
 * What nft says about an inet table, and the bridge table of that name, without what changes by itself (counters, elements of dynamic sets); undefined when
 * there is none. The elements of its other named sets follow, in the order of their names.
 */
export async function listTable(name: string): Promise<string | undefined> {
  return (await listTables([name]))[0]
}

/** The same of several, in the order of the names. */
export async function listTables(names: readonly string[]): Promise<(string | undefined)[]> {
  const tables = await listEach(['-s', '-t'], await named(names))
  const sets = tables.flatMap(({ table, text }) => staticSets(text).map((set) => ({ ...table, set })))
  const elements = await listEach(['-s'], sets)
  return names.map((name) => {
    const found = tables.filter(({ table }) => table.name === name)
    const texts = found.flatMap(({ table, text }) => [
      text,
      ...elements.filter(({ table: { family, name } }) => family === table.family && name === table.name).map(textOf),
    ])
    return texts.length === 0 ? undefined : texts.join('')
  })
}

/** For people: with counters, without the elements of named sets. */
export async function listTableWithCounters(name: string): Promise<string | undefined> {
  const listings = await listEach(['-t'], await named([name]))
  return listings.length === 0 ? undefined : listings.map(textOf).join('')
}

/** An inet table of ours, whatever its name: its listing has no counters and no elements of named sets. */
export interface FoundTable {
  readonly name: string
  readonly listing: string
}

/** All tables that have our comment; an inet and a bridge table of one name are one. */
export async function listOurTables(): Promise<FoundTable[]> {
  const families = new Set((await named()).map(({ family }) => family))
  const listings = new Map<string, string>()
  if (families.size === 0) return []
  // all at once, since not every name that a table of others may have is one that nft can be asked for
  const answer = await mustRun('nft', ['-s', '-t', '-f', '-'], {
    input: [...families].map((family) => `list ruleset ${family}\n`).join(''),
    timeoutMs: NFT_TIMEOUT_MS,
  })
  for (const [listing, name] of answer.matchAll(/^table (?:inet|bridge) (\S+) \{.*\n[\s\S]*?^\}\n/gm)) {
    if (isOurs(listing)) listings.set(name!, `${listings.get(name!) ?? ''}${listing}`)
  }
  return [...listings].map(([name, listing]) => ({ name, listing }))
}

/** The inet and bridge tables that there are, of those names or of any; inet ones first. */
async function named(names?: readonly string[]): Promise<TableName[]> {
  const found = await tableNames()
  return TABLE_FAMILIES.flatMap((wanted) =>
    found.filter(({ family, name }) => family === wanted && (names?.includes(name) ?? true)),
  )
}

/** A table, or one set of it. */
interface Listed extends TableName {
  readonly set?: string
}

interface Listing {
  readonly table: Listed
  readonly text: string
}

/** What one nft says about all of them, in that order; what has gone meanwhile is left out. */
async function listEach(options: readonly string[], wanted: readonly Listed[]): Promise<Listing[]> {
  if (wanted.length === 0) return []
  const commands = wanted.map(listCommand)
  const { code, stdout, stderr } = await run('nft', [...options, '-f', '-'], {
    input: commands.map((command) => `${command}\n`).join(''),
    timeoutMs: NFT_TIMEOUT_MS,
  })
  if (code === 0) {
    const texts = stdout.match(/^table \S+ \S+ \{.*\n[\s\S]*?^\}\n/gm) ?? []
    if (texts.length === wanted.length) return wanted.map((table, i) => ({ table, text: texts[i]! }))
    throw nftError([...options, commands.join('; ')].join(' '), `${texts.length} tables in the answer`)
  }
  if (!stderr.includes('No such file or directory')) throw nftError([...options, commands[0]].join(' '), stderr)
  if (wanted.length === 1) return []
  const each = await Promise.all(wanted.map((one) => listEach(options, [one])))
  return each.flat()
}

function listCommand({ family, name, set }: Listed): string {
  return set === undefined ? `list table ${family} ${name}` : `list set ${family} ${name} ${set}`
}

function textOf({ text }: Listing): string {
  return text
}

/** The named sets of a listing that do not fill themselves, and whose elements do not come and go. */
function staticSets(listing: string): string[] {
  const sets = [...listing.matchAll(/^\tset (\S+) \{\n([\s\S]*?)^\t\}/gm)]
  return sets.filter(([, name, body]) => !/\bdynamic\b/.test(body!) && !isBypassSet(name!)).map(([, name]) => name!)
}

/** Loads a text as one transaction: all of it or nothing. */
export async function loadText(text: string): Promise<void> {
  const { code, stderr } = await run('nft', ['-f', '-'], { input: text, timeoutMs: NFT_TIMEOUT_MS })
  if (code !== 0) throw nftError('-f -', stderr)
}

/** Removes an inet table and the bridge table of that name; no error when they are gone already. */
export async function deleteTable(name: string): Promise<void> {
  for (const { family } of await named([name])) {
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
  return await versionOf('nft')
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

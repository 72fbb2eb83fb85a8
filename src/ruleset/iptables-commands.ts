import { LimpidError } from '../errors.ts'
import { firstLine, run } from '../sys/program.ts'
import { versionOf } from '../sys/program-version.ts'
import { CHAIN_COMMENT, type ChainProgram } from './iptables-text.ts'
import type { Script } from './script.ts'

const TIMEOUT_MS = 60_000 // the older iptables takes 10 s for 10 000 rules
const LOCK_SECONDS = 10 // the older iptables lets one process at a time into the kernel (/run/xtables.lock)
const PORTION = 500 // rules; at 400 bytes each, what the default net.core.wmem_max of 212 992 takes
const PROGRAMS = ['iptables-restore', 'ip6tables-restore', 'ebtables-restore'] as const
const OUR_CHAIN = /^limpid[A-Za-z0-9_-]*-[a-z0-9]+$/

/** Our chains of one program under one name. */
export interface FoundChains {
  readonly program: ChainProgram
  /** What their names begin with. */
  readonly name: string
  readonly digest: string | undefined
  /** As the program's `-save` has them, without counters: chains, jumps to them, rules. */
  readonly listing: string
}

/** What one table has of ours. */
interface SavedTable {
  readonly table: string
  readonly chains: string[]
  /** Rules of built-in or others' chains that go to ours. */
  readonly jumps: string[]
  readonly rules: string[]
}

/**
 * Loads a script, in place of what there is under its name: in each table at once. What is too long for one message to the
 * kernel is loaded in pieces, and goes into effect with the last one.
 * @param before the listing of what is there, where it was just read; '' for nothing.
 * @throws LimpidError LIMPID_PROGRAM
 */
export async function loadChains(
  { program, name, text }: Script & { program: ChainProgram },
  before?: string,
): Promise<void> {
  const old = before === undefined ? await saved(program, name) : parseSaved(before, name)
  try {
    await restore(program, replacingChains(program, old, text))
  } catch (error) {
    // without CAP_NET_ADMIN outside all user namespaces, a message is bound by net.core.wmem_max (socket(7), SO_SNDBUFFORCE)
    if (!(error as Error).message.includes('Message too long')) throw error
    await removeChains(program, name)
    for (const piece of pieces(text)) await restore(program, piece)
  }
}

/** Texts to be loaded one after the other: empty chains, their rules in portions, and the jumps to them last. */
function pieces(text: string): string[] {
  return [...sections(text)].flatMap(([table, { chains, rules }]) => {
    const jumps = rules.filter((rule) => rule.startsWith('-I'))
    const others = rules.filter((rule) => !rule.startsWith('-I'))
    const portions = Array.from({ length: Math.ceil(others.length / PORTION) }, (_, i) =>
      others.slice(i * PORTION, (i + 1) * PORTION),
    )
    return [chains, ...portions, jumps].map((lines) => `*${table}\n${lines.join('\n')}\nCOMMIT\n`)
  })
}

/** Removes our chains of that name, and the jumps to them; nothing happens when there are none. `before`: as loadChains(). */
export async function removeChains(program: ChainProgram, name: string, before?: string): Promise<void> {
  const tables = before === undefined ? await saved(program, name) : parseSaved(before, name)
  if (tables.length > 0) await restore(program, replacingChains(program, tables, ''))
}

/** Undefined when there are none. */
export async function listChains(program: ChainProgram, name: string): Promise<FoundChains | undefined> {
  const tables = await saved(program, name)
  return tables.length === 0 ? undefined : found(program, name, tables)
}

/** All chains that are ours by their names, under whatever names. Programs that are not installed have none. */
export async function listOurChains(): Promise<FoundChains[]> {
  const lists = await Promise.all(
    PROGRAMS.map(async (program) => {
      const text = await save(program, 'optional')
      const names = [...text.matchAll(/^:(\S+)/gm)].map(([, chain]) => chain!).filter((chain) => OUR_CHAIN.test(chain))
      const prefixes = [...new Set(names.map((chain) => chain.slice(0, chain.lastIndexOf('-'))))].sort()
      return prefixes.map((name) => found(program, name, parseSaved(text, name)))
    }),
  )
  return lists.flat()
}

/** For people: with the counters of packets and bytes. Empty when there are none. */
export async function listChainsWithCounters(program: ChainProgram, name: string): Promise<string> {
  return linesOf(parseSaved(await save(program, 'needed', ['-c']), name))
}

/** The digests within the text of scripts, or in a listing: a jump to our chains names that of its script. */
export function chainsDigest(text: string): string | undefined {
  const found = [
    ...text.matchAll(new RegExp(`--comment "${CHAIN_COMMENT} ([0-9a-f]{12})"`, 'g')),
    ...text.matchAll(/^:\S+-d([0-9a-f]{12})\b/gm),
  ]
  return found.length === 0 ? undefined : [...new Set(found.map(([, digest]) => digest))].sort().join('+')
}

/** A rule that the kernel is asked about: `-p tcp -j TPROXY …` in a table. */
export interface ProbeRule {
  readonly table: string
  readonly rule: string
}

/** Nothing when the kernel takes all the rules, else why not: in chains that nothing goes to, and that are removed at once. */
export async function checkRules(program: ChainProgram, probes: readonly ProbeRule[]): Promise<string | undefined> {
  const chain = 'limpid-probe-p1'
  const isEbtables = program === 'ebtables-restore'
  const tables = [...new Set(probes.map(({ table }) => table))]
  const textOf = (lines: (table: string) => readonly string[]) =>
    tables.map((table) => [`*${table}`, ...lines(table), ...(isEbtables ? [] : ['COMMIT']), ''].join('\n')).join('')
  const load = textOf((table) => [
    isEbtables ? `:${chain} RETURN` : `:${chain} - [0:0]`,
    ...probes.filter((probe) => probe.table === table).map(({ rule }) => `-A ${chain} ${rule}`),
  ])
  const unload = textOf(() => [`-F ${chain}`, `-X ${chain}`])
  try {
    // each COMMIT is a transaction of its own, so that the kernel is asked for the rules before they go
    for (const text of isEbtables ? [load, unload] : [`${load}${unload}`]) await restore(program, text)
  } catch (error) {
    await removeChains(program, 'limpid-probe').catch(() => {}) // of several tables, some were loaded
    return (error as Error).message
  }
  return undefined
}

/** `iptables v1.8.9 (nf_tables)`. */
export async function chainsVersion(program: ChainProgram): Promise<string> {
  return await versionOf(program.replace('-restore', ''))
}

/** One text that takes away what was saved and brings a script's: each table changes from one to the other at once. */
export function replacingChains(program: ChainProgram, old: readonly SavedTable[], text: string): string {
  const wanted = sections(text)
  const tables = [...new Set([...wanted.keys(), ...old.map(({ table }) => table)])]
  const lines = tables.flatMap((table) => {
    const { chains = [], jumps = [] } = old.find((entry) => entry.table === table) ?? {}
    const section = wanted.get(table) ?? { chains: [], rules: [] }
    const kept = section.chains.map((line) => line.slice(1).split(' ')[0])
    const gone = chains.filter((chain) => !kept.includes(chain))
    const isEbtables = program === 'ebtables-restore'
    return [
      `*${table}`,
      ...section.chains, // makes a chain, and empties one that there is
      ...jumps.map((jump) => jump.replace(/^-A /, '-D ')),
      ...gone.map((chain) => `-F ${chain}`),
      ...gone.map((chain) => `-X ${chain}`),
      ...section.rules,
      ...(isEbtables ? [] : ['COMMIT']),
    ]
  })
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`
}

function sections(text: string): Map<string, { chains: string[]; rules: string[] }> {
  const parts = new Map<string, { chains: string[]; rules: string[] }>()
  let current: { chains: string[]; rules: string[] } | undefined
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      current = { chains: [], rules: [] }
      parts.set(line.slice(1), current)
    } else if (line.startsWith(':')) current?.chains.push(line)
    else if (line.startsWith('-')) current?.rules.push(line)
  }
  return parts
}

async function saved(program: ChainProgram, name: string): Promise<SavedTable[]> {
  return parseSaved(await save(program, 'needed'), name)
}

/** What is ours, under one name, of what a `-save` program says. */
export function parseSaved(text: string, name: string): SavedTable[] {
  const isOurs = (chain: string | undefined) =>
    chain?.startsWith(`${name}-`) === true && /^[a-z0-9]+$/.test(chain.slice(name.length + 1))
  const tables: SavedTable[] = []
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) tables.push({ table: line.slice(1), chains: [], jumps: [], rules: [] })
    const current = tables.at(-1)
    if (current === undefined) continue
    const chain = /^:(\S+)/.exec(line)?.[1]
    if (chain !== undefined && isOurs(chain)) current.chains.push(chain)
    const rule = /^(?:\[\d+:\d+\] )?-A (\S+) (.*)$/.exec(line)
    if (rule === null) continue
    if (isOurs(rule[1])) current.rules.push(line.trimEnd())
    else if (isOurs(/ ?-[jg] (\S+)/.exec(` ${rule[2]}`)?.[1])) current.jumps.push(line.trimEnd())
  }
  return tables.filter(({ chains, jumps }) => chains.length > 0 || jumps.length > 0)
}

function found(program: ChainProgram, name: string, tables: readonly SavedTable[]): FoundChains {
  const listing = linesOf(tables)
  return { program, name, digest: chainsDigest(listing), listing }
}

function linesOf(tables: readonly SavedTable[]): string {
  const lines = [...tables]
    .sort((a, b) => (a.table < b.table ? -1 : 1))
    .flatMap(({ table, chains, jumps, rules }) => [
      `*${table}`,
      ...[...chains].sort().map((chain) => `:${chain}`),
      ...jumps,
      ...rules,
    ])
  return lines.map((line) => `${line}\n`).join('')
}

async function save(program: ChainProgram, need: 'needed' | 'optional', args: readonly string[] = []): Promise<string> {
  const name = program.replace('-restore', '-save')
  try {
    const { code, stdout, stderr } = await run(name, args, { timeoutMs: TIMEOUT_MS })
    if (code === 0) return stdout
    throw new LimpidError('LIMPID_PROGRAM', `${name}: ${firstLine(stderr) ?? `exit code ${code}`}`)
  } catch (error) {
    // what is not installed, or not in the kernel, has no chains of ours
    if (need === 'optional' && error instanceof LimpidError) return ''
    throw error
  }
}

async function restore(program: ChainProgram, text: string): Promise<void> {
  const lock = program === 'ebtables-restore' ? [] : ['--wait', `${LOCK_SECONDS}`]
  const { code, stderr } = await run(program, ['--noflush', ...lock], { input: text, timeoutMs: TIMEOUT_MS })
  if (code === 0) return
  throw new LimpidError('LIMPID_PROGRAM', `${program}: ${reason(stderr, text) ?? `exit code ${code}`}`)
}

/** The program's own words, and the rule that they are about. */
function reason(stderr: string, text: string): string | undefined {
  const lines = stderr.split('\n').map((line) => line.trim())
  const said = lines.find((line) => line !== '' && !line.startsWith('Try ')) ?? firstLine(stderr)
  const number = /line:? (\d+)/.exec(stderr)?.[1]
  const rule = number === undefined ? undefined : text.split('\n')[Number(number) - 1]
  return rule === undefined || rule === 'COMMIT' ? said : `${said}: ${rule}`
}

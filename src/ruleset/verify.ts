import { writeFileSync } from 'node:fs'
import type { Family } from '../net/address.ts'
import { formatPrefix } from '../net/prefix.ts'
import { readSysctl, sysctlPath } from '../sys/host.ts'
import { BACKENDS, type Listings, type Role, scriptsText } from './backend.ts'
import { elementSetsOf, listElements } from './bypass-account.ts'
import { BypassList } from './bypass-list.ts'
import { JournalFile } from './journal.ts'
import type { Plan } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'
import { PolicyRouting } from './rtnetlink.ts'

/** One thing that is not as planned. `found` is undefined for what is missing, `expected` for what should not be there. */
export interface Difference {
  /** `nft table inet limpid`, `ip -4 rule`, `ip -6 route`, `sysctl net.…`. */
  readonly what: string
  readonly expected: string | undefined
  readonly found: string | undefined
}

/** A difference that a few netlink messages or a write mend, without a process. */
export interface RoutingDifference extends Difference {
  /** @throws SyscallError; EEXIST when it has been mended meanwhile. */
  mend(): void
}

/** Reads back what the kernel has and compares it with the plan. Empty when all is as planned. `found`: tables that were just read. */
export async function verifyRuleset(plan: Plan, found?: Listings): Promise<Difference[]> {
  using kernel = new PolicyRouting()
  const tables = await verifyTables(plan, found)
  return [...tables, ...verifyRouting(plan, kernel).map(withoutMend)]
}

export function withoutMend({ what, expected, found }: RoutingDifference): Difference {
  return { what, expected, found }
}

/** The part of it that takes processes to read. */
export async function verifyTables(plan: Plan, found?: Listings): Promise<Difference[]> {
  const journal = JournalFile.find().read()
  const { rules } = plan
  const backend = BACKENDS[plan.backend]
  const [version, { main, guard }] = await Promise.all([backend.version(), found ?? backend.list(rules)])
  const isSame = journal?.programVersion === version
  return [
    ...compareTables(plan, 'main', main, isSame ? journal.tableListing : ''),
    ...compareTables(plan, 'guard', guard, isSame ? journal.guardListing : ''),
    ...(main === undefined ? [] : await compareBypass(plan)),
  ]
}

/** The part of it that is cheap: ip rules, routes, sysctls. `kernel` must stay open as long as anything is mended. */
export function verifyRouting(plan: Plan, kernel: PolicyRouting): RoutingDifference[] {
  return [...compareRoutes(plan, kernel), ...compareIpRules(plan, kernel), ...compareSysctls(plan)]
}

/** `recorded`: the listing right after install by the same program; '' when unknown, then only the digest is compared. */
function compareTables(plan: Plan, role: Role, listing: string | undefined, recorded: string): Difference[] {
  const backend = BACKENDS[plan.backend]
  const what = backend.label(plan.rules, role)
  const text = scriptsText(plan[role])
  if (text === '')
    return backend.digest(listing ?? '') !== undefined ? [{ what, expected: undefined, found: what }] : []
  if (listing === undefined) return [{ what, expected: what, found: undefined }]
  if (backend.digest(text) !== backend.digest(listing)) {
    return [{ what, expected: 'rules of these settings', found: 'rules of other settings' }]
  }
  return recorded === '' ? [] : compareLines(what, recorded, listing)
}

/** Configured prefixes must be in the sets, or lie within one that was added while Limpid runs. */
async function compareBypass(plan: Plan): Promise<Difference[]> {
  if (plan.bypass.length === 0) return []
  const what = BACKENDS[plan.backend].label(plan.rules, 'main')
  const lists = await Promise.all(
    elementSetsOf(plan).map(async (set) => {
      const found = new BypassList((await listElements(set)).map(({ prefix }) => prefix))
      const expected = plan.bypass.filter(({ family }) => family === set.family)
      return expected.filter((prefix) => found.get(prefix) === undefined && found.covering(prefix) === undefined)
    }),
  )
  const missing = new Set(lists.flat().map(formatPrefix))
  return [...missing].map((prefix) => ({ what, expected: `bypass ${prefix}`, found: undefined }))
}

/** The lines that only one of two texts has, as often as they are missing. */
export function compareLines(what: string, expected: string, found: string): Difference[] {
  const surplus = new Map<string, number>()
  for (const line of expected.split('\n')) surplus.set(line, (surplus.get(line) ?? 0) + 1)
  for (const line of found.split('\n')) surplus.set(line, (surplus.get(line) ?? 0) - 1)
  return [...surplus].flatMap(([line, count]) => {
    const text = line.trim()
    const difference =
      count > 0 ? { what, expected: text, found: undefined } : { what, expected: undefined, found: text }
    return Array.from({ length: Math.abs(count) }, () => difference)
  })
}

/** `nft table inet limpid: missing`. */
export function describeDifference({ what, expected, found }: Difference): string {
  if (found === undefined) return expected === what ? `${what}: missing` : `${what}: missing: ${expected}`
  if (expected !== undefined) return `${what}: ${found} instead of ${expected}`
  return found === what ? `${what}: not planned` : `${what}: not planned: ${found}`
}

/**
 * For people: each thing's name, then lines as diff(1) has them, `-` for what is planned and `+` for what is there.
 *
 *     ip -4 rule
 *     - pref 195 fwmark 0x10000000/0x30000000 lookup 19536 protocol 195
 */
export function formatDifferences(differences: readonly Difference[]): string {
  const lines: string[] = []
  let heading: string | undefined
  for (const { what, expected, found } of differences) {
    const isWhole = what === (expected ?? found)
    if (!isWhole && what !== heading) lines.push(what)
    heading = isWhole ? undefined : what
    if (expected !== undefined) lines.push(`- ${expected}`)
    if (found !== undefined) lines.push(`+ ${found}`)
  }
  return lines.join('\n')
}

function compareIpRules(plan: Plan, kernel: PolicyRouting): RoutingDifference[] {
  const planned = plan.ipRules.map((rule) => ({ rule, family: rule.family, text: ipRuleArgs(rule).join(' ') }))
  const { missing, surplus } = unmatched(planned, kernel.rules())
  return [
    ...surplus.map((found) => ({
      what: `ip -${found.family} rule`,
      expected: undefined,
      found: found.text,
      mend: () => kernel.deleteRule(found),
    })),
    ...missing.map(({ rule, family, text }) => ({
      what: `ip -${family} rule`,
      expected: text,
      found: undefined,
      mend: () => kernel.addRule(rule),
    })),
  ]
}

function compareRoutes(plan: Plan, kernel: PolicyRouting): RoutingDifference[] {
  const planned = plan.routes.map((route) => ({ route, family: route.family, text: routeArgs(route).join(' ') }))
  const { missing, surplus } = unmatched(planned, kernel.routes(plan.rules.routeTable))
  return [
    ...surplus.map((found) => ({
      what: `ip -${found.family} route`,
      expected: undefined,
      found: found.text,
      mend: () => kernel.deleteRoute(found),
    })),
    ...missing.map(({ route, family, text }) => ({
      what: `ip -${family} route`,
      expected: text,
      found: undefined,
      mend: () => kernel.addRoute(route),
    })),
  ]
}

interface Entry {
  readonly family: Family
  readonly text: string
}

/** What only one of two lists has, as often as the other lacks it. */
function unmatched<P extends Entry, F extends Entry>(planned: readonly P[], found: readonly F[]) {
  const surplus = [...found]
  const missing = planned.filter(({ family, text }) => {
    const at = surplus.findIndex((entry) => entry.family === family && entry.text === text)
    if (at >= 0) surplus.splice(at, 1)
    return at < 0
  })
  return { missing, surplus }
}

function compareSysctls(plan: Plan): RoutingDifference[] {
  const changes = JournalFile.find().read()?.sysctls ?? plan.sysctls
  return changes
    .map(({ key, value }) => ({
      what: `sysctl ${key}`,
      expected: value,
      found: readSysctl(key),
      mend: () => writeFileSync(sysctlPath(key), value),
    }))
    .filter(({ expected, found }) => expected !== found)
}

import { readSysctl } from '../sys/host.ts'
import { listRoutes, listRules } from './ip-commands.ts'
import { type Journal, JournalFile } from './journal.ts'
import { guardTable, tableDigest } from './nft.ts'
import { listTable, nftVersion } from './nft-commands.ts'
import type { Plan } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'

/** One thing that is not as planned. `found` is undefined for what is missing, `expected` for what should not be there. */
export interface Difference {
  /** `nft table inet limpid`, `ip -4 rule`, `ip -6 route`, `sysctl net.…`. */
  readonly what: string
  readonly expected: string | undefined
  readonly found: string | undefined
}

/** Reads back what the kernel has and compares it with the plan. Empty when all is as planned. */
export async function verifyRuleset(plan: Plan): Promise<Difference[]> {
  const journal = JournalFile.find().read()
  const sameNft = journal !== undefined && journal.nftVersion === (await nftVersion())
  const { rules } = plan
  return [
    ...(await verifyTable(rules.nftTable, plan.nftText, sameNft ? journal.tableListing : '')),
    ...(await verifyTable(guardTable(rules), plan.guardText ?? '', sameNft ? journal.guardListing : '')),
    ...(await verifyIpRules(plan)),
    ...(await verifyRoutes(plan)),
    ...verifySysctls(plan, journal),
  ]
}

/** `recorded`: the listing right after install by the same nft; '' when unknown, then only the digest is compared. */
async function verifyTable(name: string, text: string, recorded: string): Promise<Difference[]> {
  const what = `nft table inet ${name}`
  const listing = await listTable(name)
  if (text === '') return listing === undefined ? [] : [{ what, expected: undefined, found: what }]
  if (listing === undefined) return [{ what, expected: what, found: undefined }]
  if (tableDigest(text) !== tableDigest(listing)) {
    return [{ what, expected: 'rules of these settings', found: 'rules of other settings' }]
  }
  return recorded === '' ? [] : compareLines(what, recorded, listing)
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

async function verifyIpRules(plan: Plan): Promise<Difference[]> {
  const lines = (family: number, texts: readonly string[]) => texts.map((text) => `-${family} ${text}`)
  const ours = (await listRules()).filter((rule) => rule.ours)
  return compareLines(
    'ip rule',
    plan.ipRules.flatMap((rule) => lines(rule.family, [ipRuleArgs(rule).join(' ')])).join('\n'),
    ours.flatMap((rule) => lines(rule.family, [rule.text])).join('\n'),
  ).filter(notEmpty)
}

async function verifyRoutes(plan: Plan): Promise<Difference[]> {
  const ours = (await listRoutes(plan.rules.routeTable)).filter((route) => route.ours)
  return plan.routes
    .filter(
      (route) => !ours.some(({ family, text }) => family === route.family && text.startsWith('local default dev lo ')),
    )
    .map((route) => ({ what: `ip -${route.family} route`, expected: routeArgs(route).join(' '), found: undefined }))
}

function verifySysctls(plan: Plan, journal: Journal | undefined): Difference[] {
  return (journal?.sysctls ?? plan.sysctls)
    .map(({ key, value }) => ({ what: `sysctl ${key}`, expected: value, found: readSysctl(key) }))
    .filter(({ expected, found }) => expected !== found)
}

function notEmpty({ expected, found }: Difference): boolean {
  return (expected ?? found) !== ''
}

import { LimpidError } from '../errors.ts'
import type { Family } from '../net/address.ts'
import { firstLine, run } from '../sys/program.ts'
import { OUR_PROTOCOL } from './policy-routing.ts'

/** An ip rule as the kernel has it, of whoever made it. */
export interface FoundRule {
  readonly family: Family
  readonly priority: number
  readonly mark: number | undefined
  readonly mask: number | undefined
  readonly table: number | undefined
  readonly ours: boolean
  /** As the arguments that would make it. */
  readonly text: string
}

export interface FoundRoute {
  readonly family: Family
  readonly ours: boolean
  readonly text: string
}

const RTN_LOCAL = '2' // include/uapi/linux/rtnetlink.h; `ip -N` shows types as numbers
const ROUTE_WORDS = { gateway: 'via', dev: 'dev', protocol: 'proto', metric: 'metric' }
const FAMILIES: readonly Family[] = [4, 6]

export function familySwitch(family: Family): '-4' | '-6' {
  return family === 4 ? '-4' : '-6'
}

/** All ip rules of both families, in the kernel's order. */
export async function listRules(): Promise<FoundRule[]> {
  const lists = await Promise.all(FAMILIES.map(listFamilyRules))
  return lists.flat()
}

async function listFamilyRules(family: Family): Promise<FoundRule[]> {
  const found = await readJson(family, ['rule', 'show'])
  return found.map((rule) => ({
    family,
    priority: Number(rule.priority),
    mark: asNumber(rule.fwmark),
    // no mask is shown when all bits count
    mask: rule.fwmark === undefined ? undefined : (asNumber(rule.fwmask) ?? 0xffff_ffff),
    table: asNumber(rule.table),
    ours: rule.protocol === `${OUR_PROTOCOL}`,
    text: ruleText(rule),
  }))
}

/** The routes of one route table, both families; none when the route table does not exist. */
export async function listRoutes(table: number): Promise<FoundRoute[]> {
  const lists = await Promise.all(
    FAMILIES.map(async (family) => {
      const found = await readJson(family, ['route', 'show', 'table', `${table}`])
      return found.map((route) => ({
        family,
        ours: route.protocol === `${OUR_PROTOCOL}`,
        text: routeText(route, table),
      }))
    }),
  )
  return lists.flat()
}

type JsonRecord = Readonly<Record<string, unknown>>

async function readJson(family: Family, args: readonly string[]): Promise<JsonRecord[]> {
  // -N: numbers, since /etc/iproute2 may give our protocol or route table a name
  const { code, stdout, stderr } = await run('ip', ['-N', '-j', familySwitch(family), ...args])
  const missing = /FIB table does not exist|Address family not supported|Operation not supported/.test(stderr)
  if (code !== 0 && !missing) {
    throw new LimpidError('LIMPID_PROGRAM', `ip ${args.join(' ')}: ${firstLine(stderr) ?? `exit code ${code}`}`)
  }
  const text = stdout.trim()
  return text === '' || text === '[' ? [] : ((JSON.parse(text) as JsonRecord[]) ?? [])
}

function asNumber(value: unknown): number | undefined {
  return value === undefined ? undefined : Number(value)
}

function ruleText(rule: JsonRecord): string {
  const words = ['pref', `${rule.priority}`]
  if (rule.not !== undefined) words.unshift('not')
  for (const key of ['iif', 'oif', 'ipproto'] as const) if (rule[key] !== undefined) words.push(key, `${rule[key]}`)
  if (rule.src !== undefined && rule.src !== 'all') words.push('from', withLength(rule.src, rule.srclen))
  if (rule.dst !== undefined) words.push('to', withLength(rule.dst, rule.dstlen))
  if (rule.fwmark !== undefined) words.push('fwmark', `${rule.fwmark}${rule.fwmask ? `/${rule.fwmask}` : ''}`)
  if (rule.table !== undefined) words.push('lookup', `${rule.table}`)
  if (rule.goto !== undefined) words.push('goto', `${rule.goto}`)
  if (rule.nop !== undefined) words.push('nop')
  if (rule.protocol !== undefined) words.push('protocol', `${rule.protocol}`)
  return words.join(' ')
}

function withLength(address: unknown, length: unknown): string {
  return length === undefined ? `${address}` : `${address}/${length}`
}

function routeText(route: JsonRecord, table: number): string {
  const type = `${route.type ?? ''}`
  const words = [type === RTN_LOCAL ? 'local' : type, `${route.dst ?? ''}`]
  for (const key of ['gateway', 'dev', 'protocol', 'metric'] as const) {
    if (route[key] !== undefined) words.push(ROUTE_WORDS[key], `${route[key]}`)
  }
  return [...words.filter((word) => word !== ''), 'table', table].join(' ')
}

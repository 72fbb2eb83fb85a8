import type { Match, Protocol } from '../config/types.ts'
import { fits } from '../doctor/needs.ts'
import { formatPortRange, isAllPorts, type NumberRange, portsContain } from '../net/ports.ts'
import { formatPrefix, type Prefix, prefixContains } from '../net/prefix.ts'
import { hex } from '../ruleset/policy-routing.ts'
import type { Flow } from './flow.ts'

/** Whether a flow fulfils conditions. It does when none has failed, provided that what is assumed holds. */
export interface Judgement {
  /** `port 81 is not in 80,443`. */
  readonly failed: readonly string[]
  /** What the question left open: `its port is one of 80,443`. */
  readonly assumed: readonly string[]
}

/** Conditions as a rule asks them. `interfaces`: those that mean something at that place; the flow's is `interface`. */
export interface Conditions {
  readonly match: Match
  readonly exclude: Match
  readonly protocols: readonly Protocol[]
  readonly interface: string | undefined
}

const SHOWN = 4

/** Judges them one by one, as the rules do: each list of `exclude` excludes by itself. */
export function judge(flow: Flow, { match, exclude, protocols, interface: dev }: Conditions): Judgement {
  const failed: string[] = []
  const assumed: string[] = []
  const settle = (holds: boolean | undefined, no: string, perhaps: string) => {
    if (holds === undefined) assumed.push(perhaps)
    else if (!holds) failed.push(no)
  }
  if (!protocols.includes(flow.protocol)) failed.push(`${flow.protocol} is not ${protocols.join(' or ')}`)
  const word = flow.path === 'local' ? 'leaves by' : 'comes in on'
  if (match.interfaces.length > 0) {
    const names = listed(match.interfaces)
    settle(isNamed(match.interfaces, dev), `it ${word} ${dev}, not ${names}`, `it ${word} ${names}`)
  }
  if (exclude.interfaces.length > 0) {
    const names = listed(exclude.interfaces)
    settle(not(isNamed(exclude.interfaces, dev)), `interface ${dev} is excluded`, `it does not ${bare(word)} ${names}`)
  }
  for (const { name, address, wanted, unwanted } of addressesOf(flow, match, exclude)) {
    if (wanted.length > 0 && !contains(wanted, address)) {
      failed.push(`${name} ${address} is not in ${listed(wanted.map(formatPrefix))}`)
    }
    const excluding = unwanted.find((prefix) => prefixContains(prefix, address))
    if (excluding !== undefined) failed.push(`${name} ${address} is excluded (${formatPrefix(excluding)})`)
  }
  const { port } = flow.destination
  if (match.ports.length > 0 && !isAllPorts(match.ports)) {
    const ports = ranges(match.ports)
    const holds = port === 0 ? undefined : portsContain(match.ports, port)
    settle(holds, `port ${port} is not in ${ports}`, `its port is one of ${ports}`)
  }
  if (exclude.ports.length > 0) {
    const ports = ranges(exclude.ports)
    const holds = port === 0 && !isAllPorts(exclude.ports) ? undefined : !portsContain(exclude.ports, port || 1)
    settle(holds, `port ${port} is excluded (${ports})`, `its port is none of ${ports}`)
  }
  judgeMarks(flow, match, exclude, failed)
  if (flow.path === 'local') judgeProcess(flow, match, exclude, settle)
  return { failed, assumed }
}

type Settle = (holds: boolean | undefined, no: string, perhaps: string) => void

function judgeMarks({ fwmark }: Flow, match: Match, exclude: Match, failed: string[]): void {
  const bears = ({ value, mask }: Match['fwmarks'][number]) => (fwmark & mask) >>> 0 === value
  const shown = (marks: Match['fwmarks']) => listed(marks.map(({ value, mask }) => `${hex(value)}/${hex(mask)}`))
  if (match.fwmarks.length > 0 && !match.fwmarks.some(bears)) {
    failed.push(`fwmark ${hex(fwmark)} is not ${shown(match.fwmarks)}`)
  }
  const excluding = exclude.fwmarks.filter(bears)
  if (excluding.length > 0) failed.push(`fwmark ${hex(fwmark)} is excluded (${shown(excluding)})`)
}

function judgeProcess({ uid }: Flow, match: Match, exclude: Match, settle: Settle): void {
  if (match.uids.length > 0) {
    const uids = ranges(match.uids)
    const holds = uid === undefined ? undefined : portsContain(match.uids, uid)
    settle(holds, `uid ${uid} is not in ${uids}`, `its process runs as uid ${uids}`)
  }
  if (exclude.uids.length > 0) {
    const uids = ranges(exclude.uids)
    const holds = uid === undefined ? undefined : !portsContain(exclude.uids, uid)
    settle(holds, `uid ${uid} is excluded (${uids})`, `its process does not run as uid ${uids}`)
  }
  if (match.cgroups.length > 0) settle(undefined, '', `its process is in the cgroup ${listed(match.cgroups)}`)
  if (exclude.cgroups.length > 0) settle(undefined, '', `its process is not in the cgroup ${listed(exclude.cgroups)}`)
}

function addressesOf({ client, destination }: Flow, match: Match, exclude: Match) {
  return [
    { name: 'source', address: client, wanted: match.sources, unwanted: exclude.sources },
    { name: 'destination', address: destination.address, wanted: match.destinations, unwanted: exclude.destinations },
  ]
}

function contains(prefixes: readonly Prefix[], address: string): boolean {
  return prefixes.some((prefix) => prefixContains(prefix, address))
}

function isNamed(patterns: readonly string[], name: string | undefined): boolean | undefined {
  return name === undefined ? undefined : patterns.some((pattern) => fits(pattern, name))
}

function not(holds: boolean | undefined): boolean | undefined {
  return holds === undefined ? undefined : !holds
}

function bare(word: string): string {
  return word === 'leaves by' ? 'leave by' : 'come in on'
}

function ranges(list: readonly NumberRange[]): string {
  return listed(list.map(formatPortRange))
}

/** The first few of them. */
function listed(texts: readonly string[]): string {
  const more = texts.length - SHOWN
  return more > 0 ? `${texts.slice(0, SHOWN).join(',')} and ${more} more` : texts.join(',')
}

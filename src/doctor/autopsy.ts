import type { ListenerConfig, Protocol, RulesConfig } from '../config/types.ts'
import type { Family } from '../net/address.ts'
import { familySwitch } from '../ruleset/ip-commands.ts'
import { guardTable } from '../ruleset/nft.ts'
import { type Examined, runCommand } from './examined.ts'
import { type Finding, ok } from './finding.ts'
import { acceptCommand, deleteCommand, suspects } from './foreign-nft.ts'
import { diagnose, type Journey } from './journey.ts'
import { readNftListing, ruleText } from './nft-listing.ts'
import { type ProbeNetwork, SERVER_LINK } from './probe-network.ts'
import type { ProbePlan } from './probe-plan.ts'
import { dialThrough, isThrough, type TcpOutcome } from './probe-tcp.ts'
import { readTcpCounters } from './tcp-counters.ts'
import { findPacket } from './trace.ts'
import { TRACE_TABLE } from './trace-table.ts'
import { traced } from './tracer.ts'
import { wayTo } from './ways.ts'

const SYN_ACK = /tcp flags (?:== )?(?:syn \| ack|ack \| syn|0x12)(?: |$)/
const SYN_ONLY = /tcp flags (?:== )?(?:syn|0x2)(?: |$)/
const ROUTING = /^(ip-rule|local-route|foreign-ip-rule|route-table)$/
/** One way into one listener over one family and protocol. */
export interface Probe {
  readonly listener: ListenerConfig
  readonly family: Family
  readonly protocol: Protocol
  readonly plan: Extract<ProbePlan, { kind: 'probe' }>
}

/** What all probes of one run share. */
export interface Run {
  readonly examined: Examined
  readonly checks: readonly Finding[]
  readonly network: ProbeNetwork
  readonly deadlineAt: number
}

/** Sends it once more, followed through nft. */
export async function whereItDied(
  { examined, checks, network }: Run,
  { listener, family, plan }: Probe,
  entryLink: string,
  probe: string,
): Promise<Finding> {
  const addresses = network.addresses[family]!
  const { client, server } = addresses
  const verify = `limpid rules verify ${examined.configArguments}`.trim()
  const { rules } = examined.config
  const before = readTcpCounters().reversePath
  let outcome: TcpOutcome | undefined
  const packets = await traced(family, addresses, async () => {
    outcome = await dialThrough(network, family, plan.port)
  })
  if (outcome === undefined || isThrough(outcome, listener)) {
    return ok('packets', `${probe} to listener ${listener.name} came through at the second try`)
  }
  const [takenWay, wayBack, dialWay, answerWay] = await Promise.all([
    wayTo({ to: server, from: client, iif: entryLink, mark: rules.interceptMark }),
    wayTo({ to: client }),
    wayTo({ to: server, mark: rules.bypassMark }),
    listener.source === 'proxy'
      ? ({ kind: 'local' } as const)
      : wayTo({ to: client, from: server, iif: SERVER_LINK, mark: rules.interceptMark }),
  ])
  const syn = findPacket(packets, client, server, SYN_ONLY)
  const answers = packets.filter(([first]) => SYN_ACK.test(first?.text ?? ''))
  return diagnose({
    probe,
    listener: listener.name,
    outcome,
    rules,
    byMark: listener.intercept === 'tproxy' || listener.intercept === 'mark',
    isOurs: ({ table, chain }) =>
      [rules.nftTable, guardTable(rules), TRACE_TABLE].includes(table) || chain.startsWith('limpid'),
    seen: syn.length > 0,
    syn: syn.filter(({ table }) => table !== TRACE_TABLE),
    synAck: findPacket(
      answers.filter(([first]) => !first!.text.includes('iif ')),
      server,
      client,
      SYN_ACK,
    ),
    serverSynAck: findPacket(
      answers.filter(([first]) => first!.text.includes('iif ')),
      server,
      client,
      SYN_ACK,
    ),
    takenWay,
    wayBack,
    dialWay,
    answerWay,
    entryLink,
    ingress: await ingressSuspect(rules),
    serverLink: network.serverLink,
    reversePath: readTcpCounters().reversePath - before,
    isListening: examined.listening.some(
      (each) =>
        each.listener === listener.name &&
        each.protocol === 'tcp' &&
        each.socket !== undefined &&
        isFamily(each.endpoint.address, family),
    ),
    runCommand: runCommand(examined),
    mendRules: cureOf(checks, /^(rules|foreign-nft)$/, '') ?? verify,
    mendRouting: cureOf(checks, ROUTING, familySwitch(family)) ?? verify,
  })
}

/** The command of the first check that found something wrong there. */
function cureOf(checks: readonly Finding[], id: RegExp, words: string): string | undefined {
  return checks.find(
    ({ id: each, status, what, cure }) => status === 'wrong' && id.test(each) && `${what} ${cure}`.includes(words),
  )?.cure
}

/** A rule of others that packets meet before nft's trace begins. */
async function ingressSuspect(rules: RulesConfig): Promise<Journey['ingress']> {
  const found = suspects(await readNftListing(), rules, () => false).find(({ chain }) => chain.hook === 'ingress')
  if (found === undefined) return undefined
  const { chain, rule } = found
  const where = `nft table ${chain.family} ${chain.table}, chain ${chain.name} (ingress)`
  if (rule === undefined) return { what: `${where}: its policy drop`, cure: acceptCommand(chain, rules) }
  return { what: `${where}: the rule "${await ruleText(rule)}"`, cure: deleteCommand(rule) }
}

function isFamily(address: string, family: Family): boolean {
  return address.includes(':') === (family === 6)
}

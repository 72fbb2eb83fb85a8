import type { RulesConfig } from '../config/types.ts'
import { hex } from '../ruleset/policy-routing.ts'
import { type Finding, wrong } from './finding.ts'
import { acceptCommand, deleteCommand } from './foreign-nft.ts'
import type { TcpOutcome } from './probe-tcp.ts'
import type { TraceStep } from './trace.ts'
import type { Way } from './ways.ts'

/** All that is known of a probe that did not get through. */
export interface Journey {
  /** `TCP over IPv4`. */
  readonly probe: string
  readonly listener: string
  readonly outcome: TcpOutcome
  readonly rules: RulesConfig
  /** Whether this listener's packets carry the intercept mark: tproxy and mark. */
  readonly byMark: boolean
  /** Whether a step is in an nft table of ours, or (backend iptables) in a chain of ours. */
  readonly isOurs: (step: Pick<TraceStep, 'table' | 'chain'>) => boolean
  /** The client's SYN has come to nft's prerouting hook. */
  readonly seen: boolean
  /** The client's SYN, the answer to it, the dial's SYN, the server's answer, through nft. */
  readonly syn: readonly TraceStep[]
  readonly synAck: readonly TraceStep[]
  readonly serverSynAck: readonly TraceStep[]
  /** Where a packet to the server goes that came from the client with the intercept mark; without it; and the answers. */
  readonly takenWay: Way
  readonly wayBack: Way
  readonly dialWay: Way
  /** Where the server's answer goes that came in with the intercept mark; local for the proxy's own address. */
  readonly answerWay: Way
  readonly entryLink: string
  /** A rule of others on the way in, before the trace begins. */
  readonly ingress: { readonly what: string; readonly cure: string } | undefined
  readonly serverLink: string
  /** Dropped by rp_filter meanwhile. */
  readonly reversePath: number
  readonly isListening: boolean
  readonly runCommand: string
  /** Mends what of the rules or of policy routing is not as planned. */
  readonly mendRules: string
  readonly mendRouting: string
}

const SETS_MARK = /\b(?:mark set|(?:MARK|CONNMARK) )/
/** A rule that takes a flow: ours carry the listener's name, and iptables shows the target. */
const TAKES = /comment "listener |\b(?:TPROXY|REDIRECT|DNAT)\b/

/** Names the hop at which it died, and what mends that. */
export function diagnose(journey: Journey): Finding {
  const { outcome, probe, listener } = journey
  const {
    verb = 'dies',
    what,
    cure,
  } = outcome.connected && outcome.taken ? behindListener(journey) : beforeListener(journey)
  return wrong('packets', `${probe} to listener ${listener} ${verb} ${what}`, cure)
}

interface Death {
  /** `dies` when left out. */
  readonly verb?: 'is not taken:'
  readonly what: string
  readonly cure: string
}

function beforeListener(journey: Journey): Death {
  const { syn, isOurs, rules, byMark, takenWay, isListening, outcome } = journey
  if (!journey.seen && journey.ingress !== undefined) {
    return { what: `before nft's prerouting hook, in ${journey.ingress.what}`, cure: journey.ingress.cure }
  }
  if (!journey.seen) {
    return {
      what: `before nft's prerouting hook: the SYN was not seen on ${journey.entryLink}`,
      cure: `tcpdump -ni ${journey.entryLink} tcp (and look for an ingress chain: nft list ruleset netdev)`,
    }
  }
  const dropped = syn.find((step) => isDrop(step) && !isOurs(step))
  if (dropped !== undefined) return { what: `in ${place(dropped)}`, cure: dropCure(dropped, syn, rules) }
  const first = syn.findIndex((step) => isOurs(step))
  if (first < 0) return { what: 'as no rule of ours sees it: they are not installed', cure: journey.mendRules }
  const taker = syn.find((step) => isOurs(step) && step.kind === 'rule' && TAKES.test(step.text))
  if (taker === undefined || (taker.verdict === 'continue' && !byMark)) return untaken(journey, first)
  if (byMark) {
    const last = lastMark(syn)
    if (!isListening) return noListener(journey)
    if (last !== undefined && (last.mark & rules.markMask) >>> 0 !== rules.interceptMark) {
      const changer = syn.slice(first).findLast((step) => !isOurs(step) && SETS_MARK.test(step.text))
      return {
        what: `after our rule took it: ${changer === undefined ? 'its mark' : place(changer)} changes its mark to ${hex(last.mark)}`,
        cure: changer === undefined ? 'nft list ruleset' : dropCure(changer, syn, rules),
      }
    }
    if (takenWay.kind === 'by') {
      const missing = `with mark ${hex(rules.interceptMark)} it is routed by ${takenWay.dev} instead of to this host`
      return {
        what: `in policy routing: ${missing} (ip rule, or route table ${rules.routeTable})`,
        cure: journey.mendRouting,
      }
    }
    if (journey.reversePath > 0) return unrouted(journey, 'rp_filter')
    if (takenWay.kind === 'none') return unrouted(journey, takenWay.why)
  } else if (!isListening) return noListener(journey)
  if (outcome.failure !== 'silence' && !outcome.connected) {
    return {
      what: `at the socket: this host answers ${outcome.failure}, though the rule took it`,
      cure: 'ss -ltnp (does the program that listens use transparent sockets?)',
    }
  }
  const answerDropped = journey.synAck.find((step) => isDrop(step) && !isOurs(step))
  if (answerDropped !== undefined) {
    return {
      what: `on the way back: the SYN-ACK in ${place(answerDropped)}`,
      cure: dropCure(answerDropped, journey.synAck, rules),
    }
  }
  if (journey.reversePath > 0) return unrouted(journey, 'rp_filter')
  if (journey.wayBack.kind === 'none') {
    return {
      what: `on the way back: no route to the client: ${journey.wayBack.why}`,
      cure: 'ip rule show; ip route show table all',
    }
  }
  if (journey.synAck.length === 0) {
    return {
      what: 'at the socket: no SYN-ACK comes (is its backlog full?)',
      cure: 'ss -ltn (Recv-Q at Send-Q: raise limits.backlog)',
    }
  }
  return {
    what: `on the way back: the SYN-ACK left, and did not come by ${journey.entryLink}`,
    cure: `tcpdump -ni ${journey.entryLink} tcp`,
  }
}

/** A rule of ours saw the SYN, and none took it. */
function untaken(journey: Journey, first: number): Death {
  const { syn, rules, isOurs, isListening } = journey
  const before = lastMark(syn.slice(0, first))
  const bits = ((before?.mark ?? 0) & rules.markMask) >>> 0
  if (bits !== 0) {
    const changer = syn.slice(0, first).findLast((step) => !isOurs(step) && SETS_MARK.test(step.text))
    return {
      what: `before our rules: ${changer === undefined ? 'somebody' : place(changer)} sets mark bits of ours (${hex(bits)}), so it passes untaken`,
      cure: changer === undefined ? 'nft list ruleset' : dropCure(changer, syn, rules),
    }
  }
  if (!isListening) return noListener(journey)
  return { what: 'at our rules: none of them takes it', cure: journey.mendRules }
}

function noListener({ outcome, runCommand }: Journey): Death {
  if (outcome.connected) {
    return { verb: 'is not taken:', what: 'nothing listens there, and it goes on to the server', cure: runCommand }
  }
  const then = outcome.failure === 'silence' ? 'and is dropped' : `(${outcome.failure})`
  return { what: `at the listener: nothing listens there, so the SYN finds no socket ${then}`, cure: runCommand }
}

function unrouted({ entryLink, reversePath }: Journey, why: string): Death {
  const strict = why === 'rp_filter'
  if (!strict) return { what: `in routing: ${why}`, cure: 'ip rule show; ip route show table all' }
  return {
    what: `in routing: rp_filter on ${entryLink} finds no way back to the client there (${reversePath} packets dropped meanwhile)`,
    cure: `sysctl -w net.ipv4.conf.${entryLink}.rp_filter=2`,
  }
}

function behindListener(journey: Journey): Death {
  const { outcome, dialWay, answerWay, serverSynAck, isOurs, rules, serverLink, reversePath } = journey
  if (dialWay.kind === 'none') {
    return {
      what: `behind the listener: no route to the server: ${dialWay.why}`,
      cure: 'ip route add default via GATEWAY',
    }
  }
  if (!outcome.serverWaits && outcome.serverSaw === undefined) {
    return {
      what: `behind the listener: its dial does not reach the server (${outcome.failure})`,
      cure: `tcpdump -ni ${serverLink} tcp (and read what limpid run prints about the flow)`,
    }
  }
  const dropped = serverSynAck.find((step) => isDrop(step) && !isOurs(step))
  if (dropped !== undefined) {
    return {
      what: `behind the listener: the server's SYN-ACK in ${place(dropped)}`,
      cure: dropCure(dropped, serverSynAck, rules),
    }
  }
  if (reversePath > 0) {
    return {
      what: `behind the listener: rp_filter on ${serverLink} drops the server's SYN-ACK`,
      cure: `sysctl -w net.ipv4.conf.${serverLink}.rp_filter=2`,
    }
  }
  if (answerWay.kind === 'by') {
    return {
      what: `behind the listener: the server's SYN-ACK to the client's address is routed by ${answerWay.dev} instead of to this host`,
      cure: journey.mendRouting,
    }
  }
  return {
    what: `behind the listener: the server's answer does not come through (${outcome.failure})`,
    cure: `tcpdump -ni ${serverLink} tcp`,
  }
}

function isDrop({ verdict }: TraceStep): boolean {
  return verdict === 'drop' || verdict === 'reject'
}

function place({ family, table, chain, kind, text, handle }: TraceStep): string {
  const rule =
    kind === 'policy' ? 'its policy drop' : `the rule "${text}"${handle === undefined ? '' : ` (handle ${handle})`}`
  return `nft table ${family} ${table}, chain ${chain}: ${rule}`
}

function dropCure(step: TraceStep, steps: readonly TraceStep[], rules: RulesConfig): string {
  if (step.kind === 'policy' || step.handle === undefined) {
    const base = steps.findLast(({ table, kind }) => table === step.table && kind === 'policy') ?? step
    return acceptCommand({ family: base.family, table: base.table, name: base.chain }, rules)
  }
  return deleteCommand({ family: step.family, table: step.table, chain: step.chain, handle: step.handle })
}

function lastMark(steps: readonly TraceStep[]): { mark: number } | undefined {
  const step = steps.findLast(({ mark, kind }) => mark !== undefined && kind !== 'rule')
  return step === undefined ? undefined : { mark: step.mark! }
}

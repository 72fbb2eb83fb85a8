import type { Decision } from '../config/policy-types.ts'
import { looksLikeQuicInitial, type QuicHello } from '../inspect/quic-initial.ts'
import type { Finding } from '../policy/facts.ts'
import { checksHost } from './ask-session.ts'
import { type FactsSource, factsOf } from './decide-session.ts'
import { type HostOutcome, isRefusedHost, namesHost } from './host-check.ts'
import { isAsOpened } from './same-way.ts'
import type { UdpContext } from './udp-context.ts'

/** A session, and what its client's connection of this moment is. */
export interface JudgedSession extends FactsSource {
  readonly decision: Decision | undefined
  finding: Finding | undefined
  hostChecked: HostOutcome | undefined
}

/**
 * Why a datagram goes no further that may begin another QUIC connection within its session, with another name; undefined: it may, and `whole`: with
 * what was kept of its hello. `held`: it was kept until the rest of that is there. `unknown`: nobody knows yet, and the client asks again; all
 * others are reasons by which the session ends. What a datagram says becomes the session's.
 */
export function judgeConnection(
  session: JudgedSession,
  quic: QuicHello,
  datagram: Uint8Array,
  context: UdpContext,
): 'malformed' | 'policy' | 'host-mismatch' | 'unknown' | 'held' | 'whole' | undefined {
  if (!looksLikeQuicInitial(datagram)) return undefined
  const answer = quic.add(datagram)
  if (answer.kind === 'malformed') return 'malformed'
  if (answer.kind === 'more' && quic.connection !== undefined) {
    context.halves.hold(session, quic.connection, datagram)
    return 'held'
  }
  if (answer.kind !== 'match') return undefined
  if (answer.finding.serverName === session.finding?.host) return 'whole'
  const finding: Finding = { protocol: 'quic', host: answer.finding.serverName }
  const { why, hostChecked } = mayGoOn(session, finding, context)
  if (why === 'unknown') return why
  session.finding = finding
  session.hostChecked = hostChecked
  return why ?? 'whole'
}

interface Judged {
  readonly why: 'policy' | 'host-mismatch' | 'unknown' | undefined
  readonly hostChecked?: HostOutcome | undefined
}

/** Whether a session may go on with what its client says within it. */
function mayGoOn(session: JudgedSession, finding: Finding, context: UdpContext): Judged {
  const policy = context.proxy.policy()
  if (policy === undefined) return { why: undefined }
  if (context.proxy.hooks?.decides === true) return { why: 'policy' } // the hook is asked about sessions: it is to be another
  const facts = { ...factsOf(session, finding, context), finding }
  const decided = policy.decide(facts)
  if (decided.kind !== 'decided' || !MAY_GO_ON[decided.decision.kind]) return { why: 'policy' }
  if (!isAsOpened(decided.decision, session.decision)) return { why: 'policy' } // the client begins a session anew
  if (!namesHost(finding) || !checksHost(policy, decided.decision, session)) return { why: undefined }
  let hostChecked: HostOutcome | undefined
  context.proxy.hostCheck.ask(facts, (outcome) => {
    hostChecked = outcome
  })
  if (hostChecked === undefined) return { why: 'unknown' }
  return { why: isRefusedHost(policy, hostChecked) ? 'host-mismatch' : undefined, hostChecked }
}

/** What a rule does with streams alone is not done to datagrams. */
const MAY_GO_ON: Readonly<Record<Decision['kind'], boolean>> = {
  forward: true,
  bypass: true,
  via: false,
  handle: false,
  reject: false,
}

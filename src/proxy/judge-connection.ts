import type { Decision } from '../config/policy-types.ts'
import { looksLikeQuicInitial, type QuicHello } from '../inspect/quic-initial.ts'
import type { Finding } from '../policy/facts.ts'
import { checksHost } from './ask-session.ts'
import { type FactsSource, factsOf } from './decide-session.ts'
import { type HostOutcome, isRefusedHost, namesHost } from './host-check.ts'
import type { UdpContext } from './udp-context.ts'

/** A session, and what its client's connection of this moment is. */
export interface JudgedSession extends FactsSource {
  finding: Finding | undefined
  hostChecked: HostOutcome | undefined
}

/**
 * Why datagrams go no further that may begin another QUIC connection within their session, with another name; undefined: they may. `unknown`:
 * nobody knows yet, and the client asks again; all others are reasons by which the session ends. What a datagram says becomes the session's.
 */
export function judgeConnection(
  session: JudgedSession,
  quic: QuicHello,
  datagrams: readonly Uint8Array[],
  context: UdpContext,
): 'malformed' | 'policy' | 'host-mismatch' | 'unknown' | undefined {
  for (const datagram of datagrams) {
    if (!looksLikeQuicInitial(datagram)) continue
    const answer = quic.add(datagram)
    if (answer.kind === 'malformed') return 'malformed'
    if (answer.kind !== 'match' || answer.finding.serverName === session.finding?.host) continue
    const finding: Finding = { protocol: 'quic', host: answer.finding.serverName }
    const { why, hostChecked } = mayGoOn(session, finding, context)
    if (why === 'unknown') return why
    session.finding = finding
    session.hostChecked = hostChecked
    if (why !== undefined) return why
  }
  return undefined
}

interface Judged {
  readonly why: 'policy' | 'host-mismatch' | 'unknown' | undefined
  readonly hostChecked?: HostOutcome | undefined
}

/** Whether a session may go on with what its client says within it. */
function mayGoOn(session: FactsSource, finding: Finding, context: UdpContext): Judged {
  const policy = context.proxy.policy()
  if (policy === undefined) return { why: undefined }
  if (context.proxy.hooks?.decides === true) return { why: 'policy' } // the hook is asked about sessions: it is to be another
  const facts = { ...factsOf(session, finding, context), finding }
  const decided = policy.decide(facts)
  if (decided.kind !== 'decided' || !MAY_GO_ON[decided.decision.kind]) return { why: 'policy' }
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

import type { AskedFlow } from '../config/policy-types.ts'
import type { Config, ListenerConfig } from '../config/types.ts'
import type { Finding, FlowFacts } from './facts.ts'
import type { Policy, RuleAccount } from './policy.ts'

export interface Explanation {
  readonly facts: FlowFacts
  /** One for each rule up to the one that decides. */
  readonly accounts: readonly RuleAccount[]
  /** Those that may decide: one, unless a rule asks about first bytes that were not given. */
  readonly outcomes: readonly RuleAccount[]
  /** What is to be known beside it. */
  readonly notes: readonly string[]
}

type Asked = Pick<Config, 'listeners' | 'policy'>

/**
 * What a rule asks about and the question does not say: `expected an interface (--interface NAME): rule guests asks about it`; undefined:
 * nothing. `said`: how the one who asks says such a thing.
 */
export function missingOf(asked: AskedFlow, config: Asked, said: (key: string) => string): string | undefined {
  const { rules } = config.policy
  const byPort = rules.find(({ match }) => match.ports.length > 0)
  if (asked.originalDst.port === 0 && byPort !== undefined) {
    return `expected a port with the destination: rule ${byPort.name} asks about it`
  }
  const takes = listenersFor(asked, config)
  if (asked.listener !== undefined && config.listeners.length > 0 && takes.length === 0) {
    const names = config.listeners.filter(({ protocols }) => protocols.includes(asked.protocol)).map(({ name }) => name)
    return `expected a listener for ${asked.protocol}${names.length > 0 ? `: ${names.join(', ')}` : ''}, found "${asked.listener}"`
  }
  const byInterface = rules.find(({ match }) => match.interfaces.length > 0)
  if (asked.interface === undefined && byInterface !== undefined) {
    return `expected an interface (${said('interface')}): rule ${byInterface.name} asks about it`
  }
  const byListener = rules.find(({ match }) => match.listeners.length > 0)
  if (asked.listener !== undefined || byListener === undefined || takes.length === 1) return undefined
  return `expected a listener (${said('listener')}): rule ${byListener.name} asks about it`
}

/** Those that may take it; which packets do is not asked here, but of `limpid trace`. */
function listenersFor({ protocol, listener }: AskedFlow, { listeners }: Asked): ListenerConfig[] {
  return listeners.filter(
    ({ name, protocols }) => protocols.includes(protocol) && (listener === undefined || name === listener),
  )
}

/** What `policy`, made of that config, says of a flow, and why. Of one from which nothing is missing: see missingOf(). */
export function explainFlow(asked: AskedFlow, policy: Policy, config: Asked): Explanation {
  const { protocol, client, originalDst, learntNames, at } = asked
  const takes = listenersFor(asked, config)
  const isDns = takes.length > 0 && takes.every(({ dns }) => dns !== undefined)
  const isNameless = isDns && asked.host === undefined
  const { finding, notes } = findingOf(
    isDns && asked.host !== undefined ? { ...asked, detected: 'dns' } : asked,
    policy,
  )
  const facts: FlowFacts = {
    listener: asked.listener ?? takes[0]?.name ?? '-',
    protocol,
    client: { address: client, port: 0 },
    originalDst,
    link: { interface: asked.interface, mac: asked.mac },
    finding,
    ...(isNameless ? { isNamelessQuestion: isNameless } : {}),
    learntNames,
    at,
  }
  const accounts = policy.explain(facts)
  const told = isNameless ? [`listener ${facts.listener} decides each question by itself: say the name by --host`] : []
  const outcomes = accounts.filter(({ answer }) => answer !== 'no')
  return { facts, accounts, outcomes, notes: [...notes, ...told, ...hostNotes(facts, outcomes, policy)] }
}

/** What is compared when the flow comes: names are not asked for here. */
function hostNotes({ finding, originalDst }: FlowFacts, outcomes: readonly RuleAccount[], policy: Policy): string[] {
  const isCompared = outcomes.some(({ decision }) => decision.kind === 'forward' && decision.to === undefined)
  if (policy.hostCheck === 'off' || finding?.host === undefined || finding.protocol === 'dns' || !isCompared) return []
  const otherwise = policy.hostCheck === 'enforce' ? 'else it ends as host-mismatch' : 'else that is noted'
  return [`hostCheck ${policy.hostCheck}: ${finding.host} must have the address ${originalDst.address}, ${otherwise}`]
}

/** What would be found in its first bytes; undefined: nobody has said. */
function findingOf(asked: AskedFlow, policy: Policy): { finding: Finding | undefined; notes: string[] } {
  const { protocol, originalDst, host, detected } = asked
  const isGiven = host !== undefined || detected !== undefined
  const finding = isGiven ? { protocol: detected ?? (protocol === 'udp' ? 'quic' : 'tls'), host } : undefined
  if (protocol === 'udp' || !policy.speaksFirst(originalDst.port)) return { finding, notes: [] }
  const why = `to port ${originalDst.port} the server speaks first: it is dialled before there are first bytes, as for unknown ones`
  return { finding, notes: [`${why}; a rule that they match then lets the flow go on there, or ends it`] }
}

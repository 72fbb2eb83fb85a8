import { isDeepStrictEqual } from 'node:util'
import type { Decision, Onward } from '../config/policy-types.ts'
import { type Endpoint, sameEndpoint } from '../net/address.ts'
import { withPort } from './destination.ts'
import type { Way } from './opening.ts'

/** What was dialled for a flow, and by what decision. */
export interface Dialled {
  readonly way: Way
  readonly originalDst: Endpoint
  readonly upstream: Endpoint
}

/** Whether a decision that comes after the dial would have dialled the same. */
export function isAsDialled(decision: Decision, { way, originalDst, upstream }: Dialled): boolean {
  if (way.app !== undefined) return decision.kind === 'handle' && isAsHandled(decision, way)
  if (way.via !== undefined) return decision.kind === 'via' && isDeepStrictEqual(decision, way) // a hook's is another object
  if (decision.kind !== 'forward') return decision.kind === 'bypass'
  const { to, source, mark, dscp } = decision
  if (to !== undefined && ('pool' in to || !sameEndpoint(withPort(to, originalDst), upstream))) return false
  return (source === undefined || source === way.source) && mark === way.mark && dscp === way.dscp
}

/** Whether a decision about a connection within a session leads the way that the session goes already. A limit is each rule's own. */
export function isAsOpened(decision: Decision, opened: Decision | undefined): boolean {
  if (decision === opened) return true
  const way = sessionOptions(decision)
  return way.limit === undefined && isDeepStrictEqual(way, sessionOptions(opened))
}

function sessionOptions(decision: Decision | undefined): Partial<Onward> {
  const { to, source, mark, dscp, timeouts, limit }: Partial<Onward> =
    decision !== undefined && 'to' in decision ? decision : {}
  return { to, source, mark, dscp, timeouts, limit }
}

/** Whether a decision about what a client says later leads the way that a flow goes which an app serves. */
export function isAsHandled(decision: Decision, way: Way): boolean {
  if (decision.kind !== 'handle' && decision.kind !== 'forward') return false
  const isSameApp = decision.kind === 'forward' || decision.app === way.app
  return isSameApp && isDeepStrictEqual(dialOptions(decision), dialOptions(way))
}

function dialOptions({ to, source, mark, dscp }: Onward): unknown {
  return { to, source, mark, dscp }
}

import type { Finding } from '../policy/facts.ts'
import type { Judgement } from './app.ts'
import type { Served } from './app-stream.ts'
import type { ProxyContext } from './context.ts'
import { type HostOutcome, isRefusedHost, leadsToOriginalDst, namesHost } from './host-check.ts'
import type { Way } from './opening.ts'
import { isAsHandled } from './same-way.ts'

/**
 * What the policy of this moment says of something that a client asks for within a flow that an app serves. `way`: that of the flow. `isOpen`:
 * the client's socket is still here.
 */
export async function judgeRequest(
  flow: Served,
  finding: Finding,
  { way, isOpen }: { readonly way: Way; readonly isOpen: boolean },
  context: ProxyContext,
): Promise<Judgement> {
  const policy = context.policy()
  if (policy === undefined) return { kind: 'go-on' }
  const { listener, client, originalDst, rule } = flow
  const learntNames = context.namesOf(client.address, originalDst.address)
  const link = isOpen ? flow.link() : undefined
  const known = { listener: listener.name, protocol: 'tcp', client, originalDst, link, finding, learntNames } as const
  const decided = policy.decide({ ...known, at: new Date() })
  if (decided.kind === 'inspect') return { kind: 'reject', rule: undefined } // cannot be: there is a finding
  const { decision } = decided
  if (decision.kind === 'reject') return { kind: 'reject', rule: decided.rule }
  if (policy.hostCheck !== 'off' && namesHost(finding) && leadsToOriginalDst(decision, listener)) {
    const outcome = await new Promise<HostOutcome>((resolve) => context.hostCheck.ask(known, resolve))
    if (isRefusedHost(policy, outcome)) return { kind: 'elsewhere' }
  }
  const isOfHook = rule === 'onFlow' // who chose the way in the place of the rules
  return { kind: isOfHook || isAsHandled(decision, way) ? 'go-on' : 'elsewhere' }
}

import type { ListenerConfig } from '../config/types.ts'
import type { Asked } from '../doctor/ways.ts'
import { endpointText, parseAddress } from '../net/address.ts'
import { isUntouched } from '../ruleset/interception.ts'
import type { Plan } from '../ruleset/plan.ts'
import { localMark } from '../ruleset/policy-routing.ts'
import type { Decision } from './decide.ts'
import type { Flow } from './flow.ts'
import type { AskRoute, Route } from './routes.ts'

/** What the kernel says about the ways of a flow. */
export interface Answers {
  /** To the server, from here; undefined for one whose name is not resolved. */
  readonly dial: Route | undefined
  readonly client: Route
  /** With the mark of our rules: to this host, when everything is installed. Undefined where that cannot be asked. */
  readonly marked: Route | undefined
  /** Undefined where it was not asked. */
  readonly isListening: boolean | undefined
  readonly forwards: boolean
}

/** What must be known, beside the plan, of a flow that the rules treat like this. */
export async function readAnswers(
  plan: Plan,
  flow: Flow,
  decision: Decision,
  read: { readonly ask: AskRoute; readonly isListening: (listener: ListenerConfig) => boolean; forwards: boolean },
): Promise<Answers> {
  const listener = listenerOf(decision)
  const target = listener === undefined ? undefined : dialled(listener, flow)
  const server = decision.kind === 'passed-on' ? decision.forward.to.address : target?.address
  const marking = decision.kind === 'taken' && isUntouched(decision.interception) ? markedWay(plan, flow) : undefined
  const [dial, client, marked] = await Promise.all([
    server === undefined ? undefined : read.ask({ to: server, mark: plan.rules.bypassMark }),
    read.ask({ to: flow.client }),
    marking === undefined ? undefined : read.ask(marking),
  ])
  const isListening = listener === undefined ? undefined : read.isListening(listener)
  return { dial, client, marked, isListening, forwards: read.forwards }
}

function markedWay({ rules }: Plan, { path, client, destination, interface: iif }: Flow): Asked | undefined {
  const to = destination.address
  if (path === 'local') return { to, mark: localMark(rules) }
  // what this host itself sends is routed otherwise: no question without an interface
  if (iif === undefined) return undefined
  return { to, from: client, iif, mark: rules.interceptMark }
}

function listenerOf(decision: Decision): ListenerConfig | undefined {
  if (decision.kind === 'taken') return decision.interception.listener
  return decision.kind === 'dialled' ? decision.listener : undefined
}

/** Whom the listener dials; the address is undefined for a name. */
export function dialled({ to }: ListenerConfig, flow: Flow): { text: string; address: string | undefined } {
  const port = to === undefined || to.port === 0 ? flow.destination.port : to.port
  const host = to?.host ?? flow.destination.address
  const address = parseAddress(host)
  return { text: address === undefined ? `${host}:${port || '*'}` : endpointText({ address, port }), address }
}

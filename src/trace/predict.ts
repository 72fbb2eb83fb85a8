import type { ListenerConfig, Source } from '../config/types.ts'
import { endpointText, familyOf, formatEndpoint } from '../net/address.ts'
import { formatPrefix } from '../net/prefix.ts'
import { type Interception, isUntouched } from '../ruleset/interception.ts'
import type { Plan } from '../ruleset/plan.ts'
import { hex, localMark } from '../ruleset/policy-routing.ts'
import { type Answers, dialled } from './answers.ts'
import type { Decision } from './decide.ts'
import type { Flow } from './flow.ts'
import {
  bridgePlace,
  forwardPlace,
  forwardVerdict,
  guardPlace,
  inputPlace,
  type Place,
  plannedRules,
  ruleName,
  takingPlace,
  takingVerdict,
} from './places.ts'
import type { Route } from './routes.ts'

export type HopWord =
  | 'client'
  | 'bridge'
  | 'rule'
  | 'mark'
  | 'route'
  | 'listener'
  | 'dial'
  | 'answer'
  | 'return'
  | 'knows'
  | 'onDown'
  | 'provided'

/** One thing that happens to a flow, in the order in which it does. */
export interface Hop {
  readonly word: HopWord
  readonly what: string
}

/** Where a packet ends on this host: with a socket here, on its way to another host, across the bridge, or nowhere. */
export type Fate = 'delivered' | 'forwarded' | 'bridged' | 'sent' | 'dropped'

export interface Prediction {
  readonly outcome: Decision['kind']
  /** By a listener, or passed on or bypassed as configured. */
  readonly served: boolean
  /** `listener web`, `forward dns`: the comment of the rule that takes it; null when none does. */
  readonly takenBy: string | null
  /** That rule, as its program takes it; several when they say "or". */
  readonly rules: readonly string[]
  /** Our bits of the packet's mark behind the rules. */
  readonly mark: number
  readonly fate: Fate
  readonly hops: readonly Hop[]
}

const FORWARDING = { 4: 'net.ipv4.ip_forward', 6: 'net.ipv6.conf.all.forwarding' } as const

/** Tells a flow's way hop by hop. Pure. */
export function predict(plan: Plan, flow: Flow, decision: Decision, answers: Answers): Prediction {
  const none = { takenBy: null, rules: [], mark: 0, served: false, outcome: decision.kind }
  const client: Hop = { word: 'client', what: clientText(flow) }
  switch (decision.kind) {
    case 'taken':
      return predictTaken(plan, flow, decision.interception, [client, ...provided(decision)], answers)
    case 'passed-on': {
      const { forward } = decision
      const name = ruleName('forward', forward.name)
      const place = forwardPlace(plan, flow.family)
      const server = endpointText({ ...forward.to, port: forward.to.port || flow.destination.port })
      const seen =
        forward.source === 'client' ? `${flow.client} (client)` : `${answers.dial?.source ?? '?'} (masquerade)`
      const knows = forward.source === 'client' ? 'Y knows X; Z knows Y, not X' : 'Y and Z know X, not each other'
      return {
        ...none,
        served: isServed(answers),
        takenBy: name,
        rules: plannedRules(plan, place, name, flow.family),
        fate: answers.dial?.kind === 'local' ? 'delivered' : 'forwarded',
        hops: [
          client,
          ...provided(decision),
          { word: 'rule', what: `${placeText(place)}: ${name} (${forwardVerdict(forward)})` },
          { word: 'dial', what: `the kernel passes it on to ${server} from ${seen}, ${wayText(answers.dial)}` },
          { word: 'return', what: `answers to ${flow.client} go ${wayText(answers.client)}` },
          { word: 'knows', what: knows },
        ],
      }
    }
    case 'dialled': {
      const { listener } = decision
      const hop = {
        word: 'listener',
        what: `${endpointText(flow.destination)} (${listener.name}): the client dials it itself${now(answers)}`,
      } as const
      const served = isServed(answers)
      return { ...none, served, fate: 'delivered', hops: [client, hop, ...behind(plan, flow, listener, answers)] }
    }
    case 'refused': {
      const { name } = decision.listener
      const refusal = flow.protocol === 'tcp' ? 'reset' : 'port unreachable'
      if (flow.path === 'local') {
        const what = `${endpointText(flow.destination)} (${name}), which ${flow.protocol === 'tcp' ? 'resets' : 'drops'} it: it would dial itself`
        return { ...none, fate: 'delivered', hops: [client, { word: 'listener', what }] }
      }
      const what = `${placeText(inputPlace(plan, flow))}: listener ${name} itself is dialled, not intercepted: ${refusal}`
      return { ...none, fate: 'dropped', hops: [client, { word: 'rule', what }] }
    }
    case 'bypassed': {
      const rule: Hop = { word: 'rule', what: `bypass ${formatPrefix(decision.prefix)}: no listener is asked` }
      const { fate, what } = onwardWay(flow, answers)
      const served = fate !== 'dropped' && isServed(answers)
      return { ...none, served, fate, hops: [client, rule, { word: 'route', what }] }
    }
    case 'untaken': {
      const [nearest] = decision.nearest
      const near = nearest === undefined ? '' : `; nearest is ${nearest.name}: ${nearest.failed.join('; ')}`
      const { fate, what } = onwardWay(flow, answers)
      return {
        ...none,
        fate,
        hops: [client, { word: 'rule', what: `${decision.why}${near}` }, { word: 'route', what }],
      }
    }
  }
}

/** Neither server nor client is out of reach. */
function isServed({ dial, client }: Answers): boolean {
  return dial?.kind !== 'none' && client.kind !== 'none'
}

function predictTaken(
  plan: Plan,
  flow: Flow,
  interception: Interception,
  first: readonly Hop[],
  answers: Answers,
): Prediction {
  const { listener, family, path } = interception
  const untouched = isUntouched(interception)
  const name = ruleName('listener', listener.name)
  const place = takingPlace(plan, interception)
  const hops: Hop[] = [...first]
  if (flow.path === 'bridged') {
    hops.push({
      word: 'bridge',
      what: `${placeText(bridgePlace(plan, flow.protocol))}: brought up to ${flow.interface}`,
    })
  }
  hops.push({ word: 'rule', what: `${placeText(place)}: ${name} (${takingVerdict(interception)})` })
  const mark = !untouched ? 0 : path === 'local' ? localMark(plan.rules) : plan.rules.interceptMark
  if (untouched) {
    hops.push({ word: 'mark', what: `${hex(mark)}/${hex(plan.rules.markMask)}` })
    hops.push({ word: 'route', what: markedRoute(plan, flow, mark, answers) })
  } else {
    hops.push({ word: 'route', what: 'to this host: its destination is rewritten' })
  }
  hops.push({ word: 'listener', what: listenerText(interception, flow, answers) })
  hops.push(...behind(plan, flow, listener, answers))
  hops.push({ word: 'onDown', what: onDownText(plan, flow, interception, answers) })
  return {
    outcome: 'taken',
    served: isServed(answers),
    takenBy: name,
    rules: plannedRules(plan, place, name, family),
    mark,
    fate: 'delivered',
    hops,
  }
}

function clientText({ path, client, interface: dev, bridgePort }: Flow): string {
  if (path === 'local') {
    return `${client} is this host itself${dev === undefined ? '' : `, and would leave by ${dev}`} (local)`
  }
  if (path === 'bridged') {
    return `${client} comes in on ${dev}${bridgePort === undefined ? '' : `, port ${bridgePort}`} (bridged)`
  }
  return dev === undefined
    ? `${client}: no route tells where it comes in, name it with --interface (forwarded)`
    : `${client} comes in on ${dev} (forwarded)`
}

function provided({ assumed, otherwise }: Extract<Decision, { readonly otherwise: unknown }>): Hop[] {
  const others = otherwise.map((other) =>
    other.assumed.length === 0 ? `else ${other.name}` : `else ${other.name}, where ${other.assumed.join(' and ')}`,
  )
  return [...assumed, ...others].map((what) => ({ word: 'provided', what }))
}

function markedRoute({ ipRules, rules }: Plan, { family, path }: Flow, mark: number, { marked }: Answers): string {
  const rule = ipRules.find(
    (one) =>
      one.family === family && one.mark?.value === mark && typeof one.action === 'object' && 'lookup' in one.action,
  )
  const way = `ip rule ${rule?.priority ?? rules.rulePriority} → route table ${rules.routeTable} → lo`
  const again = path === 'local' ? ', and in again there' : ''
  if (marked === undefined || marked.kind === 'local') return `${way}${again}`
  return `${way}${again} (not in the kernel now: ${wayText(marked)})`
}

function listenerText({ listener, to, toPorts, family }: Interception, flow: Flow, answers: Answers): string {
  const original = endpointText(flow.destination)
  if (isUntouchedListener(listener)) {
    const at = listener.intercept === 'mark' ? listener.listen.find(({ address }) => familyOf(address) === family)! : to
    return `${formatEndpoint(at)} (${listener.name}), original destination ${original}${now(answers)}`
  }
  const ports = toPorts.from === toPorts.to ? `${toPorts.from}` : `${toPorts.from}-${toPorts.to}`
  const at = listener.intercept === 'dnat' ? formatEndpoint(to) : `port ${ports} of this host`
  return `${at} (${listener.name}), original destination ${original} by ${flow.protocol === 'tcp' ? 'SO_ORIGINAL_DST' : 'conntrack'}${now(answers)}`
}

function isUntouchedListener({ intercept }: ListenerConfig): boolean {
  return intercept === 'tproxy' || intercept === 'mark'
}

function now({ isListening }: Answers): string {
  return isListening === false ? '; nothing listens there now' : ''
}

/** What follows the listener: the dial, its answers, the way back, and who knows whom. */
function behind(plan: Plan, flow: Flow, listener: ListenerConfig, answers: Answers): Hop[] {
  const target = dialled(listener, flow)
  const { source } = listener
  const by = answers.dial === undefined ? 'its name is resolved at start' : wayText(answers.dial)
  const hops: Hop[] = [{ word: 'dial', what: `${target.text} from ${sourceText(source, flow, answers)}, ${by}` }]
  const address = typeof source === 'object' ? source.address : flow.client
  if (plan.routes.some(({ family }) => family === flow.family) && source !== 'proxy' && flow.path !== 'local') {
    const mark = `${hex(plan.rules.interceptMark)}/${hex(plan.rules.markMask)}`
    const what = `what Z sends to ${address} finds the transparent socket: mark ${mark}, route table ${plan.rules.routeTable} → lo`
    hops.push({ word: 'answer', what })
  }
  hops.push({ word: 'return', what: `answers to ${flow.client} go ${wayText(answers.client)}` })
  const dials = listener.intercept === 'none' || flow.destinationType === 'local' ? 'proxy' : 'server'
  const row = plan.knows.find(
    (each) => each.listener === listener.name && each.family === flow.family && each.clientDials === dials,
  )
  return row === undefined ? hops : [...hops, { word: 'knows', what: row.verdict }]
}

function sourceText(source: Source, { client }: Flow, { dial }: Answers): string {
  if (typeof source === 'object') return `${source.address} (configured)`
  if (source === 'proxy')
    return dial?.source === undefined ? "this host's own address (proxy)" : `${dial.source} (proxy)`
  return source === 'client' ? `${client} (client)` : `${client} and its port (client-port)`
}

function onDownText(plan: Plan, flow: Flow, interception: Interception, answers: Answers): string {
  if (interception.listener.onDown === 'closed') {
    return `closed: ${placeText(guardPlace(plan, interception))} drops it while Limpid is down`
  }
  return `open: while Limpid is down it is ${onwardWay(flow, answers).what}`
}

/** Where it goes when nobody takes it. */
function onwardWay(
  { path, onward, interface: dev, family, destinationType }: Flow,
  { forwards }: Answers,
): { fate: Fate; what: string } {
  if (path === 'bridged') return { fate: 'bridged', what: `carried across ${dev} untouched` }
  if (destinationType !== 'unicast' && destinationType !== 'local')
    return { fate: 'dropped', what: `not passed on: ${destinationType}` }
  if (onward.kind === 'local') return { fate: 'delivered', what: 'delivered to this host itself' }
  // the kernel's own word for it is "no route" (net/ipv4/route.c)
  if (path === 'forwarded' && !forwards) return { fate: 'dropped', what: `dropped: ${FORWARDING[family]} is 0` }
  if (onward.kind === 'none') return { fate: 'dropped', what: `dropped: no route (${onward.why})` }
  if (path === 'local') return { fate: 'sent', what: `sent ${wayText(onward)}` }
  return { fate: 'forwarded', what: `forwarded by the kernel, ${wayText(onward)}` }
}

function wayText(route: Route | undefined): string {
  if (route === undefined) return 'nobody knows where'
  if (route.kind === 'local') return 'to this host itself'
  if (route.kind === 'none') return `nowhere: no route (${route.why})`
  return route.via === undefined ? `out ${route.dev}` : `out ${route.dev} via ${route.via}`
}

function placeText({ where, chain }: Place): string {
  return `${where} ${chain}`
}

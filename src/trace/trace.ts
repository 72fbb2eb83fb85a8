import type { Config, ListenerConfig } from '../config/types.ts'
import { readListening } from '../doctor/listening.ts'
import { type BackendName, type Plan, planRuleset } from '../ruleset/plan.ts'
import { type HostFacts, hostFacts, readSysctl } from '../sys/host.ts'
import { readAnswers } from './answers.ts'
import { type CaptureOptions, capture } from './capture.ts'
import { deviations } from './compare.ts'
import { type Decision, decide } from './decide.ts'
import { type Flow, type FlowQuestion, resolveFlow } from './flow.ts'
import { readComments } from './iptables-comments.ts'
import { observe } from './observed.ts'
import { type Prediction, predict } from './predict.ts'
import type { LiveReport, TraceReport } from './report.ts'
import { askRoute } from './routes.ts'

export interface TraceOptions {
  readonly backend: BackendName
  /** Also waits for a packet. Takes CAP_NET_ADMIN. */
  readonly live: CaptureOptions | undefined
}

/**
 * Predicts what becomes of a flow, from the plan of a config and what the kernel says about routes, which takes no privilege;
 * `live` compares it with a packet's trace.
 * @throws LimpidError LIMPID_USAGE, LIMPID_INTERFACE, LIMPID_PROGRAM
 */
export async function traceFlow(config: Config, question: FlowQuestion, options: TraceOptions): Promise<TraceReport> {
  const facts = hostFacts()
  const plan = planRuleset(config, facts, { missingInterface: 'note', backend: options.backend })
  const flow = await resolveFlow(question, facts, askRoute)
  const decision = decide(
    {
      listeners: config.listeners,
      interceptions: plan.interceptions,
      forwards: plan.forwards,
      bypass: plan.bypass,
      markMask: plan.rules.markMask,
      bypassMark: plan.rules.bypassMark,
    },
    flow,
  )
  const answers = await readAnswers(plan, flow, decision, {
    ask: askRoute,
    isListening: (listener) => isListening(listener, flow),
    forwards: isForwarding(flow, facts),
  })
  const predicted = predict(plan, flow, decision, answers)
  const live = options.live === undefined ? null : await watch(plan, flow, predicted, options.live)
  return reportOf(flow, decision, predicted, live)
}

async function watch(plan: Plan, flow: Flow, predicted: Prediction, options: CaptureOptions): Promise<LiveReport> {
  const steps = await capture(flow, plan.rules, options)
  const observed = observe(steps, await readComments(steps))
  if (observed === undefined) {
    const none = { takenBy: null, mark: 0, fate: null, to: null, out: null }
    return { seen: false, steps: [], ...none, deviations: [] }
  }
  return {
    seen: true,
    steps: observed.steps,
    takenBy: observed.takenBy,
    mark: observed.mark,
    fate: observed.fate,
    to: observed.to ?? null,
    out: observed.out ?? null,
    deviations: deviations(plan.rules, flow, predicted, observed),
  }
}

function reportOf(flow: Flow, decision: Decision, predicted: Prediction, live: LiveReport | null): TraceReport {
  const { client, destination, protocol, path } = flow
  return {
    format: 1,
    flow: {
      client,
      destination: { address: destination.address, port: destination.port || null },
      protocol,
      path,
      interface: flow.interface ?? null,
    },
    predicted,
    missed: decision.kind === 'untaken' ? decision.nearest : [],
    live,
    asConfigured: predicted.served && (live === null || (live.seen && live.deviations.length === 0)),
  }
}

function isListening(listener: ListenerConfig, { family, protocol }: Flow): boolean {
  const found = readListening([listener]).filter((one) => one.protocol === protocol)
  return found.some(({ endpoint, socket }) => socket !== undefined && endpoint.address.includes(':') === (family === 6))
}

function isForwarding({ family }: Flow, { sysctls }: HostFacts): boolean {
  const key = family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding'
  return (sysctls.get(key) ?? readSysctl(key)) !== '0'
}

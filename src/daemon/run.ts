import type { ProgramConfig } from '../apps/define-config.ts'
import { formatDuration } from '../config/duration.ts'
import { configNotes } from '../config/notes.ts'
import type { Config } from '../config/types.ts'
import type { LimpidError } from '../errors.ts'
import { formatEndpoint } from '../net/address.ts'
import { counted } from '../net/counted.ts'
import { parsePrefix } from '../net/prefix.ts'
import type { FlowRecord } from '../proxy/record.ts'
import type { ProxyStats } from '../proxy/stats.ts'
import { BACKENDS, chooseBackend } from '../ruleset/backend.ts'
import { type BypassAccounts, type BypassCounts, readBypassAccounts } from '../ruleset/bypass-account.ts'
import { type ForwardAccount, readForwardAccounts } from '../ruleset/forward-account.ts'
import { isEmptyPlan, type Plan, planRuleset } from '../ruleset/plan.ts'
import { type CapabilityName, requireCapabilities } from '../sys/capability.ts'
import { hostFacts } from '../sys/host.ts'
import { bypassLines } from './bypass-lines.ts'
import type { ControlHandlers, ControlSocket } from './control.ts'
import { controlHandlers } from './control-handlers.ts'
import type { ForwardWatch } from './forward-watch.ts'
import type { KeptRules } from './kept-rules.ts'
import type { OriginStats } from './policy-origin.ts'
import type { WorkerStats } from './pool-stats.ts'
import type { SinkStats } from './record-sinks.ts'
import { Reloads, type Reread } from './reloads.ts'
import { openService, type Service, workerCount } from './service.ts'
import { Sharing } from './sharing.ts'
import { StopSignals } from './stop-signals.ts'
import { surviveStrayErrors } from './stray-errors.ts'

export interface DaemonOptions {
  /** How long flows may go on once it is told to stop. */
  readonly drainMs: number
  /** What closed listeners should take stays dropped after a clean stop, too. */
  readonly keepGuard: boolean
  /** End by itself after the first flow. */
  readonly once: boolean
  /** A control socket is opened, for `limpid stats`. */
  readonly control: boolean
  /** For SIGHUP and `limpid reload`. */
  readonly reread: Reread
  /** Once for each flow, when it has ended; undefined when nobody wants to know, which saves work. */
  readonly onFlow: ((record: FlowRecord) => void) | undefined
  /** One line for the operator. */
  note(line: string): void
}

/**
 * Serves a config until SIGTERM or SIGINT, in this process or in workers: checks, listens, installs the rules, drains,
 * removes them. Whatever fails before "ready" leaves nothing changed. A second signal ends the drain at once, SIGQUIT goes
 * without one; SIGUSR2 notes the counters; SIGHUP without a terminal reads the policy again.
 * @throws LimpidError when it cannot start, or cannot keep the rules in place.
 */
export async function runDaemon(written: ProgramConfig, options: DaemonOptions): Promise<ProxyStats> {
  const hasTerminal = process.stdout.isTTY || process.stderr.isTTY
  using signals = new StopSignals({ hasTerminal })
  using _ = written.hooks === undefined && written.apps === undefined ? undefined : surviveStrayErrors(options.note)
  const facts = hostFacts()
  const draft = planRuleset(written, facts) // for whatever backend, and also without rules: it knows whether the interfaces are there
  const needsRules = written.rules.install && !isEmptyPlan(draft)
  requireCapabilities(neededCapabilities(written, needsRules), needsRules ? 'take traffic' : 'use foreign addresses')
  const backend = await chooseBackend(written.rules)
  const plan = draft.backend === backend ? draft : planRuleset(written, facts, { backend })
  // what is missing has been told by now: loading the proxy takes longer than all before
  await using sharing = await Sharing.open(written, options.note)
  const config = sharing.config
  const records = sharing.records
  const service = await openService(config, { records: options.onFlow !== undefined || records !== undefined })
  const { KeptRules } = await import('./kept-rules.ts')
  const { ForwardWatch } = await import('./forward-watch.ts')
  for (const line of configNotes(config)) options.note(line)
  let rules: KeptRules | undefined
  let forwards: ForwardWatch | undefined
  let control: ControlSocket | undefined
  let isClean = false
  if (options.onFlow !== undefined) service.on('flow', options.onFlow)
  if (records !== undefined) service.on('flow', (record) => records.write(record))
  service.on('note', (line) => options.note(line))
  const refused = new Set<string>()
  service.on('bypass', (destination, forMs) => {
    // the flow itself is forwarded in any case; why the kernel cannot take the next ones is said once
    rules?.kernelBypass?.bypass(parsePrefix(destination)!, { forMs }).catch(({ code, message }: LimpidError) => {
      if (!refused.has(code)) options.note(message)
      refused.add(code)
    })
  })
  if (options.once) {
    service.on('flow', () => {
      service.stopAccepting()
      signals.request()
    })
  }
  const reloads = new Reloads(written, {
    reread: options.reread,
    origin: sharing.origin,
    use: (reread) => service.usePolicy(reread.policy, reread.shadow),
    note: options.note,
  })
  const onReopen = (): void => records?.reopen()
  const reload = (): Promise<unknown> => {
    onReopen() // who moves the file away sends SIGHUP
    return reloads.reload()
  }
  const onHangup = (): void => void reload().catch(() => {}) // it has been noted
  const readBypassed = async () => (needsRules ? await accountsOf(plan) : undefined)
  const statsWith = async (bypassed: BypassAccounts | undefined): Promise<ServiceStats> => ({
    ...(await service.stats()),
    restorations: rules?.restorations ?? 0,
    ...reloads.counts,
    ...sharing.stats,
    bypassed: bypassed?.total,
  })
  const stats = async () => await statsWith(await readBypassed())
  const onDump = async (): Promise<void> => {
    const bypassed = await readBypassed()
    const passedOn = needsRules ? await passedOnLines(plan, bypassed) : [] // nothing runs any more when the first line is out
    for (const line of [JSON.stringify(await statsWith(bypassed)), ...passedOn]) options.note(line)
  }
  try {
    const addresses = await service.listen() // before the rules: they would bring traffic that nobody takes
    await sharing.origin?.taken()
    sharing.origin?.follow(() =>
      reloads.follow().then(
        () => {},
        () => {}, // it has been noted
      ),
    )
    if (!signals.stop.aborted) {
      if (needsRules) rules = await KeptRules.install(plan, options.note)
      if (needsRules) forwards = new ForwardWatch(config, options.note)
      process.on('SIGUSR2', onDump)
      process.on('SIGUSR1', onReopen)
      if (!hasTerminal) process.on('SIGHUP', onHangup)
      if (options.control)
        control = await openControl(controlHandlers({ stats, reload, bypass: rules?.kernelBypass }), options)
      const workers = workerCount(config)
      const doing = [
        ...(addresses.length > 0 ? [`listening on ${addresses.map(formatEndpoint).join(' and ')}`] : []),
        ...config.forwards.map(({ name, to }) => `forwarding ${name} to ${formatEndpoint(to)}`),
      ]
      const guard =
        plan.guard.length === 0
          ? ''
          : `, guard ${BACKENDS[plan.backend].label(config.rules, 'guard')} (stays if Limpid dies)`
      const by = workers === 1 ? '' : `, ${workers} workers`
      options.note(`ready: ${doing.join(', ')}${by}${rules === undefined ? '' : `, ${rules.summary}${guard}`}`)
      await Promise.race([aborted(signals.stop), ...(rules === undefined ? [] : [rules.failed])])
    }
    await drain(service, signals, options)
    isClean = true
    return await service.stats()
  } finally {
    process.off('SIGUSR2', onDump)
    process.off('SIGUSR1', onReopen)
    process.off('SIGHUP', onHangup)
    await control?.[Symbol.asyncDispose]()
    forwards?.[Symbol.dispose]()
    await service.close()
    if (rules !== undefined) for (const line of await passedOnLines(plan, await readBypassed())) options.note(line)
    // last: the flows that drain still need the divert rule; and what is closed stays so when we end by an error
    await rules?.remove({ keepGuard: options.keepGuard || !isClean })
  }
}

/** What `limpid stats` tells. */
export type ServiceStats = ProxyStats &
  Partial<WorkerStats> & {
    readonly restorations: number
    /** Times that the policy was read again, and that it stayed as it was because of what was wrong. */
    readonly reloads: number
    readonly reloadsFailed: number
    /** What the kernel forwarded by itself; undefined without listeners that take traffic. */
    readonly bypassed: BypassCounts | undefined
    /** Where the policy comes from; undefined: from the file. */
    readonly origin: OriginStats | undefined
    /** Where records go besides stdout. */
    readonly records: readonly SinkStats[]
  }

/** Without it all else works. */
async function openControl(handlers: ControlHandlers, { note }: DaemonOptions): Promise<ControlSocket | undefined> {
  try {
    const { ControlSocket } = await import('./control.ts')
    const opened = await ControlSocket.open(handlers)
    if (opened === undefined) note('no control socket: another limpid run of this network namespace has it')
    return opened
  } catch (error) {
    note(`no control socket: ${(error as Error).message}`)
    return undefined
  }
}

/** What the kernel has passed on, by forwards and past the listeners: no other line tells of it. */
async function passedOnLines(plan: Plan, bypassed: BypassAccounts | undefined): Promise<string[]> {
  const forwards = await readForwardAccounts(plan).catch(() => []) // rules that are lost have no counters
  return [...forwards.map(forwardLine), ...(bypassed === undefined ? [] : bypassLines(bypassed, plan.bypass))]
}

function forwardLine({ name, flows, bytesUp, bytesDown }: ForwardAccount): string {
  const bytes = bytesUp === undefined ? '' : `, ${bytesUp} bytes up, ${bytesDown ?? 0} bytes down`
  return `forward ${name}: ${counted(flows, 'flow')}${bytes}`
}

async function accountsOf(plan: Plan): Promise<BypassAccounts | undefined> {
  if (plan.interceptions.length === 0) return undefined
  return await readBypassAccounts(plan).catch(() => undefined) // rules that are lost have no counters
}

async function drain(service: Service, signals: StopSignals, options: DaemonOptions): Promise<void> {
  const { flowsOpen } = await service.stats()
  if (flowsOpen > 0) options.note(stoppingLine(flowsOpen, signals.stopNow.aborted ? 0 : options.drainMs))
  const hurry = (): void => void service.close()
  signals.stopNow.addEventListener('abort', hurry, { once: true })
  await service.drain(signals.stopNow.aborted ? 0 : options.drainMs)
}

function stoppingLine(flowsOpen: number, drainMs: number): string {
  const flows = counted(flowsOpen, 'flow')
  if (drainMs === 0) return `stopping: ${flows} end${flowsOpen === 1 ? 's' : ''} now`
  return `stopping: ${flows} may go on for ${formatDuration(drainMs)}; a second signal ends ${flowsOpen === 1 ? 'it' : 'them'}`
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** None for a plain forwarder. Foreign addresses need CAP_NET_RAW, rules CAP_NET_ADMIN, marks one of them (CAP_NET_RAW since Linux 5.17). */
function neededCapabilities(config: Config, needsRules: boolean): CapabilityName[] {
  const isForeign = config.listeners.some(
    ({ intercept, source }) => intercept === 'tproxy' || intercept === 'mark' || source !== 'proxy',
  )
  const isMarked = config.listeners.some(({ intercept }) => intercept !== 'none')
  const needed: CapabilityName[] = needsRules ? ['CAP_NET_ADMIN'] : []
  return isForeign || (isMarked && !needsRules) ? [...needed, 'CAP_NET_RAW'] : needed
}

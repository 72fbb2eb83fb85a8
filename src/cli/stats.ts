import type { Command } from 'commander'
import { askControl } from '../daemon/ask-control.ts'
import type { ServiceStats } from '../daemon/run.ts'
import { counted } from '../net/counted.ts'
import { formatBytes } from './flow-line.ts'
import { printJson, printLine } from './print.ts'

export function configure(command: Command): void {
  command
    .option('--json', 'all counters, as JSON')
    .addHelpText('after', '\nAsks the `limpid run` of this network namespace by its control socket.')
    .action(async (flags: { json?: true }) => {
      const stats = (await askControl('GET', '/stats')) as ServiceStats
      if (flags.json === true) printJson(stats)
      else for (const line of statsLines(stats)) printLine(line)
    })
}

/** What most people want to know; the rest is in the JSON. */
export function statsLines(stats: ServiceStats): string[] {
  const { flowsOpen, flowsLimit, flowsTotal, sessionsOpen, sessionsLimit, endedBy, datagramsDropped } = stats
  const sessions = sessionsLimit === 0 ? '' : `, UDP sessions ${sessionsOpen} of ${sessionsLimit}`
  const moved = `${formatBytes(stats.bytesClientToUpstream)} up, ${formatBytes(stats.bytesUpstreamToClient)} down`
  return [
    `open      ${flowsOpen} of ${flowsLimit} flows${sessions}`,
    `total     ${counted(flowsTotal, 'flow')}, of those that ended ${moved}`,
    ...listed('ended by ', endedBy),
    ...listed('dropped  ', datagramsDropped),
    ...hostLine(stats.hostChecks),
    ...Object.entries(stats.pools).flatMap(([name, servers]) => poolLines(name, servers)),
    ...bypassLine(stats.bypassed),
    `rules     restored ${counted(stats.restorations, 'time')}`,
    ...policyLine(stats),
    ...originLine(stats.origin),
    ...stats.records.map(sinkLine),
    ...shadowLines(stats.shadow),
    ...(stats.workers ?? []).map((worker, index) =>
      worker === undefined
        ? `worker ${index + 1}  about to begin`
        : `worker ${index + 1}  pid ${worker.pid}, ${counted(worker.flowsOpen, 'flow')} and ${counted(worker.sessionsOpen, 'session')} open, ${worker.flowsTotal} in all`,
    ),
    ...(stats.workers === undefined
      ? []
      : [`workers   ${stats.workerRestarts} restarted, ${counted(stats.flowsLost ?? 0, 'flow')} lost by that`]),
  ]
}

function hostLine(hostChecks: ServiceStats['hostChecks']): string[] {
  return listed('hosts    ', Object.fromEntries(Object.entries(hostChecks).filter(([, count]) => count > 0)))
}

function policyLine({ reloads, reloadsFailed }: ServiceStats): string[] {
  if (reloads + reloadsFailed === 0) return []
  return [`policy    reloaded ${counted(reloads, 'time')}, ${counted(reloadsFailed, 'reload')} failed`]
}

function originLine(origin: ServiceStats['origin']): string[] {
  if (origin === undefined) return []
  const { from, revision, isConnected, problem } = origin
  const parts = [
    `from ${from}`,
    ...(revision === undefined ? [] : [`revision ${revision}`]),
    ...(isConnected === undefined ? [] : [isConnected ? 'connected' : 'cut off']),
    ...(problem === undefined ? [] : [problem]),
  ]
  return [`policy    ${parts.join(', ')}`]
}

function sinkLine({ to, written, dropped, waiting, problem }: ServiceStats['records'][number]): string {
  return `records   ${to}: ${written} written, ${waiting} waiting, ${dropped} dropped${problem === undefined ? '' : `, ${problem}`}`
}

function shadowLines(shadow: ServiceStats['shadow']): string[] {
  if (shadow === undefined) return []
  const { decided, differed, undecided, byRules } = shadow
  return [
    `shadow    of ${counted(decided, 'decision')} ${differed} ${differed === 1 ? 'differs' : 'differ'}, ${counted(undecided, 'flow was', 'flows were')} not looked into`,
    ...listed('differ   ', byRules),
  ]
}

function poolLines(name: string, servers: ServiceStats['pools'][string]): string[] {
  return Object.entries(servers).map(([server, { flows, flowsTotal, failures, up }]) => {
    const failed = failures === 0 ? '' : `, ${counted(failures, 'dial')} failed`
    return `pool      ${name} ${server} ${up > 0 ? 'up' : 'down'}, ${counted(flows, 'flow')} open, ${flowsTotal} in all${failed}`
  })
}

function bypassLine(bypassed: ServiceStats['bypassed']): string[] {
  if (bypassed === undefined || bypassed.connections + (bypassed.packets ?? 0) === 0) return []
  const { connections, packets, bytes } = bypassed
  const moved = packets === undefined ? '' : `, ${counted(packets, 'packet')}, ${formatBytes(bytes ?? 0)}`
  return [`bypassed  ${counted(connections, 'connection')}${moved}, by the kernel`]
}

function listed(heading: string, counts: Readonly<Record<string, number>>): string[] {
  const entries = Object.entries(counts).toSorted(([, one], [, other]) => other - one)
  return entries.length === 0 ? [] : [`${heading} ${entries.map(([name, count]) => `${name} ${count}`).join(', ')}`]
}

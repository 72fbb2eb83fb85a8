import { styleText } from 'node:util'
import { LimpidError } from '../errors.ts'
import type { Family } from '../net/address.ts'
import { predictKnows } from '../ruleset/knows.ts'
import { datagramLine } from './frame-capture.ts'
import type { Host } from './host.ts'
import { enterNamespaces, type InsideFacts } from './namespace.ts'
import { observe, type Predict } from './observe.ts'
import { type Progress, progressOn } from './progress.ts'
import { type Paint, renderRun, renderScenario, renderSummary, renderTopology } from './render.ts'
import type { LabReport, LabRun } from './report.ts'
import type { Scenario } from './scenario.ts'
import { selectScenarios } from './scenarios.ts'
import { observeSpoof, type PredictCapture } from './spoof.ts'
import { ADDRESSES, BRIDGE_ADDRESSES, raiseBridge, raiseTopology, type Topology } from './topology.ts'

export interface LabOptions {
  /** `S1` … `dns` or `all`, also several with commas; S1 to S4 when left out. */
  readonly scenarios?: readonly string[] | undefined
  /** One LabReport as JSON on stdout instead of the text. */
  readonly json?: boolean | undefined
  /** Stay up after the run until SIGINT or SIGTERM. */
  readonly keep?: boolean | undefined
  /** Colour on stdout: on a terminal without NO_COLOR, when left out. */
  readonly colour?: boolean | undefined
  /** No progress on stderr. */
  readonly quiet?: boolean | undefined
  /** Both when left out; IPv4 alone where the kernel has no IPv6. */
  readonly families?: readonly Family[] | undefined
  /** Says what is expected; a test puts wrong prophets here. */
  readonly predict?: Partial<Prophets> | undefined
}

interface Prophets {
  readonly knows: Predict
  readonly capture: PredictCapture
}

const PROPHETS: Prophets = { knows: predictKnows, capture: datagramLine }

const INTRODUCTION = [
  '  Three hosts, in namespaces of their own; nothing outside is touched. Y dials, limpid on X takes the',
  '  connection and dials Z, and both ends tell which peer they see. Who knows whom?',
]

/**
 * Raises the reference topology in namespaces of its own, runs the scenarios with the real program, and prints what was
 * seen beside what was predicted. It calls enterNamespaces, so what the caller did before is done again inside.
 * @returns the exit code: 0 when all was as predicted, else 1.
 * @throws LimpidError LIMPID_USAGE, LIMPID_NAMESPACE, LIMPID_PROGRAM, LIMPID_LAB
 */
export async function runLab(options: LabOptions = {}): Promise<number> {
  const scenarios = selectScenarios(options.scenarios)
  const facts = await enterNamespaces()
  const startedAt = performance.now()
  const progress = progressOn(process.stderr, options.quiet === true)
  progress.step('raising the hosts Y, X and Z')
  const topologies = await raiseTopologies(scenarios)
  try {
    const families = servedFamilies(Object.values(topologies)[0]!.x, options.families)
    const printed = options.json === true ? undefined : new PrintedReport(paintOf(options.colour), progress)
    for (const topology of Object.values(topologies)) printed?.print(['', ...renderTopology(topology, printed.paint)])
    printed?.print(['', ...INTRODUCTION, ''])
    const runs = await runAll(topologies, scenarios, families, { ...PROPHETS, ...options.predict }, progress, printed)
    progress.clear()
    const report: LabReport = {
      format: 1,
      topology: ADDRESSES,
      bridge: BRIDGE_ADDRESSES,
      runs,
      passed: runs.every((run) => run.passed),
      durationMs: performance.now() - startedAt,
      ...(options.keep === true ? { enter: enterCommands(topologies, facts) } : {}),
    }
    if (printed === undefined) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
    else printed.print([...renderSummary(report, printed.paint), ''])
    if (options.keep === true) await stayUp(report.enter!)
    return report.passed ? 0 : 1
  } finally {
    progress.clear()
    await Promise.all(Object.values(topologies).map((topology) => topology.close()))
  }
}

/** Those that the scenarios need, by name. */
type Topologies = { readonly [name in Scenario['topology']]?: Topology }

async function raiseTopologies(scenarios: readonly Scenario[]): Promise<Topologies> {
  const needs = (name: Scenario['topology']): boolean => scenarios.some(({ topology }) => topology === name)
  return {
    ...(needs('routed') ? { routed: await raiseTopology() } : {}),
    ...(needs('bridged') ? { bridged: await raiseBridge() } : {}),
  }
}

async function runAll(
  topologies: Topologies,
  scenarios: readonly Scenario[],
  families: readonly Family[],
  prophets: Prophets,
  progress: Progress,
  printed: PrintedReport | undefined,
): Promise<LabRun[]> {
  const runs: LabRun[] = []
  const total = scenarios.length * families.length
  for (const scenario of scenarios) {
    for (const family of families) {
      progress.step(`[${runs.length + 1}/${total}] ${scenario.name} over IPv${family}: ${scenario.title}`)
      const run = await observeOne(topologies[scenario.topology]!, scenario, family, prophets)
      runs.push(run)
      if (printed === undefined) continue
      if (family === families[0]) printed.print(renderScenario(run, printed.paint))
      printed.print([...renderRun(run, printed.paint), ''])
    }
  }
  return runs
}

function observeOne(topology: Topology, scenario: Scenario, family: Family, prophets: Prophets): Promise<LabRun> {
  return scenario.kind === 'flow'
    ? observe(topology, scenario, family, prophets.knows)
    : observeSpoof(topology, scenario, family, prophets.capture)
}

/** The text report, written as it becomes known. */
class PrintedReport {
  readonly paint: Paint
  readonly #progress: Progress

  constructor(paint: Paint, progress: Progress) {
    this.paint = paint
    this.#progress = progress
  }

  print(lines: readonly string[]): void {
    this.#progress.clear()
    process.stdout.write(`${lines.join('\n')}\n`)
  }
}

/** No colour where NO_COLOR (no-color.org) or a dumb terminal says so, whatever was asked for. */
function paintOf(wanted = process.stdout.isTTY === true): Paint {
  const on = wanted && (process.env.NO_COLOR ?? '') === '' && process.env.TERM !== 'dumb'
  return on ? styleText : (_, text) => text
}

/** @throws LimpidError LIMPID_LAB when IPv6 was asked for by name where there is none. */
function servedFamilies(x: Host, wanted: readonly Family[] | undefined): readonly Family[] {
  if (x.hasIpv6) return wanted ?? [4, 6]
  if (wanted?.includes(6)) {
    throw new LimpidError('LIMPID_LAB', 'this kernel has IPv6 switched off', { cure: 'boot without ipv6.disable=1' })
  }
  process.stderr.write('limpid lab: this kernel has IPv6 switched off (ipv6.disable=1): IPv4 alone is shown\n')
  return [4]
}

/** The command that opens a shell on each host, from outside; it needs to be the user who started the lab, or root. */
function enterCommands({ routed, bridged }: Topologies, { hostPid }: InsideFacts): Readonly<Record<string, string>> {
  const command = ({ namespaceFd }: Host): string =>
    `nsenter --target ${hostPid} --preserve-credentials --user --mount --pid --net=/proc/${hostPid}/fd/${namespaceFd}`
  const of = (topology: Topology | undefined, suffix: string) =>
    topology === undefined
      ? []
      : [topology.x, topology.y, topology.z].map((host) => [`${host.name}${suffix}`, command(host)])
  return Object.fromEntries([...of(routed, ''), ...of(bridged, ' (bridge)')])
}

async function stayUp(enter: Readonly<Record<string, string>>): Promise<void> {
  const lines = Object.entries(enter).map(([name, command]) => `  ${name}  ${command}`)
  const text = ['The lab stays up until Ctrl-C. To enter a host, in another terminal:', ...lines, '']
  process.stderr.write(`${text.join('\n')}\n`)
  const keepAlive = setInterval(() => {}, 1 << 30)
  await new Promise<void>((resolve) => {
    // they stay: Ctrl-C comes from the terminal and from the outer process
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => resolve())
  })
  clearInterval(keepAlive)
}

import type { Colour } from '../colour.ts'
import type { Path, Protocol } from '../config/types.ts'
import type { Miss } from './decide.ts'
import type { ObservedStep } from './observed.ts'
import type { Fate, Hop, Prediction } from './predict.ts'

/** What `limpid trace --json` prints. Its keys stay; nothing is left out: what is unknown is null. */
export interface TraceReport {
  readonly format: 1
  readonly flow: {
    readonly client: string
    readonly destination: { readonly address: string; readonly port: number | null }
    readonly protocol: Protocol
    readonly path: Path
    readonly interface: string | null
  }
  readonly predicted: Prediction
  /** Listeners and forwards that do not take it, the nearest first; empty when one does. */
  readonly missed: readonly Miss[]
  /** With --live alone. */
  readonly live: LiveReport | null
  /** What the exit code tells: 0 when true. */
  readonly asConfigured: boolean
}

export interface LiveReport {
  /** False: no such packet came in time. */
  readonly seen: boolean
  readonly steps: readonly ObservedStep[]
  readonly takenBy: string | null
  readonly mark: number
  readonly fate: Fate | null
  readonly to: string | null
  readonly out: string | null
  /** In what it differs from the prediction. */
  readonly deviations: readonly string[]
}

const WIDTH = 12

/** For people: the prediction hop by hop, then what the kernel said. */
export function renderReport({ predicted, live }: TraceReport, paint: Colour): string {
  const lines = predicted.hops.map(({ word, what }: Hop) => `${paint.bold(word.padEnd(WIDTH))}${what}`)
  if (live !== null) lines.push('', ...liveLines(live, paint))
  return `${lines.join('\n')}\n`
}

function liveLines(live: LiveReport, paint: Colour): string[] {
  if (!live.seen) return [paint.red('live        no such packet came')]
  const line = (word: string, what: string) => `${paint.bold(word.padEnd(WIDTH))}${what}`
  const steps = live.steps.map(({ where, chain, rule, verdict }) =>
    line('kernel', `${where} ${chain}: ${rule} ${paint.dim(`→ ${verdict}`)}`),
  )
  const mark = live.mark === 0 ? '' : `, mark 0x${live.mark.toString(16)}`
  const way = live.out === null ? '' : `, out ${live.out}`
  const taken = live.takenBy === null ? 'no rule of ours took it' : `${live.takenBy} took it`
  const end = line('kernel', `${taken}; ${live.fate}${live.to === null ? '' : ` as ${live.to}`}${way}${mark}`)
  const verdict =
    live.deviations.length === 0
      ? [paint.green(line('live', 'as predicted'))]
      : live.deviations.map((deviation) => paint.red(line('deviates', deviation)))
  return [...steps, end, ...verdict]
}

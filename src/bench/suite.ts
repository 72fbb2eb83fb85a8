import type { Topology } from '../lab/topology.ts'
import type { Latency } from './latencies.ts'

/** The subject without a proxy. */
export const KERNEL = 'forwarding'

/** One measurement of one subject. */
export interface Sample {
  /** In the case's unit of rate. */
  readonly rate: number
  /** The proxy's CPU in the case's unit of cost; undefined without a proxy. */
  readonly cost: number | undefined
  /** CPU seconds of the proxy for each second that passed; near 1, its one thread was the limit. */
  readonly busy: number | undefined
  /** Of a hundred packets, or questions: how many were lost. */
  readonly lostPercent?: number
  readonly latency?: Latency
  /** Of the same requests while nothing else goes on. */
  readonly aloneP99Ms?: number
  /** Of user memory. */
  readonly megabytes?: number
}

/** What is measured: a reference topology of its own, with its own rules, so that no other subject's rules weigh on it. */
export interface Subject {
  readonly name: string
  readonly topology: Topology
  /** The proxy's process, or the parent of its workers; undefined where there is none. */
  readonly pid: number | undefined
  /** The address that clients dial. */
  readonly dialled: string
  /** Stops the proxy as an operator would, then lets the hosts go. */
  close(): Promise<void>
}

/** How a subject comes up. */
export interface SubjectKind {
  readonly name: string
  /** What it needs to be measured here, in words, when that is missing. */
  missing?(): Promise<string | undefined>
  /** Up and ready for load, its path verified. `env`: more of the environment for Limpid. */
  raise(env: Record<string, string>): Promise<Subject>
}

export type Better = 'more' | 'less'

/** One line of the table. */
export interface Figure {
  readonly unit: string
  readonly better: Better
  /** False where a ratio says nothing. */
  readonly isCompared: boolean
  /** `kernel`: what forwarding did in the same round; undefined where it is not measured, and for itself. */
  of(sample: Sample, kernel: Sample | undefined): number | undefined
}

export interface Case {
  readonly name: string
  readonly title: string
  readonly figures: readonly Figure[]
  /** A program that makes the load, by the name of its package too. */
  readonly needs?: string
  /** Subjects that are left out: where they would say nothing new. */
  readonly without: readonly string[]
  /** Settles, before anything is measured, what the same load is for all subjects. Returns a note for the report. */
  prepare?(subjects: readonly Subject[]): Promise<string>
  measure(subject: Subject, seconds: number): Promise<Sample>
}

/** Cases that are measured at the same subjects, which are all up meanwhile unless they have to be fresh. */
export interface Suite {
  readonly name: string
  readonly subjects: readonly SubjectKind[]
  /** True: a subject is raised anew for each measurement, since what it did before would show. */
  readonly isFresh?: boolean
  /** Whose figures are divided by whose; none where figures stand for themselves. */
  readonly comparisons: readonly (readonly [string, string])[]
  readonly cases: readonly Case[]
}

export function rateIn(unit: string): Figure {
  return { unit, better: 'more', isCompared: true, of: ({ rate }) => rate }
}

export function costIn(unit: string): Figure {
  return { unit, better: 'less', isCompared: true, of: ({ cost }) => cost }
}

export function latencyIn(unit: string, of: (latency: Latency) => number, isCompared = false): Figure {
  return {
    unit: `ms ${unit}`,
    better: 'less',
    isCompared,
    of: ({ latency }) => (latency === undefined ? undefined : of(latency)),
  }
}

/** The cost in microseconds turned round: what one CPU second of the proxy moves. */
export function perCpuSecond(unit: string): Figure {
  return { unit, better: 'more', isCompared: true, of: ({ cost }) => (cost === undefined ? undefined : 1e6 / cost) }
}

export const LOSSES: Figure = {
  unit: '% lost',
  better: 'less',
  isCompared: false,
  of: ({ lostPercent }) => lostPercent,
}

export const MEGABYTES: Figure = {
  unit: 'MB',
  better: 'less',
  isCompared: false,
  of: ({ megabytes }) => megabytes,
}

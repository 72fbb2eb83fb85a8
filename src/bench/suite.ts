import type { Topology } from '../lab/topology.ts'

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
  readonly p99Ms?: number
}

/** What is measured: a reference topology of its own, with its own rules, so that no other subject's rules weigh on it. */
export interface Subject {
  readonly name: string
  readonly topology: Topology
  /** The proxy's process; undefined where the kernel alone forwards. */
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

/** One line of the table. */
export interface Figure {
  readonly unit: string
  /** False where a ratio says nothing. */
  readonly isCompared: boolean
  of(sample: Sample): number | undefined
}

export interface Case {
  readonly name: string
  readonly title: string
  readonly figures: readonly Figure[]
  /** A program that makes the load, by the name of its package too. */
  readonly needs?: string
  /** Subjects that are left out: where they would say nothing new. */
  readonly without: readonly string[]
  measure(subject: Subject, seconds: number): Promise<Sample>
}

/** Cases that are measured at the same subjects, which are all up meanwhile. */
export interface Suite {
  readonly name: string
  readonly subjects: readonly SubjectKind[]
  /** Whose figures are divided by whose. */
  readonly comparisons: readonly (readonly [string, string])[]
  readonly cases: readonly Case[]
}

export function rateIn(unit: string): Figure {
  return { unit, isCompared: true, of: ({ rate }) => rate }
}

export function costIn(unit: string): Figure {
  return { unit, isCompared: true, of: ({ cost }) => cost }
}

/** The cost in microseconds turned round: what one CPU second of the proxy moves. */
export function perCpuSecond(unit: string): Figure {
  return { unit, isCompared: true, of: ({ cost }) => (cost === undefined ? undefined : 1e6 / cost) }
}

export const LOSSES: Figure = { unit: '% lost', isCompared: false, of: ({ lostPercent }) => lostPercent }

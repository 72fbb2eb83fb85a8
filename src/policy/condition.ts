import type { FlowFacts } from './facts.ts'

/** `unknown`: only the first bytes of the flow can tell. */
export type Answer = 'yes' | 'no' | 'unknown'

/** One thing that a rule asks. */
export interface Condition {
  /** As it was asked for, for people: `ports 80,443`. */
  readonly text: string
  ask(facts: FlowFacts): Answer
  /** What it was asked about, for people: `port 8080`. */
  found(facts: FlowFacts): string
}

import type { TraceStep } from '../doctor/trace.ts'
import type { Fate } from './predict.ts'
import { TRACE_TABLE } from './trace-table.ts'

/** What the kernel did with a packet. */
export interface Observed {
  /** Where it came in; undefined when it was made here. */
  readonly interface: string | undefined
  /** Of others' rules and ours, in order; without those that only let it by. */
  readonly steps: readonly ObservedStep[]
  /** `listener web`, `forward dns`; null when no rule of ours took it. */
  readonly takenBy: string | null
  /** Its mark at the end, all bits. */
  readonly mark: number
  readonly fate: Fate
  /** Where it was going at the end: as the listener's socket sees it; undefined for one that was dropped. */
  readonly to: string | undefined
  /** By which it left. */
  readonly out: string | undefined
}

export interface ObservedStep {
  /** `nft inet limpid`, or `nft ip mangle` for a table of iptables. */
  readonly where: string
  readonly chain: string
  /** The rule without its handle; `policy drop`. */
  readonly rule: string
  readonly verdict: string
  /** Its comment. */
  readonly comment: string | undefined
}

/** The comment of a rule, where the trace does not show it: iptables keeps them elsewhere. */
export type CommentOf = (step: TraceStep) => string | undefined

const ENDS: Readonly<Record<string, Fate>> = { input: 'delivered', forward: 'forwarded', postrouting: 'sent' }

/** Reads a packet's steps; undefined when there are none. Pure. */
export function observe(steps: readonly TraceStep[], commentOf: CommentOf): Observed | undefined {
  const [first] = steps
  if (first === undefined) return undefined
  const rules = steps.filter((step) => !isOurTracer(step)).flatMap((step) => ruleStep(step, commentOf))
  const last = endOf(steps)
  const dropped = rules.some(({ verdict }) => verdict === 'drop' || verdict === 'reject')
  return {
    interface: wordAfter('iif', first.text),
    steps: rules,
    takenBy: takerOf(rules),
    mark: steps.findLast(({ kind, mark }) => kind !== 'rule' && kind !== 'packet' && mark !== undefined)?.mark ?? 0,
    fate: last === undefined || dropped ? 'dropped' : last.fate,
    to: last?.to,
    out: last?.out,
  }
}

/** The comment of the first rule that ended the way of the packet through its chain; guards and bridges have such comments too. */
function takerOf(rules: readonly ObservedStep[]): string | null {
  const at = rules.findIndex(
    ({ where, chain, comment, verdict }, i) =>
      /^(listener|forward) /.test(comment ?? '') &&
      !where.startsWith('nft bridge ') &&
      !/-guard\b/.test(`${where.slice(where.lastIndexOf(' '))} ${chain}`) &&
      (verdict.startsWith('jump ') ? takesBelow(rules.slice(i + 1)) : isTaking(verdict)),
  )
  return rules[at]?.comment ?? null
}

/** iptables spreads a listener's conditions over chains of their own (`limpid-l1`), which may still let the packet by. */
function takesBelow(following: readonly ObservedStep[]): boolean {
  const beyond = following.findIndex(({ chain }) => !LADDER.test(chain))
  const last = (beyond < 0 ? following : following.slice(0, beyond)).at(-1)
  return last !== undefined && isTaking(last.verdict)
}

const LADDER = /-l\d+$/

function isTaking(verdict: string): boolean {
  return verdict === 'accept' || verdict === 'drop' || (verdict.startsWith('goto ') && !LADDER.test(verdict))
}

/** Our own chains in the hooks behind routing tell where it went. */
function endOf(
  steps: readonly TraceStep[],
): { fate: Fate; to: string | undefined; out: string | undefined } | undefined {
  const end = steps.findLast((step) => isOurTracer(step) && step.kind === 'packet' && ENDS[step.chain] !== undefined)
  if (end === undefined) return undefined
  const forwarded = steps.some((step) => isOurTracer(step) && step.chain === 'forward')
  const out = wordAfter('oif', end.text)
  const fate =
    end.family === 'bridge' ? 'bridged' : end.chain === 'postrouting' && forwarded ? 'forwarded' : ENDS[end.chain]!
  if (out === 'lo') return { fate: 'delivered', to: destinationOf(end.text), out: undefined }
  return { fate, to: destinationOf(end.text), out }
}

function ruleStep(step: TraceStep, commentOf: CommentOf): ObservedStep[] {
  const where = `nft ${step.family} ${step.table}`
  if (step.kind === 'policy') {
    return step.verdict === 'drop'
      ? [{ where, chain: step.chain, rule: 'policy drop', verdict: 'drop', comment: undefined }]
      : []
  }
  if (step.kind !== 'rule') return []
  const comment = /\bcomment "([^"]*)"/.exec(step.text)?.[1] ?? commentOf(step)
  return [{ where, chain: step.chain, rule: step.text, verdict: step.verdict ?? 'continue', comment }]
}

function isOurTracer({ table }: TraceStep): boolean {
  return table.startsWith(TRACE_TABLE)
}

function wordAfter(word: string, text: string): string | undefined {
  return new RegExp(`\\b${word} "([^"]+)"`).exec(text)?.[1]
}

/** `10.0.4.2:80` of a packet's description. */
function destinationOf(text: string): string | undefined {
  const address = /\bdaddr ([0-9a-f.:]+) /.exec(text.replace(/ether [sd]addr \S+/g, ''))?.[1]
  const port = /\bdport (\d+)/.exec(text)?.[1]
  if (address === undefined || port === undefined) return address
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

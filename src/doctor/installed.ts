import type { Difference } from '../ruleset/verify.ts'
import { describeDifference } from '../ruleset/verify.ts'
import { type Finding, note, ok, unknown, wrong } from './finding.ts'

export interface Installed {
  /** Compared with the plan; undefined when nothing of ours is installed. */
  readonly differences: readonly Difference[] | undefined
  /** `limpid (pid 17)`, or `installed to stay`. */
  readonly owner: string
  /** Puts all of it back. */
  readonly reinstall: string
  readonly runCommand: string
  /** `limpid run` installs the rules of this config itself. */
  readonly wanted: boolean
  readonly listening: boolean
}

const LOST = {
  'ip-rule': 'taken packets are routed on as if nothing had taken them',
  'local-route': 'taken packets have no route to this host',
}

/** What of the plan is not in the kernel, piece by piece, each with what puts that piece back. */
export function installedFindings(facts: Installed): Finding[] {
  const { differences, owner, wanted, listening, runCommand, reinstall } = facts
  if (differences === undefined) {
    if (!wanted) return [ok('rules', 'no rules are wanted')]
    if (!listening)
      return [note('rules', 'no rules are installed and Limpid is not running: nothing is taken', runCommand)]
    return [wrong('rules', 'the listeners wait, but no rules are installed: nothing is brought to them', reinstall)]
  }
  if (differences.length === 0) return [ok('rules', `the rules are as planned (${owner})`)]
  const seen = new Set<string>()
  return differences
    .map((difference) => pieceFinding(difference, reinstall))
    .filter(({ id, what }) => {
      const isNew = id !== 'rules' || !seen.has(id) // one line for a table, however much of it differs
      seen.add(id)
      return isNew && what !== ''
    })
}

function pieceFinding(difference: Difference, reinstall: string): Finding {
  const { what, expected, found } = difference
  const piece = /^ip(?: (-[46]))? (rule|route)/.exec(what)
  if (piece === null) {
    const [, key] = /^sysctl (\S+)/.exec(what) ?? []
    if (key !== undefined && expected !== undefined) {
      return wrong('rules', `${describeDifference(difference)}`, `sysctl -w ${key}=${expected}`)
    }
    return wrong('rules', `${describeDifference(difference)}`, reinstall)
  }
  const kind = piece[2] as 'rule' | 'route'
  const id = kind === 'rule' ? 'ip-rule' : 'local-route'
  const text = expected ?? found ?? ''
  const family = piece[1] ?? /^-[46]/.exec(text)?.[0] ?? '-4'
  const args = text.replace(/^-[46] /, '')
  if (expected === undefined)
    return wrong(id, `ip ${family} ${kind} ${args} is not planned`, `ip ${family} ${kind} del ${args}`)
  return wrong(id, `ip ${family} ${kind} ${args} is missing: ${LOST[id]}`, `ip ${family} ${kind} add ${args}`)
}

export function cannotRead(why: string): Finding {
  return unknown('rules', `cannot read the rules: ${why}`)
}

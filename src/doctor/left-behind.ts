import type { FoundRules } from '../ruleset/backend.ts'
import type { RulesetState } from '../ruleset/state.ts'
import { type Finding, wrong } from './finding.ts'

/** What a process left in the kernel that is gone: it was killed, or stopped with `--keep-guard`. */
export interface LeftBehind {
  readonly main: readonly FoundRules[]
  readonly guard: readonly FoundRules[]
  readonly ipRules: number
}

/** Undefined while a process holds the rules, when they are to stay, and when there are none. */
export function leftBehind(
  { holder, persistent, journal, found }: Pick<RulesetState, 'holder' | 'persistent' | 'journal' | 'found'>,
  ourIpRules: number,
): LeftBehind | undefined {
  if (holder !== undefined || persistent || journal?.owner === 'persistent') return undefined
  if (found.length === 0 && ourIpRules === 0) return undefined
  return {
    main: found.filter(({ role }) => role === 'main'),
    guard: found.filter(({ role }) => role === 'guard'),
    ipRules: ourIpRules,
  }
}

/** The one line for all of it: what is missing beside it, and what packets meet there, follows. */
export function leftBehindFinding({ main, guard, ipRules }: LeftBehind, runCommand: string): Finding {
  const labels = (rules: readonly FoundRules[]) => rules.map(({ label }) => label).join(' and ')
  const pieces = [
    ...[...main, ...guard].map(({ label }) => label),
    ...(ipRules === 0 ? [] : [`${ipRules} ip rule${ipRules === 1 ? '' : 's'} and their routes`]),
  ]
  const fate =
    guard.length > 0
      ? `${labels(guard)} ${plural(guard) ? 'drop' : 'drops'} what its closed listeners should take`
      : main.length > 0
        ? `${labels(main)} ${plural(main) ? 'bring' : 'brings'} packets to listeners that are closed`
        : 'traffic passes untaken'
  return wrong(
    'rules',
    `Limpid is not running; left behind: ${pieces.join(', ')}; ${fate}`,
    `${runCommand} (or: limpid rules remove)`,
  )
}

function plural(rules: readonly FoundRules[]): boolean {
  return rules.length > 1 || rules.some(({ backend }) => backend === 'iptables')
}

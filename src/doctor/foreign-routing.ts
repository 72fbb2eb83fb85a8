import type { RulesConfig } from '../config/types.ts'
import { usesOurBits } from '../ruleset/clash.ts'
import { type FoundRoute, type FoundRule, familySwitch } from '../ruleset/ip-commands.ts'
import { hex, prioritiesOf } from '../ruleset/policy-routing.ts'
import { type Finding, ok, wrong } from './finding.ts'

/** Ip rules of others that see packets of ours. */
export function foreignRuleFindings(found: readonly FoundRule[], rules: RulesConfig): Finding[] {
  const findings: Finding[] = []
  for (const rule of found.filter(({ ours }) => !ours)) {
    const shown = `ip ${familySwitch(rule.family)} rule ${rule.text}`
    const cure = `ip ${familySwitch(rule.family)} rule del ${rule.text}`
    if (usesOurBits(rule, rules)) {
      const what = `${shown} of somebody else uses mark bits of ours (rules.markMask ${hex(rules.markMask)})`
      findings.push(wrong('foreign-ip-rule', `${what}: it routes packets of ours elsewhere`, cure))
    } else if (prioritiesOf(rules).includes(rule.priority)) {
      const what = `${shown} of somebody else has a priority of ours (rules.rulePriority ${rules.rulePriority})`
      findings.push(wrong('foreign-ip-rule', `${what}: the rules cannot be installed`, cure))
    }
  }
  return findings.length > 0
    ? findings
    : [ok('foreign-ip-rule', `no other ip rule looks at mark bits of ${hex(rules.markMask)}`)]
}

/** Routes of others in our route table. */
export function routeTableFindings(found: readonly FoundRoute[], rules: RulesConfig): Finding[] {
  const foreign = found.filter(({ ours }) => !ours)
  if (foreign.length === 0) return [ok('route-table', `route table ${rules.routeTable} holds nothing of others`)]
  return foreign.map(({ family, text }) =>
    wrong(
      'route-table',
      `route table ${rules.routeTable} is taken by somebody: ${text} leads taken packets away (or set rules.routeTable)`,
      `ip ${familySwitch(family)} route del ${text}`,
    ),
  )
}

import type { RulesConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { BACKENDS } from './backend.ts'
import { type FoundRule, listRoutes, listRules } from './ip-commands.ts'
import type { Plan } from './plan.ts'
import { hex, prioritiesOf } from './policy-routing.ts'
import { PolicyRouting } from './rtnetlink.ts'

const ALL_BITS = 0xffff_ffff

/**
 * Looks for things of others that our rules would collide with. Reads only.
 * @throws LimpidError LIMPID_RULES_CLASH, which says what is there and which key of the config to change.
 */
export async function refuseClashes(plan: Plan): Promise<void> {
  const { rules } = plan
  const backend = BACKENDS[plan.backend]
  const [isMainTaken, isGuardTaken] = await Promise.all([
    backend.isForeign(rules, 'main'),
    backend.isForeign(rules, 'guard'),
  ])
  for (const [role, isTaken] of [
    ['main', isMainTaken],
    ['guard', isGuardTaken && plan.guard.length > 0],
  ] as const) {
    if (isTaken)
      throw clash(`an ${backend.label(rules, role)} of somebody else is there`, 'rules.nftTable', 'another name')
  }
  if (!isRoutingInTheWay(rules)) return
  const [routes, ipRules] = await Promise.all([listRoutes(rules.routeTable), listRules()]) // they say it in the operator's words
  const route = routes.find(({ ours }) => !ours)
  if (route !== undefined) {
    throw clash(
      `route table ${rules.routeTable} holds a route of somebody else (${route.text})`,
      'rules.routeTable',
      'a free number',
    )
  }
  for (const rule of ipRules.filter(({ ours }) => !ours)) {
    const shown = `ip -${rule.family} rule: ${rule.text}`
    if (isOurPriority(rule, rules)) {
      throw clash(
        `priority ${rule.priority} is taken by a rule of somebody else (${shown})`,
        'rules.rulePriority',
        'a free priority',
      )
    }
    if (usesOurBits(rule, rules)) {
      throw clash(
        `a rule of somebody else uses mark bits of ${hex(rules.markMask)} (${shown})`,
        'rules.markMask',
        'free bits',
      )
    }
  }
}

/** Whether an ip rule or route of somebody else is in the way: asked of the kernel, without a process. */
function isRoutingInTheWay(rules: RulesConfig): boolean {
  using kernel = new PolicyRouting()
  if (kernel.hasForeignRoutes(rules.routeTable)) return true
  return kernel.foreignRules().some((rule) => isOurPriority(rule, rules) || usesOurBits(rule, rules))
}

function isOurPriority({ priority }: Pick<FoundRule, 'priority'>, rules: RulesConfig): boolean {
  return prioritiesOf(rules).includes(priority)
}

/**
 * A rule that compares all 32 bits with a value outside our bits is no clash: it never matches a packet with our mark.
 * `wg-quick` makes such a rule (`not fwmark 0xca6c`).
 */
export function usesOurBits({ mark, mask }: Pick<FoundRule, 'mark' | 'mask'>, rules: RulesConfig): boolean {
  if (mark === undefined || mask === undefined) return false
  if ((mark & rules.markMask) !== 0) return true
  return mask !== ALL_BITS && (mask & rules.markMask) !== 0
}

function clash(what: string, key: string, other: string): LimpidError {
  return new LimpidError('LIMPID_RULES_CLASH', `cannot install the rules: ${what}`, { cure: `set ${key} to ${other}` })
}

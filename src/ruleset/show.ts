import type { RulesConfig } from '../config/types.ts'
import { listRoutes, listRules } from './ip-commands.ts'
import { guardTable } from './nft.ts'
import { isOurs, listTableWithCounters } from './nft-commands.ts'
import type { SysctlChange } from './plan.ts'
import { readState } from './state.ts'

/** What of ours is in the kernel now. */
export interface InstalledRules {
  /** `nft list table`, with counters; undefined when there is none. */
  readonly nftTable: string | undefined
  readonly guardTable: string | undefined
  /** `-4 pref 195 …`. */
  readonly ipRules: readonly string[]
  readonly routes: readonly string[]
  readonly sysctls: readonly SysctlChange[]
  /** Who keeps them: the pid of the process (0 when not found), `persistent`, `leftover` of a killed run, or nobody. */
  readonly owner: number | 'persistent' | 'leftover' | undefined
}

/** Reads it; changes nothing. */
export async function showRules(rules: RulesConfig): Promise<InstalledRules> {
  const state = await readState(rules)
  const names = state.journal?.rules ?? rules
  const [nftTable, guard, ipRules, routes] = await Promise.all([
    listTableWithCounters(names.nftTable),
    listTableWithCounters(guardTable(names)),
    listRules(),
    listRoutes(names.routeTable),
  ])
  const line = ({ family, text }: { family: number; text: string }) => `-${family} ${text}`
  const shown = {
    nftTable: nftTable !== undefined && isOurs(nftTable) ? nftTable : undefined,
    guardTable: guard !== undefined && isOurs(guard) ? guard : undefined,
    ipRules: ipRules.filter(({ ours }) => ours).map(line),
    routes: routes.filter(({ ours }) => ours).map(line),
    sysctls: state.journal?.sysctls ?? [],
  }
  const anything = Object.values(shown).some((part) => part !== undefined && part.length > 0)
  const owner = state.holder ?? (state.persistent ? 'persistent' : anything ? 'leftover' : undefined)
  return { ...shown, owner }
}

/** For people: the texts as the programs print them. */
export function formatRules(shown: InstalledRules): string {
  if (shown.owner === undefined) return 'no rules of Limpid are installed\n'
  const owner = typeof shown.owner === 'number' ? `process ${shown.owner || '(unknown)'}` : shown.owner
  const parts = [
    `# owner: ${owner}`,
    shown.nftTable?.trimEnd(),
    shown.guardTable?.trimEnd(),
    ...shown.ipRules.map((rule) => `ip ${rule.replace(' ', ' rule ')}`),
    ...shown.routes.map((route) => `ip ${route.replace(' ', ' route ')}`),
    ...shown.sysctls.map(({ key, value, former }) => `sysctl ${key}=${value} # formerly ${former}`),
  ]
  return `${parts.filter((part) => part !== undefined).join('\n')}\n`
}

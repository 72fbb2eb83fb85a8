import type { RulesConfig } from '../config/types.ts'
import { BACKENDS } from './backend.ts'
import { listRules } from './ip-commands.ts'
import { PolicyRouting } from './rtnetlink.ts'
import { readState } from './state.ts'
import type { SysctlChange } from './sysctls.ts'

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

/** Reads it, under whatever names it is there; changes nothing. */
export async function showRules(_names?: RulesConfig): Promise<InstalledRules> {
  const state = await readState()
  const listed = async (wanted: boolean) => {
    const found = state.found.filter(({ role }) => (role === 'guard') === wanted)
    const listings = await Promise.all(found.map((rules) => BACKENDS[rules.backend].listWithCounters(rules)))
    return listings.length > 0 ? listings.join('') : undefined
  }
  using kernel = new PolicyRouting()
  const [nftTable, guard, ipRules] = await Promise.all([listed(false), listed(true), listRules()])
  const routes = kernel.routes().filter(({ isPlanned }) => isPlanned)
  const shown = {
    nftTable,
    guardTable: guard,
    ipRules: ipRules.filter(({ ours }) => ours).map(({ family, text }) => `-${family} ${text}`),
    routes: routes.map(({ family, text }) => `-${family} ${text}`),
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

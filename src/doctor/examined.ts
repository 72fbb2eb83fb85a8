import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import type { Endpoint } from '../net/address.ts'
import { backendToShow } from '../ruleset/backend.ts'
import { type FoundRule, listRules } from '../ruleset/ip-commands.ts'
import { type Plan, planRuleset } from '../ruleset/plan.ts'
import { type RulesetState, readState } from '../ruleset/state.ts'
import { type HostFacts, hostFacts } from '../sys/host.ts'
import type { ClientRoute } from './client-routes.ts'
import { readClientRoutes } from './client-side.ts'
import { type LeftBehind, leftBehind } from './left-behind.ts'
import { type Link, readLinks } from './links.ts'
import { type Holder, type Listening, readListening } from './listening.ts'
import { allClientLinks, type Needs, needsOf } from './needs.ts'

/** What the operator asked for, and what was read once for all checks. */
export interface Examined {
  readonly config: Config
  /** The flags that lead to this config, as they were written: for commands that mend something. */
  readonly configArguments: string
  /** A real server that may be dialled, from `--server`. */
  readonly server: Endpoint | undefined
  readonly facts: HostFacts
  readonly plan: Plan
  readonly needs: Needs
  readonly links: readonly Link[]
  /** Where traffic of clients comes in. */
  readonly clientLinks: readonly Link[]
  readonly listening: readonly Listening[]
  /** All ip rules that there are, of whoever made them. */
  readonly ipRules: readonly FoundRule[]
  /** The ways back to clients; read when first asked for. */
  readonly clientRoutes: () => Promise<readonly ClientRoute[]>
  /** The process that holds a listening socket of ours. */
  readonly holder: Holder | undefined
  /** What of ours is in the kernel; an error when it cannot be read. */
  readonly state: RulesetState | LimpidError
  /** Rules that packets of ours can go through. */
  readonly rulesAreThere: boolean
  /** What is left of rules whose process is gone; `rulesAreThere` is false then. */
  readonly leftBehind: LeftBehind | undefined
}

export interface DoctorOptions {
  readonly configArguments: string
  readonly server: Endpoint | undefined
}

/** @throws LimpidError when not even interfaces and ip rules can be read. */
export async function examine(config: Config, { configArguments, server }: DoctorOptions): Promise<Examined> {
  const facts = hostFacts()
  const [links, state, ipRules, backend] = await Promise.all([
    readLinks(),
    tryState(),
    listRules(),
    backendToShow(config.rules),
  ])
  const listening = readListening(config.listeners)
  const found =
    !(state instanceof LimpidError) && (state.found.length > 0 || state.holder !== undefined || state.persistent)
  const ourIpRules = ipRules.filter(({ ours }) => ours).length
  let routes: Promise<readonly ClientRoute[]> | undefined
  const left = state instanceof LimpidError ? undefined : leftBehind(state, ourIpRules)
  return {
    config,
    configArguments,
    server,
    facts,
    plan: planRuleset(config, asIfForwarding(facts), { missingInterface: 'note', backend }),
    needs: needsOf(config),
    links,
    clientLinks: allClientLinks(config, links),
    listening,
    ipRules,
    clientRoutes: () => {
      routes ??= readClientRoutes(config, links)
      return routes
    },
    holder: listening.find(({ holder }) => holder !== undefined)?.holder,
    state,
    rulesAreThere: left === undefined && (found || ourIpRules > 0),
    leftBehind: left,
  }
}

export function runCommand({ configArguments }: Pick<Examined, 'configArguments'>): string {
  return `limpid run ${configArguments}`.trim()
}

export function doctorCommand({ configArguments }: Pick<Examined, 'configArguments'>): string {
  return `limpid doctor ${configArguments}`.trim()
}

/** A plan with forwards is refused where forwarding is off; here that is one finding among others. */
function asIfForwarding(facts: HostFacts): HostFacts {
  const on = (['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'] as const).map((key) => [key, '1'] as const)
  return { ...facts, sysctls: new Map([...facts.sysctls, ...on]) }
}

async function tryState(): Promise<RulesetState | LimpidError> {
  try {
    return await readState()
  } catch (error) {
    if (error instanceof LimpidError) return error
    throw error
  }
}

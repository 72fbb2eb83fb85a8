import { readFileSync } from 'node:fs'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint, parseAddress } from '../net/address.ts'
import { listRoutes } from '../ruleset/ip-commands.ts'
import { guardTable } from '../ruleset/nft.ts'
import { isEmptyPlan } from '../ruleset/plan.ts'
import { verifyRuleset } from '../ruleset/verify.ts'
import { effectiveCapabilities, parseCapabilities } from '../sys/capability.ts'
import { descriptorLimit } from '../sys/descriptors.ts'
import { readSysctl } from '../sys/host.ts'
import { bridgeFindings, bridgesOfLinks, readBridgeNetfilter } from './bridge-netfilter.ts'
import { clientRouteFindings } from './client-routes.ts'
import { sourceValidation } from './client-side.ts'
import { doctorCommand, type Examined, runCommand } from './examined.ts'
import { type CheckId, type Finding, unknown } from './finding.ts'
import { foreignNftFindings, suspects } from './foreign-nft.ts'
import { foreignRuleFindings, routeTableFindings } from './foreign-routing.ts'
import { forwardingFinding, forwardingKey } from './forwarding.ts'
import { installedFindings } from './installed.ts'
import { kernelFindings } from './kernel.ts'
import { readTcpSockets } from './kernel-sockets.ts'
import { leftBehindFinding } from './left-behind.ts'
import { descriptorFinding, parseDescriptorLimit } from './limits.ts'
import { listeningFindings } from './listening.ts'
import { mtuFindings } from './mtu.ts'
import { clientLinks } from './needs.ts'
import { readNftListing, ruleText } from './nft-listing.ts'
import { capabilityFindings } from './privileges.ts'
import { serverRouteFindings } from './server-routes.ts'
import { rpFilterFindings, srcValidMarkFindings } from './source-validation.ts'
import { stalledDialFindings } from './stalled-dials.ts'
import { readMainRoutes, wayTo } from './ways.ts'

const PROGRAM = 'limpid' // comm of `limpid run`

interface Check {
  readonly id: CheckId
  run(examined: Examined): Promise<readonly Finding[]> | readonly Finding[]
}

/** All checks that look without touching, in the order in which they are shown. */
const CHECKS: readonly Check[] = [
  { id: 'kernel', run: ({ config }) => kernelFindings(config) },
  { id: 'capability', run: checkCapabilities },
  { id: 'descriptors', run: checkDescriptors },
  { id: 'listener', run: checkListeners },
  { id: 'rules', run: checkInstalled },
  { id: 'foreign-ip-rule', run: ({ config, ipRules }) => foreignRuleFindings(ipRules, config.rules) },
  {
    id: 'route-table',
    run: async ({ config }) => routeTableFindings(await listRoutes(config.rules.routeTable), config.rules),
  },
  { id: 'foreign-nft', run: checkForeignNft },
  { id: 'rp-filter', run: async (examined) => rpFilterFindings(await sourceValidation(examined)) },
  { id: 'src-valid-mark', run: async (examined) => srcValidMarkFindings(await sourceValidation(examined)) },
  { id: 'bridge-nf-call', run: ({ links, clientLinks }) => bridgeFindings(readBridgeNetfilter(links, clientLinks)) },
  { id: 'forwarding', run: checkForwarding },
  { id: 'route-to-clients', run: async (examined) => clientRouteFindings(await examined.clientRoutes()) },
  { id: 'route-to-servers', run: checkServerRoutes },
  { id: 'mtu', run: checkMtu },
  {
    id: 'server',
    run: (examined) => stalledDialFindings(readTcpSockets(), ownAddresses(examined.facts), doctorCommand(examined)),
  },
]

/** Runs them all. One that cannot be run says why, and the others go on. */
export async function runChecks(examined: Examined): Promise<Finding[]> {
  const found = await Promise.all(
    CHECKS.map(async ({ id, run }) => {
      try {
        return await run(examined)
      } catch (error) {
        if (!(error instanceof LimpidError)) throw error
        return [unknown(id, `cannot look: ${error.message}`, error.cure)]
      }
    }),
  )
  return found.flat()
}

function checkCapabilities({ needs, holder, configArguments }: Examined): Finding[] {
  const status = holder && readProc(holder.pid, 'status')
  return capabilityFindings({
    needed: needs.capabilities,
    own: effectiveCapabilities(),
    holder: holder && status ? { pid: holder.pid, capabilities: parseCapabilities(status) } : undefined,
    uid: process.getuid?.() ?? 0,
    configArguments,
  })
}

function checkDescriptors(examined: Examined): Finding[] {
  const { config, holder } = examined
  const limit = holder && parseDescriptorLimit(readProc(holder.pid, 'limits') ?? '')
  const facts =
    holder !== undefined && limit !== undefined
      ? { limit, holder: `${holder.name} (pid ${holder.pid})` }
      : { limit: descriptorLimit(), holder: 'a process started here' }
  return [descriptorFinding(config, { ...facts, runCommand: runCommand(examined) })]
}

function checkListeners(examined: Examined): Finding[] {
  const found = listeningFindings(examined.listening, examined.rulesAreThere, runCommand(examined))
  // that nothing listens is said by the finding about the rules
  return examined.leftBehind === undefined ? found : found.filter(({ status }) => status === 'ok')
}

async function checkInstalled(examined: Examined): Promise<Finding[]> {
  const { state, plan, config, configArguments, listening, rulesAreThere, holder } = examined
  if (state instanceof LimpidError) throw state
  if (examined.leftBehind !== undefined) return [leftBehindFinding(examined.leftBehind, runCommand(examined))]
  const isKept = state.persistent || state.journal?.owner === 'persistent'
  const running =
    state.holder !== undefined || holder?.name === PROGRAM ? (holder?.pid ?? state.holder) || undefined : undefined
  return installedFindings({
    differences: rulesAreThere ? await verifyRuleset(plan) : undefined,
    owner: state.holder === undefined ? 'installed to stay' : `held by pid ${state.holder}`,
    reinstall:
      isKept || (holder !== undefined && running === undefined)
        ? `limpid rules install ${configArguments}`.trim()
        : `${running === undefined ? '' : `kill ${running}, then `}${runCommand(examined)}`,
    runCommand: runCommand(examined),
    wanted: config.rules.install && !isEmptyPlan(plan),
    listening: listening.some(({ socket }) => socket !== undefined),
  })
}

async function checkForeignNft({ config }: Examined): Promise<Finding[]> {
  const { rules } = config
  const isOurs = (table: string) => [rules.nftTable, guardTable(rules), 'limpid-doctor'].includes(table)
  const listing = await readNftListing()
  const unread = listing.unreadable.filter(({ table }) => !isOurs(table))
  return [
    ...(await foreignNftFindings(suspects(listing, rules, isOurs), rules, ruleText)),
    ...unread.map(({ family, table }) => unknown('foreign-nft', `nft cannot list table ${family} ${table} as JSON`)),
  ]
}

function checkForwarding({ needs, config }: Examined): Finding[] {
  // what a listener on a bridge does not take crosses it without being forwarded
  const taking = config.listeners.filter(({ intercept, paths }) => intercept !== 'none' && paths.includes('forwarded'))
  const families = new Set<Family>([...taking.flatMap((listener) => listener.families), ...needs.forwardedFamilies])
  const findings = [...families].sort().map((family) =>
    forwardingFinding({
      family,
      on: readSysctl(forwardingKey(family)) === '1',
      needsForwarding: needs.forwardedFamilies.includes(family),
      bypasses: needs.bypassedFamilies.includes(family),
      taken: taking.some((listener) => listener.families.includes(family)),
    }),
  )
  return findings.filter((finding) => finding !== undefined)
}

async function checkServerRoutes(examined: Examined): Promise<Finding[]> {
  const { needs, links, clientLinks: receiving } = examined
  const found = await Promise.all(
    needs.families.map(async (family) => {
      const servers = namedServers(examined).filter(({ address }) => familyOf(address) === family)
      const named = await Promise.all(
        servers.map(async (server) => ({ server: formatEndpoint(server), way: await wayTo({ to: server.address }) })),
      )
      const routes = await readMainRoutes(family)
      return serverRouteFindings({
        family,
        routes,
        links,
        clientLinks: receiving,
        bridges: bridgesOf(examined, family),
        named,
      })
    }),
  )
  return found.flat()
}

/** The bridges whose frames are taken, where listeners of that family take nothing else. */
function bridgesOf({ config, links }: Examined, family: Family): string[] {
  const taking = config.listeners.filter(({ intercept, families }) => intercept !== 'none' && families.includes(family))
  if (!taking.every(({ paths }) => paths.every((path) => path === 'bridged'))) return []
  return bridgesOfLinks(taking.flatMap((listener) => clientLinks(listener, links)))
}

/** Servers that the config or the operator names by address. */
function namedServers({ config, server }: Examined): Endpoint[] {
  const named = config.listeners.flatMap(({ to }) => {
    const address = to && parseAddress(to.host)
    return address === undefined ? [] : [{ address, port: to!.port }]
  })
  return [...named, ...config.forwards.map(({ to }) => to), ...(server === undefined ? [] : [server])]
}

function checkMtu({ needs, links, clientLinks }: Examined): Finding[] {
  return mtuFindings({ families: needs.families, clientSide: clientLinks, serverSide: links })
}

function ownAddresses(facts: Examined['facts']): ReadonlySet<string> {
  return new Set(['0.0.0.0', '::', '127.0.0.1', '::1', ...facts.interfaces.flatMap(({ addresses }) => addresses)])
}

function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1')
  } catch {
    return undefined
  }
}

import { LimpidError } from '../errors.ts'
import type { Backend, FoundRules, OwnedRules, Role } from './backend.ts'
import { Cleaner } from './cleaner.ts'
import { isUntouched } from './interception.ts'
import {
  chainsVersion,
  checkRules,
  type FoundChains,
  listChainsWithCounters,
  listOurChains,
  loadChains,
  removeChains,
} from './iptables-commands.ts'
import { CHAIN_COMMENT, type ChainProgram, chainPrefix } from './iptables-text.ts'
import type { Plan } from './plan.ts'
import type { Script } from './script.ts'

const PROGRAMS: readonly ChainProgram[] = ['iptables-restore', 'ip6tables-restore', 'ebtables-restore']

/** iptables, ip6tables and ebtables: each table of each program changes at once; a child of ours removes them when we die. */
export const iptablesBackend: Backend = {
  name: 'iptables',
  label: (rules, role) => `iptables chains ${prefixOf(rules.nftTable, role)}`,
  probe: async (plan) => {
    for (const { program, table, rule, what } of probesFor(plan)) {
      const answer = await checkRules(program, table, [rule])
      if (answer !== undefined) throw missing(what, answer)
    }
    return { canOwn: true, notices: [] }
  },
  version: () => chainsVersion('iptables-restore'),
  list: async (rules, role) => {
    const name = prefixOf(rules.nftTable, role)
    const found = (await listOurChains()).filter((chains) => chains.name === name)
    return found.length === 0 ? undefined : listingOf(found)
  },
  listWithCounters: async ({ name }) => {
    const found = (await listOurChains()).filter((chains) => chains.name === name)
    const listings = await Promise.all(
      found.map(async ({ program }) => `# ${program}\n${await listChainsWithCounters(program, name)}`),
    )
    return listings.join('')
  },
  listOurs: async () => {
    const found = await listOurChains()
    const names = [...new Set(found.map(({ name }) => name))]
    return names.map((name): FoundRules => {
      const listing = listingOf(found.filter((chains) => chains.name === name))
      const role = name.endsWith('-guard') ? 'guard' : 'main'
      return {
        backend: 'iptables',
        label: `iptables chains ${name}`,
        name,
        role,
        owned: false,
        listing,
        digest: digestOf(listing),
      }
    })
  },
  digest: digestOf,
  countRules: (listing) => listing.split('\n').filter((line) => line.startsWith('-A ')).length,
  load: async (rules, role, scripts) => {
    const name = prefixOf(rules.nftTable, role)
    try {
      for (const script of scripts) await loadChains(asChains(script))
      const surplus = (await listOurChains()).filter(
        (found) => found.name === name && !scripts.some(({ program }) => program === found.program),
      )
      for (const { program } of surplus) await removeChains(program, name)
    } catch (error) {
      await removeAll(name).catch(() => {})
      throw error
    }
  },
  remove: removeAll,
  own: async (plan, onLost): Promise<OwnedRules> => {
    const name = prefixOf(plan.rules.nftTable, 'main')
    const cleaner = Cleaner.start(
      PROGRAMS.filter((program) => plan.main.some((script) => script.program === program)).map((program) => ({
        program,
        name,
      })),
      onLost,
    )
    try {
      await iptablesBackend.load(plan.rules, 'main', plan.main)
    } catch (error) {
      await cleaner.close()
      throw error
    }
    return { close: () => cleaner.close(), cleaner: cleaner.process }
  },
  isForeign: async () => false, // whatever has our names is ours
}

function prefixOf(nftTable: string, role: Role): string {
  return role === 'main' ? chainPrefix(nftTable) : `${chainPrefix(nftTable)}-guard`
}

function listingOf(found: readonly FoundChains[]): string {
  return found.map(({ program, listing }) => `# ${program}\n${listing}`).join('')
}

/** Those of all programs: a jump to our chains names that of its script. */
function digestOf(text: string): string | undefined {
  const found = [
    ...text.matchAll(new RegExp(`--comment "${CHAIN_COMMENT} ([0-9a-f]{12})"`, 'g')),
    ...text.matchAll(/^:\S+-d([0-9a-f]{12})\b/gm),
  ]
  return found.length === 0 ? undefined : [...new Set(found.map(([, digest]) => digest))].sort().join('+')
}

async function removeAll(name: string): Promise<void> {
  const found = (await listOurChains()).filter((chains) => chains.name === chainPrefix(name) || chains.name === name)
  for (const chains of found) await removeChains(chains.program, chains.name)
}

function asChains(script: Script): Script & { program: ChainProgram } {
  const { program } = script
  if (program === 'nft') throw new Error('a script of nft is none of iptables')
  return { ...script, program }
}

interface Probe {
  readonly program: ChainProgram
  readonly table: string
  readonly rule: string
  readonly what: string
}

function probesFor({ interceptions, ipRules }: Plan): Probe[] {
  const families = new Set([...interceptions.map(({ family }) => family), ...ipRules.map(({ family }) => family)])
  return [...families].flatMap((family) => {
    const program = family === 4 ? 'iptables-restore' : ('ip6tables-restore' as const)
    const own = interceptions.filter((one) => one.family === family)
    const probes: Probe[] = []
    if (own.some(({ listener }) => listener.intercept === 'tproxy')) {
      const rule = `-p tcp -j TPROXY --on-port 1 --on-ip ${family === 4 ? '127.0.0.1' : '::1'} --tproxy-mark 0x1/0x1`
      probes.push({ program, table: 'mangle', rule, what: 'TPROXY (module xt_TPROXY)' })
    }
    if (ipRules.some((rule) => rule.family === family)) {
      const rule = '-p tcp -m socket --transparent -j ACCEPT'
      probes.push({ program, table: 'mangle', rule, what: 'socket match (module xt_socket)' })
    }
    if (own.some((one) => !isUntouched(one))) {
      probes.push({ program, table: 'nat', rule: '-p tcp -j REDIRECT --to-ports 1', what: 'REDIRECT (xt_REDIRECT)' })
    }
    return probes
  })
}

function missing(what: string, answer: string): LimpidError {
  if (/Permission denied|Operation not permitted/.test(answer)) {
    return new LimpidError(
      'LIMPID_CAPABILITY',
      'cannot ask the kernel about iptables rules: CAP_NET_ADMIN is missing',
      {
        cure: 'run as root or with CAP_NET_ADMIN as an ambient capability',
      },
    )
  }
  const untouched = /TPROXY|socket/.test(what)
  return new LimpidError('LIMPID_KERNEL', `this kernel or iptables has no ${what}: ${answer}`, {
    cure: untouched
      ? 'intercept with redirect, which needs conntrack instead (--intercept redirect)'
      : 'use a kernel with that module',
  })
}

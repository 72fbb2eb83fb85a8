import { LimpidError } from '../errors.ts'
import { familyOf } from '../net/address.ts'
import type { Backend, FoundRules, OwnedRules, Role } from './backend.ts'
import { Cleaner } from './cleaner.ts'
import { isUntouched } from './interception.ts'
import {
  chainsDigest,
  chainsVersion,
  checkRules,
  type FoundChains,
  listChainsWithCounters,
  listOurChains,
  loadChains,
  type ProbeRule,
  removeChains,
} from './iptables-commands.ts'
import { programOf } from './iptables-listeners.ts'
import { type ChainProgram, chainPrefix } from './iptables-text.ts'
import type { Plan } from './plan.ts'
import type { Script } from './script.ts'

const MIN_LIFE_MS = 1_000 // a cleaner that ends sooner is killed on purpose
const PROGRAMS: readonly ChainProgram[] = ['iptables-restore', 'ip6tables-restore', 'ebtables-restore']

/** iptables, ip6tables and ebtables: each table of each program changes at once; a child of ours removes them when we die. */
export const iptablesBackend: Backend = {
  name: 'iptables',
  label: (rules, role) => `iptables chains ${prefixOf(rules.nftTable, role)}`,
  probe: async (plan) => {
    const probes = probesFor(plan)
    const simulated = (process.env.LIMPID_PROBE_FAIL ?? '').split(',') // for tests, as with nft
    for (const program of PROGRAMS) {
      const asked = probes.filter((probe) => probe.program === program)
      const isSimulated = asked.some(({ feature }) => simulated.includes(feature))
      if (asked.length === 0 || (!isSimulated && (await checkRules(program, asked)) === undefined)) continue
      for (const probe of asked) {
        const answer = simulated.includes(probe.feature) ? 'simulated' : await checkRules(program, [probe])
        if (answer !== undefined) throw missing(probe.what, answer)
      }
    }
    return { canOwn: true, notices: [] }
  },
  version: () => chainsVersion('iptables-restore'),
  list: async (rules) => {
    const all = await listOurChains()
    const listing = (role: Role) => {
      const found = all.filter(({ name }) => name === prefixOf(rules.nftTable, role))
      return found.length === 0 ? undefined : listingOf(found)
    }
    return { main: listing('main'), guard: listing('guard') }
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
        digest: chainsDigest(listing),
      }
    })
  },
  digest: chainsDigest,
  countRules: (listing) => listing.split('\n').filter((line) => line.startsWith('-A ')).length,
  load: async (rules, role, scripts) => {
    const name = prefixOf(rules.nftTable, role)
    const before = (await listOurChains()).filter((found) => found.name === name)
    const surplus = before.filter((found) => !scripts.some(({ program }) => program === found.program))
    try {
      await Promise.all([
        ...scripts.map((script) => loadChains(asChains(script), listingIn(before, script.program))),
        ...surplus.map(({ program, listing }) => removeChains(program, name, listing)),
      ])
    } catch (error) {
      if (before.length === 0) await removeAll(name).catch(() => {}) // else each table is as it was, and goes on doing its work
      throw error
    }
  },
  remove: removeAll,
  own: async (plan, onLost): Promise<OwnedRules> => {
    const name = prefixOf(plan.rules.nftTable, 'main')
    const programs = PROGRAMS.filter((program) => plan.main.some((script) => script.program === program))
    const chains = programs.map((program) => ({ program, name }))
    const start = (): Cleaner => {
      const startedAt = performance.now()
      return Cleaner.start(chains, (error) => {
        if (performance.now() - startedAt < MIN_LIFE_MS) onLost(error)
        else cleaner = start()
      })
    }
    let cleaner = start()
    try {
      await iptablesBackend.load(plan.rules, 'main', plan.main)
    } catch (error) {
      await cleaner.close()
      throw error
    }
    return { isShared: true, close: () => cleaner.close(), cleaner: cleaner.process }
  },
  isForeign: async () => false, // whatever has our names is ours
}

function prefixOf(nftTable: string, role: Role): string {
  return role === 'main' ? chainPrefix(nftTable) : `${chainPrefix(nftTable)}-guard`
}

function listingOf(found: readonly FoundChains[]): string {
  return found.map(({ program, listing }) => `# ${program}\n${listing}`).join('')
}

async function removeAll(name: string): Promise<void> {
  const found = (await listOurChains()).filter((chains) => chains.name === chainPrefix(name) || chains.name === name)
  await Promise.all(found.map(({ program, name, listing }) => removeChains(program, name, listing)))
}

function listingIn(found: readonly FoundChains[], program: string): string {
  return found.find((chains) => chains.program === program)?.listing ?? ''
}

function asChains(script: Script): Script & { program: ChainProgram } {
  const { program } = script
  if (program === 'nft') throw new Error('a script of nft is none of iptables')
  return { ...script, program }
}

interface Probe extends ProbeRule {
  readonly program: ChainProgram
  /** As LIMPID_PROBE_FAIL calls it. */
  readonly feature: string
  readonly what: string
}

function probesFor({ interceptions, forwards, ipRules, main }: Plan): Probe[] {
  const ofFamily = ([4, 6] as const).flatMap((family) => {
    const program = programOf(family)
    const text = main.find((script) => script.program === program)?.text ?? ''
    if (text === '') return []
    const own = interceptions.filter((one) => one.family === family)
    const rewrites = own.some((one) => !isUntouched(one)) || forwards.some(({ to }) => familyOf(to.address) === family)
    const tproxy = `-p tcp -j TPROXY --on-port 1 --on-ip ${family === 4 ? '127.0.0.1' : '::1'} --tproxy-mark 0x1/0x1`
    const probes: (Omit<Probe, 'program'> & { readonly needed: boolean })[] = [
      {
        needed: own.some(({ listener }) => listener.intercept === 'tproxy'),
        ...{ table: 'mangle', feature: 'tproxy', rule: tproxy, what: 'TPROXY (module xt_TPROXY)' },
      },
      {
        needed: ipRules.some((rule) => rule.family === family),
        ...{
          table: 'mangle',
          feature: 'socket',
          rule: '-p tcp -m socket --transparent -j ACCEPT',
          what: 'socket match (module xt_socket)',
        },
      },
      {
        needed: text.includes('--restore-skmark'),
        ...{
          table: 'mangle',
          feature: 'skmark',
          rule: '-p udp -m socket --transparent --restore-skmark -j ACCEPT',
          what: 'socket match with --restore-skmark (module xt_socket, revision 3)',
        },
      },
      {
        needed: rewrites,
        ...{
          table: 'nat',
          feature: 'nat',
          rule: '-p tcp -j REDIRECT --to-ports 1',
          what: 'REDIRECT (module xt_REDIRECT)',
        },
      },
      {
        needed: text.includes('-j CONNMARK'),
        ...{
          table: 'mangle',
          feature: 'connmark',
          rule: '-j CONNMARK --set-xmark 0x1/0x1',
          what: 'CONNMARK (module xt_connmark)',
        },
      },
      {
        needed: text.includes('--zone-orig'),
        ...{
          table: 'raw',
          feature: 'zone',
          rule: '-j CT --zone-orig 1',
          what: 'CT --zone-orig (module xt_CT, CONFIG_NF_CONNTRACK_ZONES)',
        },
      },
      {
        needed: text.includes('-m connlabel'),
        ...{
          table: 'mangle',
          feature: 'connlabel',
          rule: '-m connlabel --label 1 -j ACCEPT',
          what: 'connlabel match (module xt_connlabel)',
        },
      },
    ]
    return probes.filter(({ needed }) => needed).map((probe) => ({ ...probe, program }))
  })
  const bridged = main.some(({ program }) => program === 'ebtables-restore')
  const redirect = {
    table: 'nat',
    feature: 'bridge',
    rule: '-p IPv4 -j redirect',
    what: 'redirect (module ebt_redirect)',
  }
  return bridged ? [...ofFamily, { ...redirect, program: 'ebtables-restore' }] : ofFamily
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

import { LimpidError } from '../errors.ts'
import { checkText } from './nft-commands.ts'
import type { Plan } from './plan.ts'

/** What a kernel must know for our rules; `owner` can be done without. */
export type KernelFeature = 'tproxy' | 'socket' | 'fib' | 'nat' | 'zone' | 'bridge' | 'owner'

const HOOK = 'type filter hook prerouting priority mangle;'

interface Probe {
  readonly family?: 'bridge'
  readonly flags?: string
  readonly hook?: string
  readonly rules: readonly string[]
}

const PROBES: Record<KernelFeature, Probe> = {
  tproxy: {
    rules: [
      'meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:1 meta mark set 1 accept',
      'meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:1 meta mark set 1 accept',
    ],
  },
  socket: { rules: ['socket transparent 1 socket wildcard 1 accept'] },
  fib: { rules: ['fib daddr type local return'] },
  nat: {
    hook: 'type nat hook prerouting priority dstnat;',
    rules: ['meta l4proto tcp redirect to :1', 'meta nfproto ipv4 meta l4proto tcp dnat ip to 192.0.2.1:1'],
  },
  zone: { hook: 'type filter hook output priority raw;', rules: ['meta l4proto tcp ct original zone set 1'] },
  bridge: {
    family: 'bridge',
    hook: 'type filter hook prerouting priority dstnat;', // nft knows no `mangle` here
    rules: ['meta l4proto tcp meta pkttype set host ether daddr set 02:00:00:00:00:01 accept'],
  },
  owner: { flags: 'flags owner', rules: [] },
}

const MEANING: Record<Exclude<KernelFeature, 'owner'>, string> = {
  tproxy: 'tproxy (module nft_tproxy, CONFIG_NFT_TPROXY)',
  socket: 'socket transparent and wildcard (module nft_socket, CONFIG_NFT_SOCKET, Linux 5.10)',
  fib: 'fib (module nft_fib_inet, CONFIG_NFT_FIB_INET)',
  nat: 'redirect and dnat (modules nft_redir and nft_nat, CONFIG_NFT_NAT)',
  zone: 'conntrack zones (CONFIG_NF_CONNTRACK_ZONES)',
  bridge: 'family bridge (CONFIG_NF_TABLES_BRIDGE)',
}

export interface KernelProbe {
  /** Whether nft tables can belong to a process (Linux 5.12); else rules survive a kill until the next start. */
  readonly owner: boolean
}

/**
 * Asks the kernel for what our rules need, by a transaction that it checks and then drops, so nothing changes.
 * LIMPID_PROBE_FAIL (a list such as `tproxy,socket`) makes those probes fail, for tests.
 * @throws LimpidError LIMPID_KERNEL that names what is missing; LIMPID_CAPABILITY when this process may not ask.
 */
export async function probeKernel(plan: Plan): Promise<KernelProbe> {
  const simulated = (process.env.LIMPID_PROBE_FAIL ?? '').split(',')
  const features = neededFeatures(plan)
  const answers = new Map<KernelFeature, string | undefined>()
  const all = simulated.some((name) => name !== '') ? 'simulated' : await checkText(probeText(features))
  for (const feature of features) {
    if (all === undefined) answers.set(feature, undefined)
    else answers.set(feature, simulated.includes(feature) ? 'simulated' : await checkText(probeText([feature])))
  }
  for (const feature of features) {
    const answer = answers.get(feature)
    if (answer !== undefined && feature !== 'owner') throw missing(feature, answer)
  }
  return { owner: answers.get('owner') === undefined }
}

function neededFeatures({ interceptions, forwards, ipRules, main }: Plan): KernelFeature[] {
  const modes = new Set(interceptions.map(({ listener }) => listener.intercept))
  const isRewritten = modes.has('redirect') || modes.has('dnat')
  const needs: Record<KernelFeature, boolean> = {
    tproxy: modes.has('tproxy'),
    socket: ipRules.length > 0,
    fib: true,
    nat: isRewritten || forwards.length > 0,
    zone: main.some(({ text }) => text.includes('zone set')),
    bridge: main.some(({ name }) => name.startsWith('bridge ')),
    owner: true,
  }
  return (Object.keys(needs) as KernelFeature[]).filter((feature) => needs[feature])
}

function missing(feature: keyof typeof MEANING, answer: string): LimpidError {
  if (/Operation not permitted/.test(answer)) {
    return new LimpidError('LIMPID_CAPABILITY', 'cannot ask the kernel about nft rules: CAP_NET_ADMIN is missing', {
      cure: 'run as root or with CAP_NET_ADMIN as an ambient capability',
    })
  }
  return new LimpidError('LIMPID_KERNEL', `this kernel or nft has no nft ${MEANING[feature]}: ${answer}`, {
    cure: CURES[feature] ?? 'use a kernel with that module (Debian: linux-image-amd64)',
  })
}

const WITHOUT_TPROXY =
  'use a kernel with that module (Debian: linux-image-amd64), or intercept with redirect, which needs conntrack instead (--intercept redirect)'
const CURES: Partial<Record<KernelFeature, string>> = { tproxy: WITHOUT_TPROXY, socket: WITHOUT_TPROXY }

/** A table for each probe, in one transaction. */
function probeText(features: readonly KernelFeature[]): string {
  const lines = features.flatMap((feature) => {
    const { family = 'inet', flags, hook = HOOK, rules } = PROBES[feature]
    const head = flags === undefined ? [] : [flags]
    return [`table ${family} limpid-probe-${feature} {`, ...head, 'chain probe {', hook, ...rules, '}', '}']
  })
  return `${lines.join('\n')}\n`
}

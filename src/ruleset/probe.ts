import { LimpidError } from '../errors.ts'
import { checkText } from './nft-commands.ts'

/** What a kernel must know for our rules; `owner` can be done without. */
export type KernelFeature = 'tproxy' | 'socket' | 'fib' | 'owner'

const HOOK = 'type filter hook prerouting priority mangle;'

const PROBES: Record<KernelFeature, { readonly flags?: string; readonly rules: readonly string[] }> = {
  tproxy: {
    rules: [
      'meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:1 meta mark set 1 accept',
      'meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:1 meta mark set 1 accept',
    ],
  },
  socket: { rules: ['socket transparent 1 socket wildcard 1 accept'] },
  fib: { rules: ['fib daddr type local return'] },
  owner: { flags: 'flags owner', rules: [] },
}

const MEANING: Record<Exclude<KernelFeature, 'owner'>, string> = {
  tproxy: 'tproxy (module nft_tproxy, CONFIG_NFT_TPROXY)',
  socket: 'socket transparent and wildcard (module nft_socket, CONFIG_NFT_SOCKET, Linux 5.10)',
  fib: 'fib (module nft_fib_inet, CONFIG_NFT_FIB_INET)',
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
export async function probeKernel(): Promise<KernelProbe> {
  const simulated = (process.env.LIMPID_PROBE_FAIL ?? '').split(',')
  const features = Object.keys(PROBES) as KernelFeature[]
  const answers = new Map<KernelFeature, string | undefined>()
  const all = simulated.some((name) => name !== '') ? 'simulated' : await checkText(probeText(features))
  for (const feature of features) {
    if (all === undefined) answers.set(feature, undefined)
    else answers.set(feature, simulated.includes(feature) ? 'simulated' : await checkText(probeText([feature])))
  }
  for (const feature of ['tproxy', 'socket', 'fib'] as const) {
    const answer = answers.get(feature)
    if (answer !== undefined) throw missing(feature, answer)
  }
  return { owner: answers.get('owner') === undefined }
}

function missing(feature: keyof typeof MEANING, answer: string): LimpidError {
  if (/Operation not permitted/.test(answer)) {
    return new LimpidError('LIMPID_CAPABILITY', 'cannot ask the kernel about nft rules: CAP_NET_ADMIN is missing', {
      cure: 'run as root or with CAP_NET_ADMIN as an ambient capability',
    })
  }
  return new LimpidError('LIMPID_KERNEL', `this kernel or nft has no nft ${MEANING[feature]}: ${answer}`, {
    cure: 'use a kernel with that module (Debian: linux-image-amd64), or let clients dial Limpid itself: --no-rules --source proxy',
  })
}

function probeText(features: readonly KernelFeature[]): string {
  const probes = features.map((feature) => PROBES[feature])
  const lines = [
    'table inet limpid-probe {',
    ...probes.map(({ flags }) => flags).filter((flags) => flags !== undefined),
    'chain probe {',
    HOOK,
    ...probes.flatMap(({ rules }) => rules),
    '}',
    '}',
  ]
  return `${lines.join('\n')}\n`
}

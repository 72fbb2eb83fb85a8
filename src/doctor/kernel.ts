import type { Config, ListenerConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { firstLine, type ProgramResult, run } from '../sys/program.ts'
import { type Finding, note, ok, unknown, wrong } from './finding.ts'

/** Something that the kernel must know, asked for by really adding a rule that uses it. */
interface Feature {
  readonly name: string
  /** The kernel's option and module. */
  readonly from: string
  readonly table: string
  /** Only comfort is lost without it. */
  readonly dispensable?: string
  wanted(listener: ListenerConfig): boolean
}

const isForeign = ({ source }: ListenerConfig): boolean => source !== 'proxy'
const isNat = ({ intercept }: ListenerConfig): boolean => intercept === 'redirect' || intercept === 'dnat'
const takes = ({ intercept }: ListenerConfig): boolean => intercept !== 'none'

const PREROUTING = 'type filter hook prerouting priority mangle;'
const NAT = 'type nat hook prerouting priority dstnat;'
const inet = (hook: string, ...rules: readonly string[]): string =>
  ['table inet limpid-doctor {', 'chain probe {', hook, ...rules, '}', '}', ''].join('\n')

const FEATURES: readonly Feature[] = [
  {
    name: 'nft tproxy',
    from: 'CONFIG_NFT_TPROXY, module nft_tproxy',
    table: inet(
      PREROUTING,
      'meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:1 meta mark set 1 accept',
      'meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:1 meta mark set 1 accept',
    ),
    wanted: ({ intercept }) => intercept === 'tproxy',
  },
  {
    name: 'nft socket',
    from: 'CONFIG_NFT_SOCKET, module nft_socket, Linux 5.10',
    table: inet(PREROUTING, 'socket transparent 1 socket wildcard 1 accept'),
    wanted: (listener) => listener.intercept === 'tproxy' || listener.intercept === 'mark' || isForeign(listener),
  },
  {
    name: 'nft fib',
    from: 'CONFIG_NFT_FIB_INET, module nft_fib_inet',
    table: inet(PREROUTING, 'fib daddr type local return'),
    wanted: takes,
  },
  {
    name: 'nft redirect',
    from: 'CONFIG_NFT_REDIR, module nft_redir, CONFIG_NF_NAT',
    table: inet(NAT, 'meta l4proto tcp redirect to :1-2 random'),
    wanted: ({ intercept }) => intercept === 'redirect',
  },
  {
    name: 'nft dnat',
    from: 'CONFIG_NFT_NAT, module nft_nat, CONFIG_NF_NAT',
    table: inet(NAT, 'meta l4proto tcp dnat ip to 127.0.0.1:1'),
    wanted: ({ intercept }) => intercept === 'dnat',
  },
  {
    name: 'conntrack zones',
    from: 'CONFIG_NF_CONNTRACK_ZONES, module nft_ct',
    table: inet('type filter hook prerouting priority raw;', 'meta l4proto tcp ct zone set 1'),
    wanted: (listener) => isNat(listener) && isForeign(listener),
  },
  {
    name: 'nft bridge tables',
    from: 'CONFIG_NF_TABLES_BRIDGE',
    table: [
      'table bridge limpid-doctor {',
      'chain probe {',
      'type filter hook prerouting priority 0;',
      'meta pkttype set host',
      '}',
      '}',
      '',
    ].join('\n'),
    wanted: ({ paths }) => paths.includes('bridged'),
  },
  {
    name: 'nft tables that belong to a process',
    from: 'Linux 5.12',
    table: 'table inet limpid-doctor {\nflags owner\n}\n',
    dispensable: 'after a kill the rules stay until the next start',
    wanted: takes,
  },
]

const CURE = 'apt-get install linux-image-amd64 (a kernel with that module)'

/** Adds each in an empty network namespace, which ends with the program that made it. */
export async function kernelFindings(config: Config): Promise<Finding[]> {
  const wanted = FEATURES.filter((feature) => config.listeners.some(feature.wanted))
  if (wanted.length === 0) return []
  const failing = (process.env.LIMPID_PROBE_FAIL ?? '').split(',') // as in ruleset/probe.ts, for tests
  const findings = await Promise.all(
    wanted.map(async (feature): Promise<Finding | undefined> => {
      const simulated = failing.some((name) => name !== '' && feature.name === `nft ${name}`)
      const refusal = simulated ? 'simulated' : await tryInScratch(feature.table)
      if (refusal === undefined) return undefined
      if (refusal instanceof LimpidError) return unknown('kernel', `cannot try ${feature.name}: ${refusal.message}`)
      const what = `this kernel or nft has no ${feature.name} (${feature.from}): ${refusal}`
      return feature.dispensable === undefined
        ? wrong('kernel', what, CURE)
        : note('kernel', `${what}; ${feature.dispensable}`, CURE)
    }),
  )
  const failed = findings.filter((finding) => finding !== undefined)
  if (failed.length > 0) return failed
  return [ok('kernel', `this kernel has ${wanted.map(({ name }) => name).join(', ')}`)]
}

/** Nothing when the kernel took it; why not; or an error when there could be no namespace. */
async function tryInScratch(text: string): Promise<string | undefined | LimpidError> {
  let result: ProgramResult
  try {
    result = await inNamespace(['--net'], text)
    // without CAP_SYS_ADMIN or CAP_NET_ADMIN: as root of a user namespace of our own
    if (isRefused(result)) result = await inNamespace(['--user', '--map-root-user', '--net'], text)
  } catch (error) {
    if (error instanceof LimpidError) return error
    throw error
  }
  if (result.code === 0) return undefined
  const why = firstLine(result.stderr) ?? `exit code ${result.code}`
  return isRefused(result) ? new LimpidError('LIMPID_NAMESPACE', why) : why
}

function inNamespace(namespaces: readonly string[], text: string): Promise<ProgramResult> {
  return run('unshare', [...namespaces, '--', 'nft', '-f', '-'], { input: text })
}

function isRefused({ code, stderr }: ProgramResult): boolean {
  return code !== 0 && /^unshare: |Operation not permitted/m.test(stderr)
}

import type { Finding } from './finding.ts'
import { note, ok, wrong } from './finding.ts'
import { type Link, sysctlKey } from './links.ts'

export interface SourceValidation {
  /** The value of `net.ipv4.conf.NAME.KEY`, NAME being an interface or `all`; 0 where there is none. */
  value(name: string, key: 'rp_filter' | 'src_valid_mark'): number
  /** Those that packets of our flows come in by, from clients and from servers. */
  readonly links: readonly Link[]
  /** Source prefixes of the config that this link takes although their route goes back by another one. */
  astray(link: Link): readonly { readonly sources: string; readonly routedBy: string }[]
  /** Packets that rp_filter has dropped since boot (TcpExt IPReversePathFilter). */
  readonly dropped: number
  /** Whether the ip rule that keeps our mark out of the kernel's look at sources is there, or is planned. */
  readonly detour: boolean
}

const PATH = 'net.ipv4.conf'
const STRICT = 1

/**
 * rp_filter: the larger of `all` and the interface's own counts; 1 wants the way back to a packet's source to be the very
 * interface it came by, 2 wants any way back (ip-sysctl.rst). There is no such check for IPv6.
 */
export function rpFilterFindings({ value, links, astray, dropped }: SourceValidation): Finding[] {
  const strict = links.filter(({ name }) => Math.max(value('all', 'rp_filter'), value(name, 'rp_filter')) === STRICT)
  if (strict.length === 0) return [ok('rp-filter', 'rp_filter is strict on no interface that our flows use')]
  return strict.map((link) => {
    const values = `all=${value('all', 'rp_filter')}, ${link.name}=${value(link.name, 'rp_filter')}`
    const what = `rp_filter is 1 (strict) on ${link.name} (${values}; the larger counts)`
    // a larger value on the interface also overrules `all`
    const cure = `sysctl -w ${sysctlKey(PATH, link.name, 'rp_filter')}=2`
    const [lost] = astray(link)
    if (lost !== undefined) {
      const drops = `packets from ${lost.sources} die there, since the route back to them goes by ${lost.routedBy}`
      return wrong('rp-filter', `${what}: ${drops} (${dropped} packets dropped since boot)`, cure)
    }
    const harmless = `harmless while the route back to every sender goes by ${link.name}`
    return note('rp-filter', `${what}: ${harmless}; others' packets die (${dropped} since boot)`, cure)
  })
}

/** src_valid_mark: whether the look at a packet's source minds its mark; `all` or the interface's own (ip-sysctl.rst). */
export function srcValidMarkFindings({ value, links, detour }: SourceValidation): Finding[] {
  const names = ['all', ...links.map(({ name }) => name)].filter((name) => value(name, 'src_valid_mark') === 1)
  if (names.length === 0) return [ok('src-valid-mark', 'src_valid_mark is 0 where our flows come in')]
  return names.map((name) => {
    const what = `src_valid_mark is 1 on ${name}`
    const cure = `sysctl -w ${sysctlKey(PATH, name, 'src_valid_mark')}=0`
    return detour
      ? note('src-valid-mark', `${what}: harmless, because our ip rules leave such looks at the source out`, cure)
      : wrong('src-valid-mark', `${what}: every packet with the intercept mark dies as a martian`, cure)
  })
}

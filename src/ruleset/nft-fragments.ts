import type { Family } from '../net/address.ts'

const TIMEOUT = '30s' // as long as a host waits for the rest of a datagram (net.ipv4.ipfrag_time, ip-sysctl.rst)
const SIZE = 65_536

/**
 * On a bridge nobody puts fragments together, and only the first one of a datagram has ports. Where that goes the others
 * follow, by addresses and identification (RFC 791 §3.2, RFC 8200 §4.5), if they come behind it.
 */
export interface BridgedFragments {
  /** Definitions of the sets. */
  readonly sets: readonly string[]
  /** Rules that note a first fragment. */
  readonly note: readonly string[]
  /** Rules for those that follow a first one that was noted; `end` is what becomes of them. */
  follow(end: string): readonly string[]
}

export function bridgedFragments(families: readonly Family[]): BridgedFragments {
  return {
    sets: families.flatMap((family) => [
      `set ${setOf(family)} {`,
      `\ttypeof ${IDENTITY[family]}`,
      '\tflags dynamic,timeout',
      `\ttimeout ${TIMEOUT}`,
      `\tsize ${SIZE}`,
      '}',
      '',
    ]),
    note: families.map((family) => `${IS_FIRST[family]} update @${setOf(family)} { ${IDENTITY[family]} }`),
    follow: (end) => families.map((family) => `${IS_LATER[family]} ${IDENTITY[family]} @${setOf(family)} ${end}`),
  }
}

const IDENTITY: Readonly<Record<Family, string>> = {
  4: 'ip saddr . ip daddr . ip id',
  6: 'ip6 saddr . ip6 daddr . frag id',
}

/** Offset 0, and more to come. */
const IS_FIRST: Readonly<Record<Family, string>> = {
  4: 'ip frag-off & 0x3fff == 0x2000',
  6: 'frag frag-off 0 frag more-fragments 1',
}

const IS_LATER: Readonly<Record<Family, string>> = {
  4: 'ip frag-off & 0x1fff != 0',
  6: 'frag frag-off != 0',
}

function setOf(family: Family): string {
  return `fragments${family}`
}

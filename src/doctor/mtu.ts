import type { Family } from '../net/address.ts'
import { type Finding, note, ok, wrong } from './finding.ts'
import type { Link } from './links.ts'

const IPV6_MINIMUM = 1_280 // RFC 8200 §5; below it Linux has no IPv6 on the interface

export interface MtuFacts {
  readonly families: readonly Family[]
  readonly clientSide: readonly Link[]
  /** Links that a server may be reached by; those of the client side too when no listener names interfaces. */
  readonly serverSide: readonly Link[]
}

export function mtuFindings({ families, clientSide, serverSide }: MtuFacts): Finding[] {
  const up = (links: readonly Link[]) =>
    links.filter((link) => link.up && link.name !== 'lo' && link.bridge === undefined)
  const all = [...new Set([...up(clientSide), ...up(serverSide)])]
  const findings: Finding[] = []
  if (families.includes(6)) {
    for (const { name, mtu } of all.filter((link) => link.mtu < IPV6_MINIMUM)) {
      const what = `${name} has MTU ${mtu}: no IPv6 there below ${IPV6_MINIMUM}`
      findings.push(wrong('mtu', what, `ip link set ${name} mtu ${IPV6_MINIMUM}`))
    }
  }
  const smallest = all.toSorted((a, b) => a.mtu - b.mtu)[0]
  for (const link of all.filter(({ mtu }) => mtu > (smallest?.mtu ?? 0))) {
    const what = `MTU ${link.mtu} on ${link.name} and ${smallest!.mtu} on ${smallest!.name} differ`
    const harmless =
      'harmless to relayed TCP, whose sides each announce their own; what is forwarded needs path MTU discovery'
    findings.push(note('mtu', `${what}: ${harmless}`, `ip link set ${link.name} mtu ${smallest!.mtu}`))
  }
  return findings.length > 0 || smallest === undefined
    ? findings
    : [ok('mtu', `MTU ${smallest.mtu} on ${all.map(({ name }) => name).join(', ')}`)]
}

import { type Endpoint, type Family, familyOf, isLoopback, isWildcard } from '../net/address.ts'
import type { PortRange } from '../net/ports.ts'
import { DEFAULT_LISTEN_PORT } from './defaults.ts'
import { missing, type Report } from './problem.ts'
import type { Intercept, Path } from './types.ts'
import type { ListenValue } from './values.ts'

const ANY = { 4: '0.0.0.0', 6: '::' } as const
/** Loopback where that will do, so that nobody outside can dial the listener. */
const DEFAULT_ADDRESSES: Readonly<Record<Intercept, Readonly<Record<Family, string>>>> = {
  tproxy: { 4: '127.0.0.1', 6: '::1' },
  redirect: ANY,
  dnat: ANY,
  mark: ANY,
  none: ANY,
}

export interface ListenInput {
  readonly listen?: readonly ListenValue[] | undefined
  readonly paths?: readonly Path[] | undefined
  readonly ports?: readonly (readonly PortRange[])[] | undefined
}

/** Where a listener waits: every endpoint by itself. `index`: the listener's place in the list, from 0. */
export function chooseEndpoints(
  input: ListenInput,
  intercept: Intercept,
  families: readonly Family[],
  index: number,
  report: Report,
): readonly Endpoint[] {
  const port = DEFAULT_LISTEN_PORT + index
  const asked = input.listen ?? [{ ports: markPort(input, intercept) ?? { from: port, to: port } }]
  const endpoints = asked.flatMap(({ address, ports }) =>
    (address === undefined ? families.map((family) => DEFAULT_ADDRESSES[intercept][family]) : [address]).flatMap(
      (address) => portsOf(ports).map((port) => ({ address, port })),
    ),
  )
  if (intercept !== 'none') checkCount(endpoints, intercept, families, report)
  if (intercept === 'mark') checkMark(input, endpoints, report)
  if (intercept === 'dnat') checkDnat(input, endpoints, report)
  if (intercept === 'redirect') checkRedirect(input, endpoints, report)
  return endpoints
}

function checkCount(endpoints: readonly Endpoint[], intercept: Intercept, families: readonly Family[], report: Report) {
  for (const family of families) {
    const own = endpoints.filter(({ address }) => familyOf(address) === family)
    if (own.length <= 1) continue
    const ports = own.map(({ port }) => port).toSorted((a, b) => a - b)
    const isRange = ports.every((port, i) => port === ports[0]! + i)
    if (intercept === 'redirect' && isRange && new Set(own.map(({ address }) => address)).size === 1) continue
    const what = intercept === 'redirect' ? 'one address and one range of ports' : 'one endpoint'
    report({ path: ['listen'], message: `expected ${what} of IPv${family} for an intercepting listener, found more` })
    return
  }
}

/** Packets that are only marked keep their destination port: the listener must wait on that very port. */
function checkMark(input: ListenInput, endpoints: readonly Endpoint[], report: Report): void {
  const wanted = input.ports?.flat()
  const narrow = endpoints.find(({ address }) => !isWildcard(address))
  if (narrow !== undefined) {
    report({
      path: ['listen'],
      message: `expected a port alone, found ${narrow.address}: intercept mark changes no address, so the listener waits on all`,
    })
  }
  if (input.listen === undefined && wanted === undefined) {
    report(missing('ports', 'with intercept mark the listener waits on the very port that it takes'))
    return
  }
  const fits = wanted?.length === 1 && endpoints.every(({ port }) => port === wanted[0]!.from && port === wanted[0]!.to)
  const isOne = endpoints.every(({ port }) => port === endpoints[0]?.port)
  if (wanted === undefined ? !isOne : !fits) {
    report({
      path: [wanted === undefined ? 'listen' : 'ports'],
      message: 'expected one port, on which the listener waits: intercept mark changes no port',
    })
  }
}

function markPort(input: ListenInput, intercept: Intercept): PortRange | undefined {
  const [first, ...others] = input.ports?.flat() ?? []
  return intercept === 'mark' && others.length === 0 && first?.from === first?.to ? first : undefined
}

function checkDnat(input: ListenInput, endpoints: readonly Endpoint[], report: Report): void {
  if (input.listen === undefined) {
    report(missing('listen', 'with intercept dnat packets get the address of the listener as their destination'))
    return
  }
  const bad = endpoints.find(({ address }) => isWildcard(address) || isLoopback(address))
  if (bad === undefined) return
  report({
    path: ['listen'],
    message: `expected an address of this host that others can reach, found ${bad.address}: intercept dnat sends packets there`,
  })
}

/** REDIRECT sends packets to the receiving interface's own address, and what is made here to loopback. */
function checkRedirect({ paths = ['forwarded'] }: ListenInput, endpoints: readonly Endpoint[], report: Report): void {
  const isLocalOnly = paths.every((path) => path === 'local')
  const unreached = endpoints.find(({ address }) =>
    isLoopback(address) ? !isLocalOnly : !isWildcard(address) && paths.includes('local'),
  )
  if (unreached === undefined) return
  const where = isLoopback(unreached.address) ? "to the receiving interface's own address" : 'of this host to loopback'
  report({
    path: ['listen'],
    message: `expected a port alone, found ${unreached.address}: intercept redirect sends packets ${where}`,
  })
}

function portsOf({ from, to }: PortRange): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i)
}

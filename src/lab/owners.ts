import { ADDRESSES, type Addresses, BRIDGE_ADDRESSES } from './topology.ts'

/** Both topologies', by family. */
const HOSTS = ([ADDRESSES, BRIDGE_ADDRESSES] satisfies Addresses[]).flatMap((addresses) => [addresses[4], addresses[6]])

/** Every address of X, of both families and topologies. */
export const X_ADDRESSES: ReadonlySet<string> = new Set(HOSTS.flatMap(({ xy, xz }) => [xy, xz]))

/** Whose address it is, as a role; the address itself when it is of none of the three hosts. */
export function ownerOf(address: string): string {
  if (HOSTS.some(({ y }) => address === y)) return 'client'
  if (HOSTS.some(({ z }) => address === z)) return 'server'
  return X_ADDRESSES.has(address) ? 'proxy' : address
}

const HOST_NAMES: Readonly<Record<string, string>> = {
  client: 'Y',
  'client:port': 'Y with its port',
  proxy: 'X',
  server: 'Z',
}

/** `X` for `proxy`, and so on; other text stays. */
export function hostName(role: string): string {
  return HOST_NAMES[role] ?? role
}

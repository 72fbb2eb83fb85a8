import assert from 'node:assert/strict'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ListenerConfig, Path } from '../config/types.ts'
import type { Host } from '../lab/host.ts'
import { type Endpoint, type Family, formatEndpoint } from '../net/address.ts'
import { parsePrefix } from '../net/prefix.ts'
import { CLIENT, FAMILIES, type Gateway, raiseGateway, SERVER } from './gateway.fixture.ts'
import { type Bridge, listenerFor, type MODES, raiseBridge } from './iptables.fixture.ts'
import { anyOf, type DatagramOptions, Datagrams } from './udp.fixture.ts'

export const PATHS = ['forwarded', 'local', 'bridged'] as const
/** A second address of Y. */
export const EXCLUDED = { 4: '10.0.3.2', 6: 'fd00:3::2' } as const
/** The gateway's own address towards Z. */
export const PROXY_TO_Z = { 4: '10.0.4.1', 6: 'fd00:4::1' } as const
const BRIDGED = { 4: ['10.0.9.1', '10.0.9.2'], 6: ['fd00:9::1', 'fd00:9::2'] } as const

/** Of all ports. */
export const WIDE = { match: MATCH_ANY } as const
export const NOT_EXCLUDED = {
  ...MATCH_ANY,
  sources: Object.values(EXCLUDED).map((address) => parsePrefix(address)!),
}

export const at = (address: string, port: number): Endpoint => ({ address, port })
export const text = formatEndpoint

/** The gateway, and a bridge beside it; on port 80 and 81 both their servers answer `server saw PEER`. */
export interface Networks {
  readonly gateway: Gateway
  readonly bridge: Bridge
  close(): Promise<void>
}

export async function raiseNetworks(): Promise<Networks> {
  const gateway = await raiseGateway()
  const bridge = await raiseBridge()
  for (const line of [`-4 address add ${EXCLUDED[4]}/24 dev x`, `-6 address add ${EXCLUDED[6]}/64 dev x nodad`]) {
    await gateway.y.run('ip', line.split(' '))
  }
  const servers = [gateway.z, bridge.z].flatMap((on) =>
    FAMILIES.flatMap((family) =>
      [80, 81].map((port) => new Datagrams({ address: anyOf(family), port }, { on }).serve()),
    ),
  )
  return {
    gateway,
    bridge,
    close: async () => {
      for (const server of servers) server[Symbol.dispose]()
      await gateway.close()
      await bridge.close()
    },
  }
}

/** Who sends to whom on a path. */
export function endsOf({ gateway, bridge }: Networks, path: Path, family: Family) {
  const [near, far] = path === 'bridged' ? BRIDGED[family] : [CLIENT[family], SERVER[family]]
  const on: Host | undefined = { forwarded: gateway.y, bridged: bridge.y, local: undefined }[path]
  const place: DatagramOptions = on === undefined ? {} : { on }
  const address = path === 'local' ? PROXY_TO_Z[family] : near
  return { client: () => new Datagrams({ address, port: 0 }, place), server: { address: far, port: 80 } }
}

export function udpListener(
  mode: (typeof MODES)[number],
  path: Path,
  changes: Partial<ListenerConfig> = {},
): ListenerConfig {
  return listenerFor(mode, path, { protocols: ['udp'], ...changes })
}

/** The listener's sockets as the proxy makes them. */
export function listening({ intercept, listen, families }: ListenerConfig): Record<Family, Datagrams> & Disposable {
  assert.deepEqual(families, FAMILIES)
  const transparent = intercept === 'tproxy' || intercept === 'mark'
  const open = (family: Family) => {
    const endpoint = listen.find(({ address }) => address.includes(':') === (family === 6))!
    return new Datagrams(endpoint, { transparent, mark: DEFAULT_RULES.bypassMark })
  }
  const sockets = { 4: open(4), 6: open(6) }
  return {
    ...sockets,
    [Symbol.dispose]: () => {
      for (const family of FAMILIES) sockets[family][Symbol.dispose]()
    },
  }
}

/** Sends to a service, which answers as often, and nobody in between takes anything. */
export async function converse(asking: Datagrams, service: Endpoint): Promise<void> {
  for (const _ of [1, 2]) {
    asking.send('question', service)
    assert.equal(await asking.next(), `server saw ${text(asking.local)} from ${text(service)}`)
  }
}

import { Socket } from 'node:net'
import { LimpidError } from '../errors.ts'
import { type Endpoint, type Family, familyOf, formatEndpoint } from '../net/address.ts'
import { networkOf, parsePrefix, prefixContains } from '../net/prefix.ts'
import { setMark, setTransparent } from '../sys/options.ts'
import { bindSocket, closeFd, openTcp } from '../sys/socket.ts'
import type { Examined } from './examined.ts'
import { type Finding, ok, unknown, wrong } from './finding.ts'
import { returnRouteCommand } from './stalled-dials.ts'
import { readTcpCounters } from './tcp-counters.ts'
import { connectedNetworks, wayTo } from './ways.ts'

const WAIT_MS = 1_500 // a far server may need half a second

/** Whether a real server answers a dial; a refusal is an answer too. */
type Answer = 'answers' | 'silence' | { readonly failure: string }

/**
 * Dials a server that the operator named: as this host, and as one of its clients would be seen when a listener lends the
 * client's address. Two connections, closed as soon as they are answered.
 */
export async function probeServer(examined: Examined, server: Endpoint): Promise<Finding[]> {
  const { rules, listeners } = examined.config
  const shown = formatEndpoint(server)
  const own = await dial(server, undefined, rules.bypassMark)
  if (own !== 'answers') {
    const why = own === 'silence' ? `does not answer in ${WAIT_MS} ms` : `cannot be dialled: ${own.failure}`
    return [
      wrong(
        'server',
        `${shown} ${why}, not even this host's own address`,
        `ip route get ${server.address}; ping ${server.address}`,
      ),
    ]
  }
  if (listeners.every(({ source }) => source !== 'client' && source !== 'client-port')) {
    return [ok('server', `${shown} answers this host`)]
  }
  if (!examined.rulesAreThere) {
    return [
      unknown(
        'server',
        `${shown} answers this host; whether it answers clients' addresses cannot be seen without rules`,
      ),
    ]
  }
  const client = await someClient(examined, server)
  if (client === undefined) {
    return [
      unknown('server', `${shown} answers this host; no network of clients is known whose address could be tried`),
    ]
  }
  const before = readTcpCounters().reversePath
  const foreign = await dial(server, client.address, rules.bypassMark)
  if (foreign === 'answers')
    return [ok('server', `${shown} answers this host, and ${client.address} of the clients' ${client.network}`)]
  if (readTcpCounters().reversePath > before) {
    const what = `the answer of ${shown} to ${client.address}, an address of clients, is dropped by rp_filter on ${client.serverLink}`
    return [wrong('server', what, `sysctl -w net.ipv4.conf.${client.serverLink}.rp_filter=2`)]
  }
  const what = `${shown} answers this host, but not ${client.address}, an address of clients`
  const cure = returnRouteCommand(server.address, client.network, client.seenAs)
  return [wrong('server', `${what}: it has no route to ${client.network} through this host`, cure)]
}

interface SomeClient {
  readonly address: string
  readonly network: string
  /** The link to the server, and this host's address on it. */
  readonly serverLink: string
  readonly seenAs: string
}

/** An address of a network that clients come from, other than the server's. */
async function someClient({ clientLinks, facts }: Examined, server: Endpoint): Promise<SomeClient | undefined> {
  const family = familyOf(server.address)
  const way = await wayTo({ to: server.address })
  if (way.kind !== 'by') return undefined
  const addressesOn = (link: string) => facts.interfaces.find(({ name }) => name === link)?.addresses ?? []
  const seenAs = addressesOn(way.dev).find((address) => isUsual(address, family))
  const connected = await connectedNetworks(family)
  for (const { name } of clientLinks.filter((link) => link.name !== way.dev)) {
    for (const { destination: network } of connected.filter(({ dev }) => dev === name)) {
      const prefix = parsePrefix(network)
      if (prefix === undefined || prefix.length >= (family === 4 ? 31 : 127)) continue
      const taken = addressesOn(name)
      const address = hostsOf(prefix.address, family).find(
        (each) =>
          !taken.includes(each) && prefixContains(prefix, each) && networkOf(each, prefix.length) === prefix.address,
      )
      if (address !== undefined) return { address, network, serverLink: way.dev, seenAs: seenAs ?? 'THIS-HOST' }
    }
  }
  return undefined
}

function isUsual(address: string, family: Family): boolean {
  return familyOf(address) === family && !address.startsWith('fe80:')
}

/** A few addresses behind the network's own. */
function hostsOf(network: string, family: Family): string[] {
  const last = [1, 2, 3]
  if (family === 6) return last.map((at) => (network.endsWith('::') ? `${network}${at}` : network))
  return last.map((at) => network.replace(/\d+$/, (number) => `${Number(number) + at}`))
}

/** From a foreign address when one is given: a transparent socket, marked so that our rules leave it alone. */
function dial(to: Endpoint, from: string | undefined, mark: number): Promise<Answer> {
  const family = familyOf(to.address)
  const fd = openTcp(family)
  try {
    setMark(fd, mark)
    if (from !== undefined) {
      setTransparent(fd, family)
      bindSocket(fd, { address: from, port: 0 })
    }
  } catch (error) {
    closeFd(fd)
    if (error instanceof LimpidError) return Promise.resolve({ failure: error.message })
    throw error
  }
  const socket = new Socket({ fd, readable: true, writable: true })
  return new Promise((resolve) => {
    const settle = (answer: Answer) => {
      clearTimeout(timer)
      // a reset waits for the handshake's end, which may never come
      if (socket.connecting) socket.destroy()
      else socket.resetAndDestroy()
      resolve(answer)
    }
    const timer = setTimeout(() => settle('silence'), WAIT_MS)
    socket.once('connect', () => settle('answers'))
    socket.on('error', ({ code, message }: NodeJS.ErrnoException) =>
      settle(code === 'ECONNREFUSED' ? 'answers' : { failure: code ?? message }),
    )
    socket.connect({ host: to.address, port: to.port })
  })
}

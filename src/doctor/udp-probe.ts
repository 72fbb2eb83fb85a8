import type { Socket } from 'node:dgram'
import type { Host } from '../lab/host.ts'
import type { Endpoint, Family } from '../net/address.ts'
import { readSysctl } from '../sys/host.ts'
import { type Finding, note, ok } from './finding.ts'
import { deleteCommand } from './foreign-nft.ts'
import { forwardingKey } from './forwarding.ts'
import { readSockets } from './kernel-sockets.ts'
import type { ProbeNetwork } from './probe-network.ts'
import { readTcpCounters } from './tcp-counters.ts'
import { findPacket, type TraceStep } from './trace.ts'
import { traced } from './tracer.ts'

/** One that no other UDP of a gateway's own is likely to use. */
export const UNTAKEN_PORT = 5_353
const WAIT_MS = 400

/** Datagrams that no listener takes must pass this host untouched, both ways. That they do not is for the operator to judge. */
export async function udpFindings(network: ProbeNetwork): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const family of [4, 6] as const) {
    if (network.addresses[family] === undefined) continue
    findings.push(await udpFinding(network, family))
  }
  return findings
}

async function udpFinding(network: ProbeNetwork, family: Family): Promise<Finding> {
  const name = `UDP over IPv${family}`
  if ((await askThrough(network, family, UNTAKEN_PORT)).answered)
    return ok('packets', `${name}, which is not taken, passes untouched both ways`)
  const key = forwardingKey(family)
  if (readSysctl(key) === '0')
    return note('packets', `${name}, which is not taken, does not pass: ${key} is 0`, `sysctl -w ${key}=1`)
  const addresses = network.addresses[family]!
  const before = readTcpCounters().reversePath
  const packets = await traced(family, addresses, () => askThrough(network, family, UNTAKEN_PORT))
  const steps: readonly TraceStep[] = [
    ...findPacket(packets, addresses.client, addresses.server, /udp dport/),
    ...findPacket(packets, addresses.server, addresses.client, /udp sport/),
  ]
  const drop = steps.find(({ verdict }) => verdict === 'drop' || verdict === 'reject')
  if (drop !== undefined) {
    const { family, table, chain, handle, kind, text } = drop
    const what = `${name}, which is not taken, does not pass: nft table ${family} ${table}, chain ${chain} drops it`
    return handle === undefined
      ? note('packets', `${what} (${kind})`, `nft insert rule ${family} ${table} ${chain} meta l4proto udp accept`)
      : note('packets', `${what} ("${text}")`, deleteCommand({ family, table, chain, handle }))
  }
  const strict = readTcpCounters().reversePath > before ? ' (rp_filter dropped it)' : ''
  return note('packets', `${name}, which is not taken, does not pass${strict}`)
}

export interface UdpOutcome {
  /** From the address that was asked. */
  readonly answered: boolean
  /** Whom the server saw; undefined when it saw nobody. */
  readonly serverSaw: Endpoint | undefined
  /** A socket of this host was connected to the server. */
  readonly taken: boolean
}

/** Sends the server one datagram of the client, which it answers. */
export async function askThrough(
  { client, server, addresses }: ProbeNetwork,
  family: Family,
  port: number,
): Promise<UdpOutcome> {
  const ends = addresses[family]!
  const asking = openUdp(client, ends.client, 0)
  const answering = openUdp(server, ends.server, port)
  try {
    let serverSaw: Endpoint | undefined
    answering.on('message', (bytes, { address, port }) => {
      serverSaw = { address, port }
      answering.send(bytes, port, address)
    })
    const answered = new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), WAIT_MS)
      asking.once('message', (_, from) => {
        clearTimeout(timer)
        resolve(from.address === ends.server)
      })
    })
    const upstreams = () =>
      readSockets('udp')
        .filter(({ remote }) => remote.port === port && remote.address === ends.server)
        .map(({ inode }) => inode)
    const former = upstreams() // of sessions of earlier probes
    asking.send('limpid doctor', port, ends.server)
    const isAnswered = await answered
    const taken = upstreams().some((inode) => !former.includes(inode))
    return { answered: isAnswered, serverSaw, taken }
  } finally {
    asking.close()
    answering.close()
  }
}

function openUdp(host: Host, address: string, port: number): Socket {
  const socket = host.datagramSocket({ address, port })
  socket.on('error', () => {}) // an unreachable server is silence
  return socket
}

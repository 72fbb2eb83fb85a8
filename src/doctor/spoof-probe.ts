import { RawSender, RST, SYN } from '../lab/raw.ts'
import { readSysctl } from '../sys/host.ts'
import { type Finding, note, ok } from './finding.ts'
import { readTcpSockets } from './kernel-sockets.ts'
import type { ProbeNetwork } from './probe-network.ts'

const SOURCE_PORT = 39_999
const SEQUENCE = 1_000
const SETTLE_MS = 40

/**
 * SYNs of the probe's client with forged IPv4 sources, to a port that is taken: this host's own address, which must not come
 * in from outside, and one that lies behind another link, which is rp_filter's to judge.
 */
export async function spoofFinding(network: ProbeNetwork, port: number, entryLink: string): Promise<Finding> {
  const { nearServer, server } = network.addresses[4]!
  const sender = new RawSender(network.client)
  try {
    const own = await isTaken(sender, nearServer, { address: server, port })
    const elsewhere = await isTaken(sender, server, { address: server, port })
    const key = entryLink.replaceAll('.', '/')
    const filter = Math.max(...['all', key].map((name) => Number(readSysctl(`net.ipv4.conf.${name}.rp_filter`) ?? 0)))
    const strictness = `rp_filter ${filter} on ${entryLink}`
    const other = `one from behind ${network.serverLink} is ${elsewhere ? 'taken' : 'dropped'} (${strictness})`
    if (!own) return ok('packets', `a forged source that is this host's own address is dropped; ${other}`)
    const what = `a SYN from outside with this host's own address as its source is taken; ${other}`
    return note('packets', what, `sysctl -w net.ipv4.conf.${entryLink}.accept_local=0`)
  } finally {
    sender.close()
  }
}

/** Whether a listener of this host begins a connection with that source; ends it again. */
async function isTaken(sender: RawSender, source: string, to: { address: string; port: number }): Promise<boolean> {
  const from = { address: source, port: SOURCE_PORT }
  sender.send({ from, to, flags: SYN, seq: SEQUENCE })
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const taken = readTcpSockets().some(
    ({ remote, state }) => state === 'SYN-RECV' && remote.address === source && remote.port === SOURCE_PORT,
  )
  sender.send({ from, to, flags: RST, seq: SEQUENCE + 1 }) // else it would be kept for a minute
  return taken
}

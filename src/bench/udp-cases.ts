import { measureCpu } from './cpu.ts'
import { type Case, costIn, LOSSES, perCpuSecond, rateIn } from './suite.ts'
import { runUdpLoad, type UdpTraffic } from './udp-load.ts'

const SESSIONS = 64
const BURST = 8 // about what QUIC sends at once
/** Of 1400 bytes, less than the kernel's default for a receive buffer holds (net.core.rmem_max, 2304 bytes for each). */
const WINDOW = 128

const FIGURES = [rateIn('packets/s'), costIn('CPU µs/packet'), perCpuSecond('packets per CPU s'), LOSSES]

/** What is measured over UDP, in order. */
export const UDP_CASES: readonly Case[] = [
  ...[64, 512, 1400].map((size) =>
    traffic(`udp-${size}`, `${size}-byte datagrams to the server, ${SESSIONS} sessions, bursts of ${BURST}`, {
      ...{ sessions: SESSIONS, size, burst: BURST, window: WINDOW, isEcho: false },
    }),
  ),
  traffic('udp-echo-64', `64-byte requests and replies, ${SESSIONS} sessions, one at a time each`, {
    ...{ sessions: SESSIONS, size: 64, burst: 1, window: SESSIONS, isEcho: true },
  }),
]

function traffic(name: string, title: string, what: UdpTraffic): Case {
  return {
    name,
    title,
    figures: FIGURES,
    without: [],
    measure: (subject, seconds) => measureCpu(subject, () => runUdpLoad(subject, what, seconds)),
  }
}

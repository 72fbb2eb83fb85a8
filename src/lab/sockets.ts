import type { Protocol } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { type Endpoint, parseAddress } from '../net/address.ts'
import type { Host } from './host.ts'

/** One line of `ss -tn` or `ss -un`. */
export interface SocketRow {
  /** As ss calls it: LISTEN, ESTAB, TIME-WAIT …; of UDP sockets ESTAB when it is connected, else UNCONN. */
  readonly state: string
  readonly local: Endpoint
  /** Port 0 stands for `*`, as on a listening socket, or one that is not connected. */
  readonly peer: Endpoint
  /** The program that holds it, and its pid; undefined when ss may not know. */
  readonly program: string | undefined
  readonly pid: number | undefined
}

/** The sockets of a host as ss(8) sees them, but for those in TIME-WAIT. */
export async function socketsOf(host: Host, protocol: Protocol): Promise<SocketRow[]> {
  if (protocol === 'udp') return parseSockets(await host.run('ss', ['-Huanp']))
  const [listening, others] = await Promise.all([host.run('ss', ['-Hltnp']), host.run('ss', ['-Htnp'])])
  return [...parseSockets(listening), ...parseSockets(others)].filter(({ state }) => state !== 'TIME-WAIT')
}

/** Reads the output of `ss -Htnp`, `ss -Hltnp` or `ss -Huanp`. @throws LimpidError LIMPID_LAB for a line of another form. */
export function parseSockets(text: string): SocketRow[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [state, , , local, peer, users] = line.trim().split(/\s+/)
      const localEnd = parseEnd(local)
      const peerEnd = parseEnd(peer)
      if (state === undefined || localEnd === undefined || peerEnd === undefined) {
        throw new LimpidError('LIMPID_LAB', `cannot read this line of ss: ${line}`)
      }
      const holder = /\(\("([^"]*)",pid=(\d+)/.exec(users ?? '')
      return {
        state,
        local: localEnd,
        peer: peerEnd,
        program: holder?.[1],
        pid: holder === null ? undefined : Number(holder[2]),
      }
    })
}

/** `10.0.3.1:80`, `127.0.0.1%lo:80`, `[::1]:80`, `[fe80::1]%x-y:80`, `*:80` (any address of both families), `0.0.0.0:*`. */
function parseEnd(text = ''): Endpoint | undefined {
  const match = /^(?:\[([^\]]*)\]|([^%:]*))(?:%[^:]*)?:(\d+|\*)$/.exec(text)
  if (match === null) return undefined
  const literal = match[1] ?? match[2]!
  const address = parseAddress(literal === '*' ? '::' : literal)
  return address === undefined ? undefined : { address, port: match[3] === '*' ? 0 : Number(match[3]) }
}

import type { Host } from '../../lab/host.ts'
import { findProgram, isInstalled, run } from '../../sys/program.ts'

const TIMEOUT_MS = 30_000

export interface DigRecord {
  readonly name: string
  readonly ttl: number
  readonly type: string
  readonly data: string
}

/** What dig(1) understood. */
export interface Dug {
  /** `NOERROR`, `NXDOMAIN` …; undefined: no answer. */
  readonly status: string | undefined
  /** `qr aa rd`. */
  readonly flags: string
  readonly answers: readonly DigRecord[]
  /** The data of the answers. */
  readonly data: readonly string[]
  /** Where the answer came from: `10.0.4.2#53`. */
  readonly server: string | undefined
  readonly protocol: 'udp' | 'tcp' | undefined
  readonly bytes: number
  /** The server's EDNS payload size. */
  readonly udpBytes: number | undefined
  readonly text: string
}

/** Why tests with dig are skipped; false: they are not. */
export const WITHOUT_DIG = isInstalled('dig') ? false : 'dig is not installed'

/** Asks by dig(1) on a host. `args` are dig's, such as `@10.0.4.2`, `www.example`, `TXT`, `+tcp`. */
export async function dig(host: Host, ...args: readonly string[]): Promise<Dug> {
  const all = ['+nocookie', '+time=3', '+tries=2', ...args]
  const { stdout, stderr } = await host.inside(() => run(findProgram('dig'), all, { timeoutMs: TIMEOUT_MS }))
  const answer = /^;; ANSWER SECTION:\n((?:[^\n]+\n)*)/m.exec(stdout)?.[1] ?? ''
  const answers = [...answer.matchAll(/^(\S+)\s+(\d+)\s+IN\s+(\S+)\s+(.*)$/gm)].map(([, name, ttl, type, data]) => ({
    name: name!,
    ttl: Number(ttl),
    type: type!,
    data: data!,
  }))
  const server = /^;; SERVER: (\S+)\(.*\((UDP|TCP)\)/m.exec(stdout)
  const udpBytes = /^; EDNS: .*udp: (\d+)/m.exec(stdout)?.[1]
  return {
    status: /status: (\w+)/.exec(stdout)?.[1],
    flags: /^;; flags: ([^;]*);/m.exec(stdout)?.[1] ?? '',
    answers,
    data: answers.map(({ data }) => data),
    server: server?.[1],
    protocol: server?.[2]?.toLowerCase() as 'udp' | 'tcp' | undefined,
    bytes: Number(/^;; MSG SIZE\s+rcvd: (\d+)/m.exec(stdout)?.[1] ?? 0),
    udpBytes: udpBytes === undefined ? undefined : Number(udpBytes),
    text: `${stdout}${stderr}`,
  }
}

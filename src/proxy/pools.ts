import type { PoolConfig } from '../config/policy-types.ts'
import { formatEndpoint } from '../net/address.ts'
import { errnoName } from '../sys/errno.ts'
import { EPOLLOUT, type EventLoop } from '../sys/loop.ts'
import { setResetOnClose } from '../sys/options.ts'
import { closeFd } from '../sys/socket.ts'
import { dial } from './dial.ts'
import { Pool, type PoolServer, type PoolServerStats } from './pool.ts'
import type { SourcePorts } from './source-ports.ts'

const ANSWER_MS = 3_000 // a SYN and one retry (RFC 6298 §2)
const CHECKS_AT_ONCE = 16 // of one pool

interface PoolsDeps {
  readonly loop: EventLoop
  readonly ports: SourcePorts
  /** fwmark of our own sockets: our rules leave a check alone. */
  readonly mark: number
  note(line: string): void
}

interface Checked {
  readonly pool: Pool
  readonly timer: NodeJS.Timeout | undefined
  /** Checks under way, with what ends them early. */
  readonly checks: Map<PoolServer, () => void>
  stopped: boolean
}

/** The pools of the policy, whose servers are asked for a TCP connection from time to time. */
export class Pools {
  readonly #deps: PoolsDeps
  #checked = new Map<string, Checked>()

  constructor(deps: PoolsDeps) {
    this.#deps = deps
  }

  /** A pool that stays as it was keeps what it knows of its servers. */
  use(configs: Readonly<Record<string, PoolConfig>>): void {
    const former = this.#checked
    this.#checked = new Map()
    for (const [name, config] of Object.entries(configs)) {
      const kept = former.get(name)
      const isSame = kept !== undefined && JSON.stringify(kept.pool.config) === JSON.stringify(config)
      this.#checked.set(name, isSame ? kept : this.#begin(name, config))
      if (isSame) former.delete(name)
    }
    for (const checked of former.values()) stop(checked)
  }

  get(name: string): Pool | undefined {
    return this.#checked.get(name)?.pool
  }

  stats(): Record<string, Record<string, PoolServerStats>> {
    return Object.fromEntries([...this.#checked].map(([name, { pool }]) => [name, pool.stats()]))
  }

  close(): void {
    for (const checked of this.#checked.values()) stop(checked)
  }

  #begin(name: string, config: PoolConfig): Checked {
    const { healthMs } = config
    const suspect = (server: PoolServer): void => {
      if (healthMs > 0) void this.#check(checked, server)
    }
    const pool = new Pool(name, config, () => performance.now(), suspect)
    const round = (): void => void this.#round(checked)
    const timer = healthMs > 0 ? setInterval(round, healthMs).unref() : undefined
    const checked: Checked = { pool, timer, checks: new Map(), stopped: false }
    if (healthMs > 0) round()
    return checked
  }

  async #round(checked: Checked): Promise<void> {
    const waiting = [...checked.pool.servers]
    const one = async (): Promise<void> => {
      for (let server = waiting.shift(); server !== undefined; server = waiting.shift()) {
        await this.#check(checked, server)
      }
    }
    await Promise.all(Array.from({ length: CHECKS_AT_ONCE }, one))
  }

  /** Asks a server, unless it is being asked. */
  async #check(checked: Checked, server: PoolServer): Promise<void> {
    const { pool, checks } = checked
    if (checked.stopped || checks.has(server)) return
    checks.set(server, () => {})
    const { loop, mark, ports, note } = this.#deps
    const options = {
      source: { kind: 'proxy', bind: undefined },
      mark,
      connectMs: Math.min(ANSWER_MS, pool.config.healthMs),
      deadPeerMs: 0,
      first: undefined,
      ports,
      events: EPOLLOUT,
    } as const
    const uncounted = { dials: 0, sourcePortFallbacks: 0, sourcePortSearches: 0 }
    const outcome = await dial(server.endpoint, options, loop, uncounted, (abandon) => checks.set(server, abandon))
    checks.delete(server)
    if (outcome.kind === 'connected') {
      setResetOnClose(outcome.fd) // no TIME-WAIT for each check
      closeFd(outcome.fd)
    }
    if (checked.stopped) return
    const answers = outcome.kind === 'connected'
    const what = `pool ${pool.name}: ${formatEndpoint(server.endpoint)}`
    if (answers && !server.answers) note(`${what} answers again`)
    if (outcome.kind === 'failed' && server.answers) note(`${what} does not answer: ${errnoName(outcome.errno)}`)
    pool.noteCheck(server, answers)
  }
}

function stop(checked: Checked): void {
  checked.stopped = true
  clearInterval(checked.timer)
  for (const abandon of checked.checks.values()) abandon()
}

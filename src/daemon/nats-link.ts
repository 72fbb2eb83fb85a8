import { setTimeout as wait } from 'node:timers/promises'
import type { NatsConnection, NodeConnectionOptions } from '@nats-io/transport-node'
import type { NatsConfig } from '../config/nats.ts'
import { LimpidError } from '../errors.ts'
import { natsTls } from './nats-tls.ts'
import { readSecret } from './secret-file.ts'

const DIAL_MS = 3_000 // also how long an end may have to wait for it
const FIRST_BACKOFF_MS = 100
const MAX_BACKOFF_MS = 10_000
const PING_MS = 5_000 // a cut that no RST tells of is found after two that nobody answers
const PINGS_OUT = 2

interface LinkOptions {
  /** Of this gateway, for those who look at the server. */
  readonly name: string
  /** One line for the operator. */
  note(line: string): void
}

/** Who wants to know of a link. Called when it is there, and each time that it is there again. */
export interface LinkUser {
  onUp(connection: NatsConnection): void
  onDown(): void
}

/** One connection to NATS, which is opened, and opened again, for ever: with backoff and jitter, and beside everything else. */
export class NatsLink implements AsyncDisposable {
  readonly #config: NatsConfig
  readonly #options: LinkOptions
  readonly #closing = new AbortController()
  readonly #users: LinkUser[] = []
  #connection: NatsConnection | undefined
  #running: Promise<void> | undefined
  #isUp = false
  #attempts = 0
  /** What was wrong last. */
  #problem: string | undefined

  constructor(config: NatsConfig, options: LinkOptions) {
    this.#config = config
    this.#options = options
  }

  /** Begins to connect. @throws LimpidError LIMPID_NATS when what it needs is not installed; LIMPID_CONFIG for files that cannot be read. */
  async begin(): Promise<void> {
    const dial = await dialler(this.#config, this.#options.name, () => this.#nextDelayMs())
    this.#running = this.#run(dial)
  }

  /** Told at once when it is up. */
  add(user: LinkUser): void {
    this.#users.push(user)
    if (this.#isUp) user.onUp(this.#connection!)
  }

  get isUp(): boolean {
    return this.#isUp
  }

  get problem(): string | undefined {
    return this.#problem
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    await this.#connection?.close()
    await this.#running
  }

  async #run(dial: () => Promise<NatsConnection>): Promise<void> {
    while (!this.#closing.signal.aborted) {
      try {
        const connection = await dial()
        this.#connection = connection
        if (this.#closing.signal.aborted) return await connection.close()
        this.#up(connection)
        for await (const status of connection.status()) {
          if (status.type === 'disconnect') this.#down('the connection is lost')
          else if (status.type === 'reconnecting') this.#attempts++
          else if (status.type === 'reconnect') this.#up(connection)
          else if (status.type === 'error') this.#problem = status.error.message
        }
        this.#down('the connection is closed') // not by us: for ever begins anew
      } catch (error) {
        this.#tellProblem(`NATS cannot be reached: ${(error as Error).message}`)
      }
      this.#attempts++
      await wait(this.#nextDelayMs(), undefined, { signal: this.#closing.signal }).catch(() => {})
    }
  }

  #up(connection: NatsConnection): void {
    const isFirst = this.#attempts === 0 && this.#problem === undefined
    this.#attempts = 0
    this.#isUp = true
    this.#problem = undefined
    if (!isFirst) this.#options.note(`NATS is reached again, at ${connection.getServer()}`)
    for (const user of this.#users) user.onUp(connection)
  }

  #down(why: string): void {
    if (!this.#isUp) return
    this.#isUp = false
    for (const user of this.#users) user.onDown()
    if (!this.#closing.signal.aborted) this.#tellProblem(`NATS is not reached any more: ${why}`)
  }

  /** Once for each. */
  #tellProblem(problem: string): void {
    if (this.#problem !== problem) this.#options.note(problem)
    this.#problem = problem
  }

  /** Doubles from try to try; half of it is chance, so that many gateways do not come at once. */
  #nextDelayMs(): number {
    const longest = Math.min(FIRST_BACKOFF_MS * 2 ** this.#attempts, MAX_BACKOFF_MS)
    return longest / 2 + (Math.random() * longest) / 2
  }
}

/** One connection for one purpose; the caller closes it. @throws LimpidError LIMPID_NATS when there is none. */
export async function connectOnce(config: NatsConfig, name: string): Promise<NatsConnection> {
  const dial = await dialler(config, name, () => MAX_BACKOFF_MS)
  try {
    return await dial()
  } catch (cause) {
    throw new LimpidError('LIMPID_NATS', `NATS cannot be reached: ${(cause as Error).message}`, {
      cure: `look whether ${config.servers.join(' or ')} answers`,
      cause,
    })
  }
}

/** What opens a connection, which opens itself again after each cut. @throws LimpidError LIMPID_NATS, LIMPID_CONFIG */
async function dialler(
  config: NatsConfig,
  name: string,
  nextDelayMs: () => number,
): Promise<() => Promise<NatsConnection>> {
  const { servers, credentials, user, password } = config
  const { connect, credsAuthenticator } = await loadPackage(() => import('@nats-io/transport-node'))
  const creds = credentials === undefined ? undefined : readSecret(credentials)
  const guarded = natsTls(config)
  const authenticators = [...(guarded ? [guarded.authenticator] : []), ...(creds ? [credsAuthenticator(creds)] : [])]
  const options: NodeConnectionOptions = {
    servers: [...servers],
    name,
    timeout: DIAL_MS,
    pingInterval: PING_MS,
    maxPingOut: PINGS_OUT,
    maxReconnectAttempts: -1,
    ignoreAuthErrorAbort: true, // who is refused today may be let in tomorrow
    reconnectDelayHandler: nextDelayMs,
    ...(authenticators.length > 0 && { authenticator: authenticators }),
    ...(user !== undefined && { user, pass: password! }),
    ...(guarded && { tls: guarded.tls }),
  }
  return () => connect(options)
}

/** A package of NATS, which is there only for those who want it. @throws LimpidError LIMPID_NATS */
export async function loadPackage<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    throw new LimpidError('LIMPID_NATS', `what speaks to NATS is not installed: ${(cause as Error).message}`, {
      cure: 'install it beside limpid: npm install @nats-io/transport-node@3 @nats-io/jetstream@3 @nats-io/kv@3',
      cause,
    })
  }
}

// The client of an exchange on Y, as a process of its own. Argument: ExchangeLoad as JSON. Prints ExchangeResult as JSON; fails
// at the first wrong byte. With a rate a message is due at its moment, and its latency counts from then: also while it waits
// for a connection, or for this process, so that a proxy that stalls does not hide what it delayed ("coordinated omission").
import { FineTimer } from '../sys/fine-timer.ts'
import { eventLoop } from '../sys/loop.ts'
import type { ExchangeLoad, ExchangeResult } from './exchange.ts'
import { latencyOf } from './latencies.ts'
import { MessageConnection, type MessageOwner } from './message-connection.ts'

/** What comes first is not counted: it also measures how this process and the connections get going. */
const UNCOUNTED_MS = 250
const CONNECT_TIMEOUT_MS = 10_000
/** For what is due or on its way when the time is over. */
const GRACE_MS = 5_000

class Exchanger implements MessageOwner {
  readonly #load: ExchangeLoad
  readonly #connections: MessageConnection[] = []
  readonly #latencies: number[] = []
  readonly #late: NodeJS.Timeout
  #ready = 0
  #startedAt = 0
  #countsFrom = 0
  #endsAt = 0
  #all = 0
  #onTheirWay = 0
  #isReported = false
  // of a load with a rate
  readonly #timer: FineTimer | undefined
  #due = 0
  #sent = 0
  #turn = 0

  constructor(load: ExchangeLoad) {
    this.#load = load
    this.#late = setTimeout(() => fail('connections do not come up'), CONNECT_TIMEOUT_MS)
    if (load.rate !== undefined) this.#timer = new FineTimer(eventLoop, () => this.#pace())
    this.#connect()
  }

  /** One after the other: a thousand handshakes at once would overflow a backlog. */
  #connect(): void {
    this.#connections.push(
      new MessageConnection(eventLoop, this, this.#load, this.#connections.length, this.#load.size),
    )
  }

  onReady(): void {
    this.#ready++
    if (this.#ready < this.#load.connections) this.#connect()
    else this.#begin()
  }

  #begin(): void {
    clearTimeout(this.#late)
    this.#startedAt = performance.now()
    this.#countsFrom = this.#startedAt + UNCOUNTED_MS
    this.#endsAt = this.#startedAt + (UNCOUNTED_MS + this.#load.seconds * 1000) // as #dueAt() adds
    setTimeout(
      () => fail(`${this.#onTheirWay} messages do not come back, ${this.#due - this.#sent} wait to be sent`),
      UNCOUNTED_MS + this.#load.seconds * 1000 + GRACE_MS,
    )
    if (this.#timer !== undefined) this.#pace()
    else for (const connection of this.#connections) this.#send(connection, performance.now())
  }

  #send(connection: MessageConnection, dueAt: number): void {
    connection.dueAt = dueAt
    this.#onTheirWay++
    connection.send()
  }

  /** When message `number` is to be sent. */
  #dueAt(number: number): number {
    return this.#startedAt + (number * 1000) / this.#load.rate!
  }

  /** Sends what is due, and comes back for the next. */
  #pace(): void {
    const now = performance.now()
    while (this.#dueAt(this.#due) <= now && this.#dueAt(this.#due) < this.#endsAt) this.#due++
    this.#sendDue()
    if (now >= this.#endsAt) this.#endIfOver()
    else this.#timer!.set(Math.min(this.#dueAt(this.#due), this.#endsAt) - performance.now())
  }

  /** Connections have their turn one after the other; busy ones are passed over. */
  #sendDue(): void {
    const connections = this.#connections
    while (this.#sent < this.#due && this.#onTheirWay < connections.length) {
      const connection = connections[this.#turn]!
      this.#turn = (this.#turn + 1) % connections.length
      if (!connection.isBusy) this.#send(connection, this.#dueAt(this.#sent++))
    }
  }

  onReply(connection: MessageConnection): void {
    const now = performance.now()
    this.#onTheirWay--
    this.#all++
    if (connection.dueAt >= this.#countsFrom) this.#latencies.push(now - connection.dueAt)
    if (this.#timer !== undefined) this.#sendDue()
    else if (now < this.#endsAt) this.#send(connection, now)
    this.#endIfOver()
  }

  #endIfOver(): void {
    const isOver = this.#onTheirWay === 0 && this.#sent === this.#due && performance.now() >= this.#endsAt
    if (!isOver || this.#isReported) return
    this.#isReported = true
    const result: ExchangeResult = {
      all: this.#all,
      counted: this.#latencies.length,
      seconds: this.#load.seconds,
      latency: latencyOf(this.#latencies),
    }
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
  }
}

function fail(why: string): never {
  process.stderr.write(`${why}\n`)
  process.exit(1)
}

process.on('uncaughtException', (error) => fail(error.message))
new Exchanger(JSON.parse(process.argv[2]!) as ExchangeLoad)

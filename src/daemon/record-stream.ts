import type { JetStreamClient } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/transport-node'
import { counted } from '../net/counted.ts'
import { type LinkUser, loadPackage, type NatsLink } from './nats-link.ts'
import type { RecordSink, SinkStats } from './record-sinks.ts'

const MAX_WAITING = 16_384 // some 10 MB; beyond it records are dropped
const MAX_UNDER_WAY = 4_096 // of these, sent and not acknowledged
const ACK_MS = 5_000
const PAUSE_MS = 1_000 // after a failure: no stream has the subject, or its disk is full
const MAX_TRIES = 10 // of one record while the server is there

interface Outgoing {
  readonly bytes: Uint8Array
  readonly id: string
  tries: number
}

/**
 * Publishes records to a JetStream stream and waits for none of them. What was not acknowledged is sent again with the same `Nats-Msg-Id`, by
 * which the server knows it again (for its `duplicate_window`); what is too much meanwhile is dropped and counted.
 */
export class RecordStream implements RecordSink, LinkUser {
  readonly #subject: string
  readonly #link: NatsLink
  readonly #note: (line: string) => void
  readonly #clientOf: (connection: NatsConnection) => JetStreamClient
  #client: JetStreamClient | undefined
  /** In order of their age. */
  readonly #waiting: Outgoing[] = []
  #underWay = 0
  #pause: NodeJS.Timeout | undefined
  #written = 0
  #dropped = 0
  #problem: string | undefined
  #idle = (): void => {}

  private constructor(
    subject: string,
    { link, note }: { readonly link: NatsLink; note(line: string): void },
    clientOf: (connection: NatsConnection) => JetStreamClient,
  ) {
    this.#subject = subject
    this.#link = link
    this.#note = note
    this.#clientOf = clientOf
  }

  /** @throws LimpidError LIMPID_NATS */
  static async open(
    subject: string,
    options: { readonly link: NatsLink; note(line: string): void },
  ): Promise<RecordStream> {
    const { jetstream } = await loadPackage(() => import('@nats-io/jetstream'))
    const stream = new RecordStream(subject, options, (connection) => jetstream(connection, { timeout: ACK_MS }))
    options.link.add(stream)
    return stream
  }

  write(line: string, id: string): void {
    if (this.#waiting.length + this.#underWay >= MAX_WAITING) this.#dropped++
    else this.#waiting.push({ bytes: Buffer.from(line), id, tries: 0 })
    this.#send()
  }

  reopen(): void {}

  onUp(connection: NatsConnection): void {
    this.#client = this.#clientOf(connection)
    this.#send()
  }

  onDown(): void {
    this.#client = undefined
  }

  get stats(): SinkStats {
    const waiting = this.#waiting.length + this.#underWay
    const problem = this.#problem ?? this.#link.problem
    return { to: `subject ${this.#subject}`, written: this.#written, dropped: this.#dropped, waiting, problem }
  }

  async close(withinMs: number): Promise<void> {
    if (this.#client !== undefined && this.#waiting.length + this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, withinMs)
        this.#idle = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    clearTimeout(this.#pause)
    this.#client = undefined
    const lost = this.#waiting.length + this.#underWay
    this.#dropped += lost
    if (lost > 0) this.#note(`${counted(lost, 'record was', 'records were')} not taken by NATS`)
  }

  #send(): void {
    if (this.#client === undefined || this.#pause !== undefined) return
    const room = Math.min(this.#waiting.length, MAX_UNDER_WAY - this.#underWay)
    for (const outgoing of this.#waiting.splice(0, room)) {
      this.#underWay++
      void this.#publish(this.#client, outgoing)
    }
  }

  async #publish(client: JetStreamClient, outgoing: Outgoing): Promise<void> {
    try {
      await client.publish(this.#subject, outgoing.bytes, { msgID: outgoing.id, timeout: ACK_MS, retries: 0 })
      this.#underWay--
      this.#written++
      this.#problem = undefined
    } catch (error) {
      this.#underWay--
      this.#failed(outgoing, client, error as Error)
    }
    if (this.#waiting.length + this.#underWay === 0) this.#idle()
    this.#send()
  }

  #failed(outgoing: Outgoing, client: JetStreamClient, error: Error): void {
    const isCut = client !== this.#client // then it is nobody's fault
    if (!isCut) {
      outgoing.tries++
      const problem = `records cannot be published to ${this.#subject}: ${whyNot(error)}`
      if (this.#problem !== problem) this.#note(problem)
      this.#problem = problem
      this.#pause ??= setTimeout(() => {
        this.#pause = undefined
        this.#send()
      }, PAUSE_MS).unref()
    }
    if (outgoing.tries >= MAX_TRIES) this.#dropped++
    else this.#waiting.unshift(outgoing)
  }
}

/** Nobody takes the message: for the package that means a server without JetStream (jetstream 3.3.1, jsclient.js), and most often it is this. */
function whyNot(error: Error): string {
  if (error.name !== 'JetStreamNotEnabled') return error.message
  return 'no stream has that subject (nats stream add), or the server has no JetStream'
}

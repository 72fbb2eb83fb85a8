import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import type { RecordsConfig } from '../config/sharing.ts'
import type { FlowRecord } from '../proxy/record.ts'
import { flowJson } from '../proxy/record-json.ts'
import type { NatsLink } from './nats-link.ts'

const FLUSH_MS = 2_000 // at the end, for a disk or a server that is merely slow

/** What became of the records of one place where they go. */
export interface SinkStats {
  /** A file's path, or `subject limpid.flows`. */
  readonly to: string
  /** Written, or acknowledged. */
  readonly written: number
  /** For which there was no room. */
  readonly dropped: number
  readonly waiting: number
  /** What is wrong, until it is not any more. */
  readonly problem: string | undefined
}

/** A place where records go. It never waits and never throws: what it has no room for is dropped and counted. */
export interface RecordSink {
  /** `id`: of this record and no other, of any gateway. */
  write(line: string, id: string): void
  /** The file was moved away. */
  reopen(): void
  /** Waits for what is under way, at the most `withinMs`. */
  close(withinMs: number): Promise<void>
  readonly stats: SinkStats
}

interface SinkOptions {
  /** Where there is a subject. */
  readonly link: NatsLink | undefined
  /** One line for the operator. */
  note(line: string): void
}

/** The places where records go besides stdout: one JSON object for each flow, with the gateway's name. */
export class RecordSinks {
  readonly #sinks: readonly RecordSink[]
  readonly #gateway: string
  /** Ids of records begin with 1 in each run. */
  readonly #run: string = randomUUID()

  private constructor(sinks: readonly RecordSink[], gateway: string) {
    this.#sinks = sinks
    this.#gateway = gateway
  }

  /** @throws LimpidError LIMPID_RECORDS, LIMPID_NATS */
  static async open({ gateway, file, subject }: RecordsConfig, { link, note }: SinkOptions): Promise<RecordSinks> {
    const sinks: RecordSink[] = []
    if (subject !== undefined) {
      const { RecordStream } = await import('./record-stream.ts')
      sinks.push(await RecordStream.open(subject, { link: link!, note }))
    }
    if (file !== undefined) {
      const { RecordFile } = await import('./record-file.ts')
      sinks.push(await RecordFile.open(file, note))
    }
    return new RecordSinks(sinks, gateway ?? hostname())
  }

  write(record: FlowRecord): void {
    const line = flowJson(record, this.#gateway)
    for (const sink of this.#sinks) sink.write(line, `${this.#run}-${record.id}`)
  }

  reopen(): void {
    for (const sink of this.#sinks) sink.reopen()
  }

  async close(): Promise<void> {
    await Promise.all(this.#sinks.map((sink) => sink.close(FLUSH_MS)))
  }

  get stats(): readonly SinkStats[] {
    return this.#sinks.map(({ stats }) => stats)
  }
}

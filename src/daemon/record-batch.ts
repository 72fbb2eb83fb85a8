import type { FlowRecord } from '../proxy/record.ts'

const BATCH = 64
const LONGEST_WAIT_MS = 20
/** Batches under way to a reader who is slow; further records are dropped, and counted. */
const MAX_UNDER_WAY = 128 // about 8,000 flows, as many as a LineWriter keeps

/** Sends flow records many at a time: one message for each would cost more than the flow. */
export class RecordBatch {
  readonly #send: (records: readonly FlowRecord[], done: () => void) => void
  #records: FlowRecord[] = []
  #timer: NodeJS.Timeout | undefined
  #underWay = 0
  /** Records that found no room. */
  dropped = 0

  /** `send` calls `done` when the message has left. */
  constructor(send: (records: readonly FlowRecord[], done: () => void) => void) {
    this.#send = send
  }

  add(record: FlowRecord): void {
    if (this.#underWay >= MAX_UNDER_WAY) {
      this.dropped++
      return
    }
    this.#records.push(record)
    if (this.#records.length >= BATCH) this.flush()
    else this.#timer ??= setTimeout(() => this.flush(), LONGEST_WAIT_MS)
  }

  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#records.length === 0) return
    this.#underWay++
    this.#send(this.#records, () => {
      this.#underWay--
    })
    this.#records = []
  }
}

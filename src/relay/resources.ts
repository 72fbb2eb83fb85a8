import type { EventLoop } from '../sys/loop.ts'
import type { PipePool } from '../sys/pipes.ts'
import type { MessageBatch } from './message-batch.ts'

/** What all relays of a proxy share. */
export interface RelayResources {
  readonly loop: EventLoop
  readonly pipes: PipePool
  readonly messages: MessageBatch
  /** Bytes that wait in our memory (not in sockets or pipes) because their receiver is slow. */
  waitingBytes: number
}

import type { RelayReason } from './reasons.ts'
import type { RelayResources } from './resources.ts'

/** What a direction tells the relay that it is part of. */
export interface DirectionOwner {
  readonly resources: RelayResources
  readonly ended: boolean
  /** When a byte was last moved, in the loop's monotonic milliseconds. */
  lastActiveAt: number
  /** Has every direction finished, so that nothing is left but to close? */
  isLastDirection(): boolean
  /** The FIN was passed on. */
  onDirectionFinished(): void
  end(reason: RelayReason): void
}

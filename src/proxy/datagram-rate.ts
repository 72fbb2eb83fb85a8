import type { ByteBucket } from '../relay/byte-bucket.ts'
import type { DatagramArena } from '../sys/datagram-arena.ts'

/** Leaves of the datagrams in a slot those that `bucket` has bytes for; the first ones. Says how many are lost, and whether all are. */
export function trimToRate(
  bucket: ByteBucket,
  { length, segment }: Pick<DatagramArena, 'length' | 'segment'>,
  slot: number,
): { readonly datagrams: number; readonly all: boolean } {
  const bytes = length[slot]!
  const size = segment[slot] || bytes
  const kept = bucket.takeWhole(bytes, size)
  if (kept === bytes) return NONE_LOST
  const datagrams = datagramsIn(bytes, size) - datagramsIn(kept, size)
  if (kept === 0) return { datagrams, all: true }
  length[slot] = kept
  if (kept === size) segment[slot] = 0
  return { datagrams, all: false }
}

const NONE_LOST = { datagrams: 0, all: false } as const

/** `segment`: the size of each but the last; 0: it is one. */
export function datagramsIn(bytes: number, segment: number): number {
  return segment > 0 ? Math.ceil(bytes / segment) : 1
}

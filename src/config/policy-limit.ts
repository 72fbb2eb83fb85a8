import type { ByteRate, RateLimit } from './policy-types.ts'
import { PER, RATE } from './policy-values.ts'
import { missing, type Report } from './problem.ts'
import { BYTE_COUNT, BYTE_RATE, LEAST_BURST_BYTES } from './rate-values.ts'
import type { value as parsed } from './schema.ts'
import * as z from './zod.ts'

const MAX_BURST = 1_000_000
const BURST_ERROR = `a number of flows from 1 to ${MAX_BURST}`
/** Who waits for bytes gets some so many times a second: what comes meanwhile must have room. */
const TURNS_PER_SECOND = 50

/** The key `limit` of a decision. */
export function limitSchema({ value }: { readonly value: typeof parsed }) {
  return z.strictObject(
    {
      newFlows: value(RATE).optional().describe('New flows and sessions for a time: 10/s, 600/m, 5000/h.'),
      burst: z
        .number({ error: BURST_ERROR })
        .int({ error: BURST_ERROR })
        .min(1, { error: BURST_ERROR })
        .max(MAX_BURST, { error: BURST_ERROR })
        .optional()
        .describe('How many new flows at once; as many as in a second when left out.'),
      bytes: value(BYTE_RATE)
        .optional()
        .describe('Bytes a second in each direction: 500k/s, 10M/s, 1G/s (k is 1,000 bytes), or bits: 80Mbit/s.'),
      burstBytes: value(BYTE_COUNT)
        .optional()
        .describe('How many bytes at once, such as 2M; as many as in a second when left out.'),
      per: value<RateLimit['per'], RateLimit['per']>(PER)
        .optional()
        .describe('client (the default; of IPv6 its /64), or rule: all clients together.'),
    },
    { error: 'a map with newFlows, burst, bytes, burstBytes or per' },
  )
}

type LimitInput = z.output<ReturnType<typeof limitSchema>>

/** Problems go to `report`, with paths that begin with `path`. */
export function buildLimit(input: LimitInput, path: readonly (string | number)[], report: Report): RateLimit {
  const { newFlows, burst, bytes, burstBytes, per } = input
  const belongs = (key: 'burst' | 'burstBytes', to: 'newFlows' | 'bytes'): void => {
    if (input[key] === undefined || input[to] !== undefined) return
    report({ path: [...path, key], at: 'key', message: `"${key}" has no meaning without "${to}"` })
  }
  belongs('burst', 'newFlows')
  belongs('burstBytes', 'bytes')
  if (newFlows === undefined && bytes === undefined) {
    const { path: at, ...problem } = missing('newFlows', 'a limit needs it, or "bytes", or both')
    report({ ...problem, path: [...path, ...at] })
  }
  return {
    per: per ?? 'client',
    newFlows:
      newFlows === undefined
        ? undefined
        : { intervalMs: newFlows, burst: burst ?? Math.max(1, Math.ceil(1_000 / newFlows)) },
    bytes: bytes === undefined ? undefined : buildBytes(bytes, burstBytes, [...path, 'burstBytes'], report),
  }
}

function buildBytes(
  perSecond: number,
  burst: number | undefined,
  path: readonly (string | number)[],
  report: Report,
): ByteRate {
  const least = Math.max(LEAST_BURST_BYTES, Math.ceil(perSecond / TURNS_PER_SECOND))
  if (burst !== undefined && burst < least) {
    report({ path, message: `expected at least ${least} bytes: what comes in ${1_000 / TURNS_PER_SECOND} ms` })
  }
  return { perSecond, burst: burst ?? Math.max(LEAST_BURST_BYTES, perSecond) }
}

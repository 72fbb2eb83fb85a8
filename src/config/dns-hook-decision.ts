import type { Endpoint } from '../net/address.ts'
import { DNS_SERVER } from './dns-values.ts'
import { wrongWords } from './hook-decision.ts'
import { CLIENT_ADDRESS } from './policy-values.ts'
import { value } from './schema.ts'
import { DURATION } from './values.ts'
import * as z from './zod.ts'

const MAX_ADDRESSES = 64 // as in a rule of the listener's
const DEFAULT_TTL_MS = 60_000

const ADDRESSES = `a list of 1 to ${MAX_ADDRESSES} IPv4 or IPv6 addresses`

// biome-ignore-start lint/suspicious/noThenProperty: the operator's word; nobody awaits a decision
const DECISION = z.discriminatedUnion(
  'then',
  [
    z.strictObject({ then: z.literal('forward'), to: value<Endpoint, string>(DNS_SERVER).optional() }),
    z.strictObject({
      then: z.literal('reject'),
      by: z.enum(['refused', 'nxdomain', 'drop'], { error: 'refused, nxdomain or drop' }).optional(),
    }),
    z.strictObject({
      then: z.literal('answer'),
      addresses: z
        .array(value<string, string>(CLIENT_ADDRESS), { error: ADDRESSES })
        .min(1, { error: ADDRESSES })
        .max(MAX_ADDRESSES, { error: ADDRESSES }),
      ttl: value<number, string>(DURATION).optional(),
    }),
  ],
  { error: 'a decision such as { then: "reject" }, or undefined' },
)
// biome-ignore-end lint/suspicious/noThenProperty: as above

/**
 * What `onDns` returns. `forward`: as the rules say, or by that server (`10.0.4.2`, `10.0.4.2:5353`). `reject`: by REFUSED (the default),
 * NXDOMAIN, or not at all. `answer`: those of the addresses that are of the type asked for, for `ttl` (`60s` when left out).
 */
export type DnsDecisionWords = Alone<z.input<typeof DECISION>>

/** What a function returns may have more keys than its type (TypeScript checks literals alone): those of the other words are no keys of this one. */
type Alone<Words> = Words extends unknown ? Words & { readonly [K in Exclude<AnyKey, keyof Words>]?: never } : never
type AnyKey = 'to' | 'by' | 'addresses' | 'ttl'

export type DnsHookDecision =
  | { readonly kind: 'forward'; readonly to: Endpoint | undefined }
  | { readonly kind: 'reject'; readonly by: 'refused' | 'nxdomain' | 'drop' }
  | { readonly kind: 'answer'; readonly addresses: readonly string[]; readonly ttlSeconds: number }

/** What `onDns` returned; undefined: it has decided nothing. Else what is wrong with it, in words. */
export function readDnsDecision(returned: unknown): DnsHookDecision | undefined | string {
  if (returned === undefined) return undefined
  const parsed = DECISION.safeParse(returned)
  if (!parsed.success) return wrongWords(parsed.error, returned)
  const { data } = parsed
  if (data.then === 'forward') return { kind: 'forward', to: data.to }
  if (data.then === 'reject') return { kind: 'reject', by: data.by ?? 'refused' }
  const { addresses, ttl = DEFAULT_TTL_MS } = data
  return { kind: 'answer', addresses, ttlSeconds: Math.floor(ttl / 1000) }
}

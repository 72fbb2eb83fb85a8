import type { value as parsed } from './schema.ts'
import type { Timeouts } from './types.ts'
import { DURATION } from './values.ts'
import * as z from './zod.ts'

/** Names in a file. */
const NAMES = {
  connect: 'connectMs',
  idle: 'idleMs',
  halfClose: 'halfCloseMs',
  deadPeer: 'deadPeerMs',
  session: 'sessionIdleMs',
  query: 'queryIdleMs',
} as const satisfies Record<string, keyof Timeouts>

/** Milliseconds; 0 switches a timeout off. */
export type TimeoutsInput = Partial<Record<keyof typeof NAMES, number | undefined>>

/** The key `timeouts` of a listener, and of a decision. */
export function timeoutsSchema({ value }: { readonly value: typeof parsed }) {
  return z.strictObject(
    {
      connect: value(DURATION).optional().describe('How long a dial may take; 10s.'),
      idle: value(DURATION).optional().describe('How long a flow may move no byte; 1h.'),
      halfClose: value(DURATION).optional().describe('The same, once one direction is closed; 1m.'),
      deadPeer: value(DURATION).optional().describe('How long a silent peer is believed alive; 30s.'),
      session: value(DURATION).optional().describe('How long a UDP session may move no datagram; 2m.'),
      query: value(DURATION)
        .optional()
        .describe('The same for ports with one answer to one question, such as DNS; 10s.'),
    },
    { error: 'a map of timeouts' },
  )
}

/** Those that are given. */
export function buildTimeouts(input: TimeoutsInput): Partial<Timeouts> {
  const given = entriesOf(NAMES).flatMap(([key, name]) => (input[key] === undefined ? [] : [[name, input[key]]]))
  return Object.fromEntries(given)
}

/** Those that are given, by the names of a file. */
export function timeoutsByName(timeouts: Partial<Timeouts>): readonly (readonly [name: string, ms: number])[] {
  return entriesOf(NAMES).flatMap(([key, name]) => {
    const ms = timeouts[name]
    return ms === undefined ? [] : [[key, ms] as const]
  })
}

function entriesOf<K extends string, V>(record: Readonly<Record<K, V>>): readonly (readonly [K, V])[] {
  return Object.entries(record) as [K, V][]
}

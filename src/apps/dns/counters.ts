import { DNS_FAULTS, type DnsFault } from '../../inspect/dns.ts'

/** Why the app drops a client's datagram; `dns-FAULT`: it is malformed, or no query; `dns-hook`: too much waits for a hook. */
export const DNS_DROP_REASONS = [
  ...DNS_FAULTS.map((fault) => `dns-${fault}` as const),
  'dns-rule',
  'dns-policy',
  'dns-hook',
  'dns-no-upstream',
] as const
export type DnsDropReason = (typeof DNS_DROP_REASONS)[number]

/** Since the start. */
export interface DnsCounters {
  queries: number
  cacheHits: number
  cacheStored: number
  /** Answered, refused or dropped by a rule, the listener's or the policy's, or by a hook. */
  ruled: number
  forwarded: number
  answers: number
  /** Answers that were cut down, because the server sent more than the client can receive. */
  truncated: number
  /** Answers of our own that were cut down: more large ones than one network of clients may have by UDP. */
  limited: number
  /** Answers that nobody waits for: forged, late, or twice. */
  answersUnasked: number
  /** Answers with another question than the one that waits under their id. */
  answersMismatched: number
  answersMalformed: number
  /** Streams served, messages in them that were malformed, dials that failed. */
  streams: number
  streamsMalformed: number
  dialsFailed: number
  readonly dropped: Record<DnsDropReason, number>
}

export function dnsCounters(): DnsCounters {
  return {
    queries: 0,
    cacheHits: 0,
    cacheStored: 0,
    ruled: 0,
    forwarded: 0,
    answers: 0,
    truncated: 0,
    limited: 0,
    answersUnasked: 0,
    answersMismatched: 0,
    answersMalformed: 0,
    streams: 0,
    streamsMalformed: 0,
    dialsFailed: 0,
    dropped: Object.fromEntries(DNS_DROP_REASONS.map((reason) => [reason, 0])) as Record<DnsDropReason, number>,
  }
}

/** The drop decisions, made once. */
export const DROPS = Object.fromEntries(
  DNS_DROP_REASONS.map((reason) => [reason, { kind: 'drop', reason }]),
) as Readonly<Record<DnsDropReason, { readonly kind: 'drop'; readonly reason: DnsDropReason }>>

export const FAULT_REASONS = Object.fromEntries(DNS_FAULTS.map((fault) => [fault, `dns-${fault}`])) as Readonly<
  Record<DnsFault, DnsDropReason>
>

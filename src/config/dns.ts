import { type Endpoint, type Family, familyOf } from '../net/address.ts'
import { DNS_SERVER, DOMAIN, IPV4, IPV6, RECORD_TYPE, TEXT, THEN } from './dns-values.ts'
import { NAME } from './name.ts'
import { missing, type Report } from './problem.ts'
import type { integer, value, values } from './schema.ts'
import type { DnsAnswers, DnsConfig, DnsDecision, DnsRule, Source } from './types.ts'
import { DURATION } from './values.ts'
import * as z from './zod.ts'

const MAX_RULES = 1000
const MAX_UPSTREAMS = 16
const MAX_ANSWERS = 64 // records of one type; more would not go into a datagram
const MAX_CACHE_ENTRIES = 10_000_000
const MAX_CACHE_BYTES = 8 * 2 ** 30
const DEFAULT_CACHE = { entries: 100_000, bytes: 64 * 2 ** 20, maxTtlMs: 86_400_000 } // a day: RFC 8767 §4 says at most a week
const DEFAULT_ANSWER_TTL_MS = 60_000 // soon gone where a rule changes

/** The pieces of the file's schema that this one is made of. */
interface Pieces {
  readonly value: typeof value
  readonly values: typeof values
  readonly integer: typeof integer
}

/** The key `dns` of a listener. */
export function dnsSchema({ value, values, integer }: Pieces) {
  const cacheKeys = {
    entries: integer(0, MAX_CACHE_ENTRIES, 'a number of answers'),
    bytes: integer(4096, MAX_CACHE_BYTES, 'a number of bytes'),
    maxTtl: value(DURATION).optional(),
  }
  const error = 'off, or a map with entries, bytes or maxTtl'
  const cache = z
    .union([z.literal('off'), z.looseObject(CACHE_KEYS_WRITTEN)], { error })
    .transform((written) => (written === 'off' ? { entries: 0 } : written) as z.input<z.ZodObject<typeof cacheKeys>>)
    .pipe(z.strictObject(cacheKeys))
  const answers = z.strictObject(
    {
      a: values(IPV4, 1, MAX_ANSWERS).describe('IPv4 addresses.'),
      aaaa: values(IPV6, 1, MAX_ANSWERS).describe('IPv6 addresses.'),
      cname: value(DOMAIN)
        .optional()
        .describe('The name that this one is an alias of; addresses beside it are that name’s.'),
      txt: values(TEXT, 1, MAX_ANSWERS).describe('Texts.'),
      ttl: value(DURATION).optional().describe('For how long clients may keep the answer; 60s when left out.'),
    },
    { error: 'a map with a, aaaa, cname or txt' },
  )
  const rule = z.strictObject(
    {
      name: NAME.optional().describe('In messages; rule-1 and so on when left out.'),
      names: values(DOMAIN).describe('Names that the rule takes, exactly; with `suffixes` left out too: every name.'),
      suffixes: values(DOMAIN).describe('Domains that the rule takes: the name itself and all below it.'),
      types: values(RECORD_TYPE).describe('Record types that were asked for; any when left out.'),
      // biome-ignore lint/suspicious/noThenProperty: the operator's word; nobody awaits a rule
      then: value<DnsDecision, DnsDecision>(THEN).describe('forward, answer, nxdomain, refuse or drop.'),
      answers: answers.optional().describe('With `then: answer`: the records.'),
      to: values(DNS_SERVER, 1, MAX_UPSTREAMS).describe('With `then: forward`: the servers for this rule.'),
    },
    { error: 'a map with the keys of a DNS rule' },
  )
  return z.strictObject(
    {
      upstreams: values(DNS_SERVER, 1, MAX_UPSTREAMS).describe(
        'Where queries go, the first that answers; when left out, to the server that the client asked.',
      ),
      cache: cache.optional().describe('Answers are kept for their TTL, within these bounds; off: none is.'),
      rules: z
        .array(rule, { error: 'a list of DNS rules' })
        .max(MAX_RULES, { error: `at most ${MAX_RULES} DNS rules` })
        .optional()
        .describe('The first that takes a query decides; else it is forwarded.'),
    },
    { error: 'a map with upstreams, cache or rules; {} forwards all to the server that was asked' },
  )
}

/** For the JSON Schema: the same keys, whatever they hold; the pipe behind judges that. */
const CACHE_KEYS_WRITTEN = {
  entries: written('integer', 'Answers that are kept at the most; 100000; 0: none.'),
  bytes: written('integer', 'What they may take together; 67108864.'),
  maxTtl: written('string', 'How long an answer is kept at the most, whatever its TTL; 24h.'),
}

function written(type: 'integer' | 'string', description: string) {
  return z.any().optional().meta({ type, description })
}

export type DnsInput = z.output<ReturnType<typeof dnsSchema>>

export interface DnsContext {
  readonly hasTo: boolean
  readonly source: Source
  readonly families: readonly Family[]
  /** Path of a problem is relative to the listener. */
  readonly report: Report
}

/** Completes the key `dns` and checks what its values say together; problems go to `report`. */
export function buildDns(input: DnsInput | undefined, context: DnsContext): DnsConfig | undefined {
  if (input === undefined) return undefined
  const { report } = context
  const upstreams = input.upstreams ?? []
  if (upstreams.length > 0 && context.hasTo) {
    report({ path: ['to'], at: 'key', message: '"to" and "upstreams" of dns both say where queries go' })
  }
  checkFamilies(upstreams, ['dns', 'upstreams'], context)
  const { entries, bytes, maxTtl } = input.cache ?? {}
  if (maxTtl !== undefined && maxTtl < 1000) {
    report({ path: ['dns', 'cache', 'maxTtl'], message: 'expected at least 1s; "cache: off" keeps nothing' })
  }
  return {
    upstreams,
    cache:
      entries === 0
        ? undefined
        : {
            entries: entries ?? DEFAULT_CACHE.entries,
            bytes: bytes ?? DEFAULT_CACHE.bytes,
            maxTtlMs: maxTtl ?? DEFAULT_CACHE.maxTtlMs,
          },
    rules: (input.rules ?? []).map((rule, index) => buildRule(rule, index, context)),
  }
}

type RuleInput = NonNullable<DnsInput['rules']>[number]

function buildRule(input: RuleInput, index: number, context: DnsContext): DnsRule {
  const path = ['dns', 'rules', index]
  const { then } = input
  const to = input.to ?? []
  const misplaced = (key: 'answers' | 'to', belongs: DnsDecision): void => {
    if (input[key] === undefined || then === belongs) return
    context.report({ path: [...path, key], at: 'key', message: `"${key}" has no meaning with then ${then}` })
  }
  misplaced('answers', 'answer')
  misplaced('to', 'forward')
  const { a = [], aaaa = [], cname, txt = [], ttl } = input.answers ?? {}
  if (then === 'answer' && a.length + aaaa.length + txt.length === 0 && cname === undefined) {
    const { path: at, ...problem } = missing('answers', 'with a, aaaa, cname or txt, for then answer')
    context.report({ ...problem, path: [...path, ...at] })
  }
  checkFamilies(to, [...path, 'to'], context)
  const answers: DnsAnswers = { a, aaaa, cname, txt, ttlSeconds: Math.floor((ttl ?? DEFAULT_ANSWER_TTL_MS) / 1000) }
  return {
    name: input.name ?? `rule-${index + 1}`,
    names: input.names ?? [],
    suffixes: input.suffixes ?? [],
    types: input.types ?? [],
    decision: then,
    answers: then === 'answer' ? answers : undefined,
    to,
  }
}

/** With a source other than the proxy's, a server is dialled from an address of its own family. */
function checkFamilies(servers: readonly Endpoint[], path: (string | number)[], context: DnsContext): void {
  if (servers.length === 0 || context.source === 'proxy') return
  const families = typeof context.source === 'object' ? [familyOf(context.source.address)] : context.families
  const unserved = families.find((family) => !servers.some(({ address }) => familyOf(address) === family))
  if (unserved === undefined) return
  const who = typeof context.source === 'object' ? `the source is an IPv${unserved} address` : `IPv${unserved} clients`
  context.report({
    path,
    message:
      typeof context.source === 'object'
        ? `expected an IPv${unserved} server: ${who}`
        : `expected an IPv${unserved} server too: ${who} cannot be served by another with this source`,
  })
}

/** The family of all servers, where they have one. */
export function familyOfServers(servers: readonly Endpoint[] | undefined): Family | undefined {
  const families = new Set((servers ?? []).map(({ address }) => familyOf(address)))
  return families.size === 1 ? [...families][0] : undefined
}

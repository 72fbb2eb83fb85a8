import type { Family } from '../net/address.ts'
import { dnsSchema } from './dns.ts'
import { NAME } from './name.ts'
import { policySchema } from './policy.ts'
import { sharingKeys } from './sharing.ts'
import { timeoutsSchema } from './timeouts.ts'
import type { BackendChoice, Intercept, OnDown, Source, WorkerCount } from './types.ts'
import {
  BACKEND,
  CGROUP,
  DURATION,
  FAMILY,
  FORWARD_SOURCE,
  FWMARK,
  INTERCEPT,
  INTERFACE,
  LISTEN,
  ON_DOWN,
  PATH,
  PORTS,
  PREFIX,
  PROTOCOL,
  SOURCE,
  TARGET,
  UIDS,
  type ValueKind,
  WORKERS,
} from './values.ts'
import * as z from './zod.ts'

// Every `error` text is what was expected; parse.ts makes `expected …, found …` of it.

const MAX_LISTENERS = 256
const MAX_FORWARDS = 256
const MAX_LIST = 20_000 // elements of one nft set that an operator writes by hand
const U32_MAX = 0xffff_ffff

/** `I`: what a program may write, where that is known more closely than the kind can tell. */
export function value<T, I extends string | number = string | number>(kind: ValueKind<T>): z.ZodType<T, I> {
  const schema = z.union([z.string(), z.number()], { error: kind.expected }).transform((written, context) => {
    const parsed = kind.parse(String(written))
    if (parsed !== undefined) return parsed
    const params = { suggestion: kind.suggest?.(String(written)), hint: kind.hint?.(String(written)) }
    context.issues.push({ code: 'custom', message: kind.expected, params, input: written })
    return z.NEVER
  })
  const told = kind.words === undefined ? schema : schema.meta({ enum: [...kind.words] })
  return told as unknown as z.ZodType<T, I>
}

/** One value or a list of them. `min`: 1 where an empty list would not mean "any". */
export function values<T>(kind: ValueKind<T>, min = 0, max = MAX_LIST) {
  const words = kind.words === undefined ? {} : { enum: [...kind.words] }
  const element = z.any().meta({ type: ['string', 'number'], ...words })
  return z
    .union([z.string().meta(words), z.number(), z.array(element)], { error: `${kind.expected}, or a list of such` })
    .transform((written) => (Array.isArray(written) ? written : [written]))
    .pipe(
      z
        .array(value(kind))
        .min(min, { error: `${kind.expected}, or a list of such` })
        .max(max, { error: `a list of at most ${max}` }),
    )
    .optional()
}

export function integer(min: number, max: number, what: string) {
  const error = `${what} from ${min} to ${max}`
  return z.number({ error }).int({ error }).min(min, { error }).max(max, { error }).optional()
}

const flag = z.boolean({ error: 'true or false' }).optional()

const MATCH = {
  interfaces: values(INTERFACE).describe('Receiving interfaces; any but lo when left out.'),
  sources: values(PREFIX).describe('Client addresses or prefixes.'),
  destinations: values(PREFIX).describe('Original destinations: addresses or prefixes.'),
  ports: values(PORTS).describe('Original destination ports: 80, 8000-8100 or all.'),
  uids: values(UIDS).describe('User ids of the sending process; on the path local alone.'),
  cgroups: values(CGROUP).describe('cgroup v2 paths of the sending process; on the path local alone.'),
  fwmarks: values(FWMARK).describe('Packets with this fwmark, such as 0x1 or 0x1/0xff.'),
}
const EXCLUDE = z.strictObject(MATCH, { error: 'a map with interfaces, sources, destinations, ports or the like' })

const LISTENER = z.strictObject(
  {
    name: NAME.optional().describe('In flow lines and rule comments; listener-1 and so on when left out.'),
    intercept: value<Intercept, Intercept>(INTERCEPT)
      .optional()
      .describe('tproxy (the default), redirect, dnat or mark; or none: clients dial the listener itself.'),
    paths: values(PATH, 1).describe('forwarded (the default), local: made on this host, bridged: crossing a bridge.'),
    protocols: values(PROTOCOL, 1).describe('tcp (the default), udp, or both.'),
    listen: values(LISTEN, 1).describe(
      'Where the listener waits: one address per family, or a port; with redirect also a range of ports.',
    ),
    family: value<readonly Family[], Family | '4' | '6' | 'both'>(FAMILY)
      .optional()
      .describe('4, 6 or both: those that this host has, when left out.'),
    ...MATCH,
    exclude: EXCLUDE.optional().describe('What one of these lists has is not taken.'),
    addressedHere: flag.describe('Also take what is addressed to this host itself; needs `to`.'),
    source: value<Source, 'proxy' | 'client' | 'client-port' | (string & {})>(SOURCE)
      .optional()
      .describe('Whose address the server sees: proxy (the default), client, client-port or an address.'),
    to: value(TARGET).optional().describe('Dial this instead of the original destination.'),
    onDown: value<OnDown, OnDown>(ON_DOWN)
      .optional()
      .describe(
        'If Limpid dies, traffic passes by (open, the default) or stays dropped (closed); a clean stop lets it pass.',
      ),
    fastOpen: flag.describe('TCP Fast Open on both sides.'),
    acceptProxyProtocol: z
      .strictObject(
        { from: values(PREFIX, 1).describe('Addresses or prefixes of the proxies in front; nobody else is believed.') },
        { error: 'a map with from' },
      )
      .optional()
      .describe('These proxies tell the client and its destination with a PROXY protocol header (v1 or v2).'),
    timeouts: timeoutsSchema({ value }).optional().describe('Durations: 500ms, 10s, 5m, 1h; or off.'),
    dns: dnsSchema({ value, values, integer })
      .optional()
      .describe('What it takes is DNS: port 53 by udp and tcp, where `ports` and `protocols` say nothing else.'),
  },
  { error: 'a map with the keys of a listener' },
)

const FORWARD = z.strictObject(
  {
    name: NAME.optional().describe('In messages and rule comments; forward-1 and so on when left out.'),
    protocols: values(PROTOCOL, 1).describe('tcp (the default), udp, or both.'),
    ...MATCH,
    exclude: EXCLUDE.optional().describe('What one of these lists has is not taken.'),
    to: value(TARGET).describe('The server: an address, with a port or without to keep the original one.'),
    source: value<'proxy' | 'client', 'proxy' | 'client'>(FORWARD_SOURCE)
      .optional()
      .describe('Whose address the server sees: client (the default), or proxy.'),
    health: value(DURATION).optional().describe('How often the server is asked for a connection; off: never.'),
  },
  { error: 'a map with the keys of a forward' },
)

/** limpid.yaml as it is written; zod's output has the same keys with their values parsed. */
export const FILE_SCHEMA = z.strictObject(
  {
    listeners: z
      .array(LISTENER, { error: 'a list of listeners' })
      .min(1, { error: 'at least one listener' })
      .max(MAX_LISTENERS, { error: `at most ${MAX_LISTENERS} listeners` })
      .optional()
      .describe('What is taken out of the traffic, and where it goes.'),
    forwards: z
      .array(FORWARD, { error: 'a list of forwards' })
      .min(1, { error: 'at least one forward' })
      .max(MAX_FORWARDS, { error: `at most ${MAX_FORWARDS} forwards` })
      .optional()
      .describe('Port forwarding by the kernel alone (DNAT to another host).'),
    bypass: values(PREFIX).describe(
      'Destinations that no listener takes: the kernel forwards what goes there, and counts it.',
    ),
    policy: policySchema({ value, values })
      .optional()
      .describe('Rules that decide flows; all are forwarded when left out.'),
    ...sharingKeys({ values }),
    workers: value<WorkerCount, number | 'auto'>(WORKERS)
      .optional()
      .describe('Processes that relay; auto: one for each core. 1 when left out.'),
    ioUring: flag.describe('false: one system call at a time, also where the kernel lets us have many in one.'),
    limits: z
      .strictObject(
        {
          flows: integer(0, 10_000_000, 'a number of flows').describe(
            'TCP flows at once; 0 (the default): what RLIMIT_NOFILE allows.',
          ),
          flowsPerClient: integer(0, 10_000_000, 'a number of flows').describe(
            'TCP flows at once of one client address; 0 (the default): no bound.',
          ),
          sessions: integer(0, 10_000_000, 'a number of sessions').describe(
            'UDP sessions at once; 0 (the default): what RLIMIT_NOFILE allows.',
          ),
          sessionsPerClient: integer(0, 10_000_000, 'a number of sessions').describe(
            'UDP sessions at once of one client address; 0 (the default): a quarter of all.',
          ),
          backlog: integer(1, 1_000_000, 'a backlog').describe(
            'Connections that wait to be accepted (listen(2)); 4096.',
          ),
        },
        { error: 'a map of limits' },
      )
      .optional()
      .describe('Of all workers together.'),
    rules: z
      .strictObject(
        {
          install: flag.describe('false: the kernel rules are the operator’s own.'),
          backend: value<BackendChoice, BackendChoice>(BACKEND)
            .optional()
            .describe('The program that makes the rules: nft, iptables, or auto (nft where it works).'),
          nftTable: z
            .string({ error: 'the name of an nft table' })
            .regex(/^limpid[A-Za-z0-9_-]{0,24}$/, { error: 'an nft table name that begins with limpid' })
            .optional()
            .describe('What our nft tables are called; limpid.'),
          routeTable: integer(1, U32_MAX, 'a route table').describe('Where marked packets are delivered here; 19536.'),
          // between 0 and 32766; we also use two below it, one above
          rulePriority: integer(3, 32_764, 'a rule priority between local and main,').describe('Of our ip rules; 195.'),
          markMask: integer(1, U32_MAX, 'a 32-bit fwmark mask').describe('Bits of fwmarks that are ours; 0x30000000.'),
          interceptMark: integer(1, U32_MAX, 'a 32-bit fwmark').describe(
            'Packets that are delivered here; 0x10000000.',
          ),
          bypassMark: integer(1, U32_MAX, 'a 32-bit fwmark').describe('Our own packets; 0x20000000.'),
        },
        { error: 'a map of rule settings' },
      )
      .optional()
      .describe('How the kernel rules are made.'),
  },
  { error: 'a map with the key listeners or forwards' },
)

export type FileInput = z.output<typeof FILE_SCHEMA>

/** The JSON Schema (2020-12) of limpid.yaml, for editors. */
export function fileSchema(): object {
  return { title: 'limpid.yaml', ...z.toJSONSchema(FILE_SCHEMA, { io: 'input' }) }
}

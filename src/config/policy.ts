import { NAME } from './name.ts'
import { buildDecision, decisionKeys } from './policy-decision.ts'
import { buildPools, poolsSchema } from './policy-pools.ts'
import type { HostCheckMode, PeekConfig, PolicyConfig, PolicyMatch, PolicyRule } from './policy-types.ts'
import { DETECTED, HOST_CHECK, MAC, NAME_ENTRY, TIMES } from './policy-values.ts'
import { missing, type Report } from './problem.ts'
import type { value, values } from './schema.ts'
import { DURATION, INTERFACE, PORTS, PREFIX, PROTOCOL } from './values.ts'
import * as z from './zod.ts'

const MAX_RULES = 20_000
const MAX_LISTS = 256

/** Apps that every Limpid has, and rules may name. */
export const BUILT_IN_APPS = ['http'] as const

export const DEFAULT_PEEK: PeekConfig = {
  silenceMs: 300, // SMTP, FTP and SSH servers speak first, and their clients wait
  helloMs: 5_000,
  serverFirst: [21, 25, 110, 119, 143, 587, 3306].map((port) => ({ from: port, to: port })), // FTP, SMTP, POP3, NNTP, IMAP, submission, MySQL
}

export const NO_POLICY: PolicyConfig = {
  lists: {},
  pools: {},
  rules: [],
  otherwise: { kind: 'forward', to: undefined, source: undefined },
  hostCheck: 'off',
  peek: DEFAULT_PEEK,
}

/** The pieces of the file's schema that this one is made of. */
interface Pieces {
  readonly value: typeof value
  readonly values: typeof values
}

/** One name or a list of them. */
function names(error: string) {
  const written = z.union([z.string(), z.array(z.any().meta({ type: 'string' }))], { error })
  const schema = written.transform((one) => (Array.isArray(one) ? one : [one])).pipe(z.array(NAME))
  return (schema as unknown as z.ZodType<string[], string | string[]>).optional()
}

/** The key `policy`. */
export function policySchema({ value, values }: Pieces) {
  const decision = decisionKeys({ value })
  const rule = z.strictObject(
    {
      name: NAME.optional().describe('In flow records and messages; rule-1 and so on when left out.'),
      listeners: names('a name of a listener, or a list of such').describe('Names of listeners.'),
      sources: values(PREFIX).describe('Client addresses or prefixes.'),
      destinations: values(PREFIX).describe('Original destinations: addresses or prefixes.'),
      ports: values(PORTS).describe('Original destination ports.'),
      protocols: values(PROTOCOL).describe('tcp, udp, or both when left out.'),
      detected: values(DETECTED).describe(
        'What the first bytes are: tls, http1, http2, ssh, socks, quic, dns or unknown.',
      ),
      interfaces: values(INTERFACE).describe('Interfaces by which clients come: eth0, or br*.'),
      macs: values(MAC).describe('MAC addresses of clients on a link of ours, as the neighbour table has them.'),
      hosts: values(NAME_ENTRY).describe(
        'SNI or Host, or a name that the client learnt by DNS: www.example.org, .example.org (it and all below), *.example.org (all below), ads*.example.org.',
      ),
      lists: names('a name that `lists` of the policy has, or a list of such').describe(
        'Names of lists: the host or the destination is in one of them.',
      ),
      times: values(TIMES).describe('Days and times of day, local time: mon-fri 08:00-18:00.'),
      ...decision,
    },
    { error: 'a map with the keys of a policy rule' },
  )
  return z.strictObject(
    {
      lists: z
        .record(NAME, z.string({ error: 'the path of a file' }).min(1, { error: 'the path of a file' }), {
          error: 'a map of names and files',
        })
        .optional()
        .describe(
          'Files by their names, read again when they change. On each line a name as in `hosts`, a prefix, or a line of a hosts file.',
        ),
      pools: poolsSchema({ value, values }, NAME).optional(),
      rules: z
        .array(rule, { error: 'a list of policy rules' })
        .max(MAX_RULES, { error: `at most ${MAX_RULES} policy rules` })
        .optional()
        .describe('The first that matches a flow decides.'),
      otherwise: z
        .strictObject(decision, { error: 'a map with "then"' })
        .optional()
        .describe('Where no rule matches; forward when left out.'),
      hostCheck: value<HostCheckMode, HostCheckMode>(HOST_CHECK)
        .optional()
        .describe(
          'Whether a host (SNI, Host) must have the address that was dialled: off (the default), log or enforce.',
        ),
      peek: z
        .strictObject(
          {
            silence: value(DURATION)
              .optional()
              .describe('How long a client may be silent until its server speaks; 300ms.'),
            hello: value(DURATION).optional().describe('How long its first message may take; 5s.'),
            serverFirst: values(PORTS).describe(
              'Ports where the server speaks first, so that nobody waits; 21, 25, 110, 119, 143, 587, 3306.',
            ),
          },
          { error: 'a map with silence, hello or serverFirst' },
        )
        .optional()
        .describe('How first bytes are waited for, where a rule asks about them.'),
    },
    { error: 'a map with rules, lists, pools, otherwise, hostCheck or peek' },
  )
}

export type PolicyInput = z.output<ReturnType<typeof policySchema>>
type RuleInput = NonNullable<PolicyInput['rules']>[number]

export interface PolicyContext {
  /** Names of the apps that rules may name; undefined: nobody knows, and they may name any. */
  readonly apps: readonly string[] | undefined
  /** Undefined: nobody knows, and rules may name any. */
  readonly listeners: readonly string[] | undefined
  /** The bits of fwmarks that are Limpid's own. */
  readonly markMask: number
  readonly report: Report
}

/** Completes the key `policy` and checks what its values say together; problems go to `report`. */
export function buildPolicy(input: PolicyInput | undefined, given: PolicyContext): PolicyConfig {
  if (input === undefined) return NO_POLICY
  const { report } = given
  const lists = input.lists ?? {}
  const pools = buildPools(input.pools, report)
  const context = { ...given, pools }
  if (Object.keys(lists).length > MAX_LISTS) report({ path: ['lists'], message: `expected at most ${MAX_LISTS} lists` })
  const rules = (input.rules ?? []).map((rule, index) => buildRule(rule, index, Object.keys(lists), context))
  const names = new Map<string, number>()
  rules.forEach(({ name }, index) => {
    const first = names.get(name)
    if (first !== undefined)
      report({ path: ['rules', index, 'name'], message: `policy rule name "${name}" is used twice` })
    names.set(name, index)
  })
  const { silence, hello, serverFirst } = input.peek ?? {}
  return {
    lists,
    pools,
    rules,
    otherwise:
      input.otherwise === undefined ? NO_POLICY.otherwise : buildDecision(input.otherwise, ['otherwise'], context),
    hostCheck: input.hostCheck ?? NO_POLICY.hostCheck,
    peek: {
      silenceMs: silence ?? DEFAULT_PEEK.silenceMs,
      helloMs: hello ?? DEFAULT_PEEK.helloMs,
      serverFirst: serverFirst?.flat() ?? DEFAULT_PEEK.serverFirst,
    },
  }
}

type RuleContext = PolicyContext & { readonly pools: PolicyConfig['pools'] }

function buildRule(input: RuleInput, index: number, lists: readonly string[], context: RuleContext): PolicyRule {
  const path = ['rules', index]
  const known = (key: 'listeners' | 'lists', there: readonly string[] | undefined) => {
    for (const name of input[key] ?? []) {
      if (there === undefined || there.includes(name)) continue
      const none =
        key === 'lists' ? 'a name of the policy\'s own key "lists", which has none' : 'no listener: there are none'
      const expected = there.length === 0 ? none : there.join(', ')
      context.report({ path: [...path, key], message: `expected ${expected}, found "${name}"` })
    }
  }
  known('listeners', context.listeners)
  known('lists', lists)
  if (input.then === 'bypass') checkBypass(input, path, context.report)
  const match: PolicyMatch = {
    listeners: input.listeners ?? [],
    sources: input.sources ?? [],
    destinations: input.destinations ?? [],
    ports: input.ports?.flat() ?? [],
    protocols: input.protocols ?? [],
    interfaces: input.interfaces ?? [],
    macs: input.macs ?? [],
    detected: input.detected ?? [],
    hosts: input.hosts ?? [],
    lists: input.lists ?? [],
    times: input.times ?? [],
  }
  const decision = buildDecision(input, path, context)
  const isTcpAlone = decision.kind === 'via' || decision.kind === 'handle'
  if (isTcpAlone && match.protocols.length > 0 && !match.protocols.includes('tcp')) {
    const what = decision.kind === 'via' ? 'go via a proxy' : 'be handled by an app'
    context.report({ path: [...path, 'protocols'], message: `only TCP can ${what}` })
  }
  return { name: input.name ?? `rule-${index + 1}`, match, decision }
}

const CONDITIONS = [
  ...(['listeners', 'sources', 'ports', 'protocols', 'interfaces', 'macs'] as const),
  ...(['detected', 'hosts', 'lists', 'times'] as const),
]

/** The kernel knows destinations alone: what else a rule asked would not be asked of the flows after the first. */
function checkBypass(input: RuleInput, path: readonly (string | number)[], report: Report): void {
  for (const key of CONDITIONS) {
    if (input[key] === undefined) continue
    const message = `"${key}" has no meaning with then bypass: the kernel forwards all that goes to the destination`
    report({ path: [...path, key], at: 'key', message })
  }
  if ((input.destinations ?? []).length === 0) {
    const { path: at, ...problem } = missing('destinations', 'which the kernel forwards by itself')
    report({ ...problem, path: [...path, ...at] })
  }
}

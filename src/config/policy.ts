import { z } from 'zod'
import { familyOf, isNeverForeign } from '../net/address.ts'
import type { Decision, PeekConfig, PolicyConfig, PolicyMatch, PolicyRule, Rejection } from './policy-types.ts'
import { DETECTED, NAME_ENTRY, POLICY_TARGET, POLICY_THEN, type PolicyThen, REJECTION, TIMES } from './policy-values.ts'
import { missing, type Report } from './problem.ts'
import type { value, values } from './schema.ts'
import type { Source } from './types.ts'
import { DURATION, PORTS, PREFIX, PROTOCOL, SOURCE } from './values.ts'

const MAX_RULES = 20_000
const MAX_LISTS = 256
const DEFAULT_BYPASS_MS = 3_600_000

export const DEFAULT_PEEK: PeekConfig = {
  silenceMs: 300, // SMTP, FTP and SSH servers speak first, and their clients wait
  helloMs: 5_000,
  serverFirst: [21, 25, 110, 119, 143, 587, 3306].map((port) => ({ from: port, to: port })), // FTP, SMTP, POP3, NNTP, IMAP, submission, MySQL
}

export const NO_POLICY: PolicyConfig = {
  lists: {},
  rules: [],
  otherwise: { kind: 'forward', to: undefined, source: undefined },
  peek: DEFAULT_PEEK,
}

/** The pieces of the file's schema that this one is made of. */
interface Pieces {
  readonly value: typeof value
  readonly values: typeof values
}

const NAME_ERROR = 'a name of at most 32 letters, digits, ".", "_" and "-"'
const NAME = z.string({ error: 'a name' }).regex(/^[A-Za-z0-9][\w.-]{0,31}$/, { error: NAME_ERROR })

/** The keys of a decision: of a rule, of `otherwise`, and of what a hook returns. */
export function decisionKeys({ value }: Pick<Pieces, 'value'>) {
  return {
    // biome-ignore lint/suspicious/noThenProperty: the operator's word; nobody awaits a rule
    then: value<PolicyThen, PolicyThen>(POLICY_THEN).describe('forward, reject or bypass.'),
    to: value(POLICY_TARGET).optional().describe('With `then: forward`: dial this instead.'),
    source: value<Source, 'proxy' | 'client' | 'client-port' | (string & {})>(SOURCE)
      .optional()
      .describe('With `then: forward`: whose address the server sees, if not as the listener says.'),
    by: value<Rejection, Rejection>(REJECTION)
      .optional()
      .describe('With `then: reject`: reset (the default), drop, or forbidden: HTTP 403.'),
    for: value(DURATION).optional().describe('With `then: bypass`: how long the kernel forwards; 1h when left out.'),
  }
}

/** The key `policy`. */
export function policySchema({ value, values }: Pieces) {
  const decision = decisionKeys({ value })
  const rule = z.strictObject(
    {
      name: NAME.optional().describe('In flow records and messages; rule-1 and so on when left out.'),
      listeners: z.array(NAME, { error: 'a list of names of listeners' }).optional().describe('Names of listeners.'),
      sources: values(PREFIX).describe('Client addresses or prefixes.'),
      destinations: values(PREFIX).describe('Original destinations: addresses or prefixes.'),
      ports: values(PORTS).describe('Original destination ports.'),
      protocols: values(PROTOCOL).describe('tcp, udp, or both when left out.'),
      detected: values(DETECTED).describe('What the first bytes are: tls, http1, http2, ssh, socks, quic or unknown.'),
      hosts: values(NAME_ENTRY).describe('SNI or Host, or a name that the client learnt by DNS.'),
      lists: z
        .array(NAME, { error: 'a list of names of lists' })
        .optional()
        .describe('The host or the destination is in one of them.'),
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
        .describe('Files with a name or prefix on each line, read again when they change.'),
      rules: z
        .array(rule, { error: 'a list of policy rules' })
        .max(MAX_RULES, { error: `at most ${MAX_RULES} policy rules` })
        .optional()
        .describe('The first that matches a flow decides.'),
      otherwise: z
        .strictObject(decision, { error: 'a map with "then"' })
        .optional()
        .describe('Where no rule matches; forward when left out.'),
      peek: z
        .strictObject(
          {
            silence: value(DURATION)
              .optional()
              .describe('How long a client may be silent until its server speaks; 300ms.'),
            hello: value(DURATION).optional().describe('How long its first message may take; 5s.'),
            serverFirst: values(PORTS).describe('Ports where the server speaks first.'),
          },
          { error: 'a map with silence, hello or serverFirst' },
        )
        .optional()
        .describe('How first bytes are waited for, where a rule asks about them.'),
    },
    { error: 'a map with rules, lists, otherwise or peek' },
  )
}

export type PolicyInput = z.output<ReturnType<typeof policySchema>>
type RuleInput = NonNullable<PolicyInput['rules']>[number]
export type DecisionInput = Pick<RuleInput, 'then' | 'to' | 'source' | 'by' | 'for'>

export interface PolicyContext {
  /** Undefined: nobody knows, and rules may name any. */
  readonly listeners: readonly string[] | undefined
  readonly report: Report
}

/** Completes the key `policy` and checks what its values say together; problems go to `report`. */
export function buildPolicy(input: PolicyInput | undefined, context: PolicyContext): PolicyConfig {
  if (input === undefined) return NO_POLICY
  const { report } = context
  const lists = input.lists ?? {}
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
    rules,
    otherwise:
      input.otherwise === undefined
        ? NO_POLICY.otherwise
        : buildDecision(input.otherwise, ['otherwise'], context.report),
    peek: {
      silenceMs: silence ?? DEFAULT_PEEK.silenceMs,
      helloMs: hello ?? DEFAULT_PEEK.helloMs,
      serverFirst: serverFirst?.flat() ?? DEFAULT_PEEK.serverFirst,
    },
  }
}

function buildRule(input: RuleInput, index: number, lists: readonly string[], context: PolicyContext): PolicyRule {
  const path = ['rules', index]
  const known = (key: 'listeners' | 'lists', there: readonly string[] | undefined) => {
    for (const name of input[key] ?? []) {
      if (there === undefined || there.includes(name)) continue
      const message = `expected ${there.length === 0 ? `no ${key}: there are none` : there.join(', ')}, found "${name}"`
      context.report({ path: [...path, key], message })
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
    detected: input.detected ?? [],
    hosts: input.hosts ?? [],
    lists: input.lists ?? [],
    times: input.times ?? [],
  }
  return { name: input.name ?? `rule-${index + 1}`, match, decision: buildDecision(input, path, context.report) }
}

const CONDITIONS = ['listeners', 'sources', 'ports', 'protocols', 'detected', 'hosts', 'lists', 'times'] as const

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

const BELONGS = { to: 'forward', source: 'forward', by: 'reject', for: 'bypass' } as const

/** Completes a decision; `path`: where it stands. */
export function buildDecision(input: DecisionInput, path: readonly (string | number)[], report: Report): Decision {
  const { then, to, source } = input
  for (const [key, belongs] of Object.entries(BELONGS)) {
    if (input[key as keyof typeof BELONGS] === undefined || belongs === then) continue
    report({ path: [...path, key], at: 'key', message: `"${key}" has no meaning with then ${then}` })
  }
  if (then === 'reject') return { kind: 'reject', rejection: input.by ?? 'reset' }
  if (then === 'bypass') return { kind: 'bypass', forMs: input.for ?? DEFAULT_BYPASS_MS }
  if (to !== undefined && isNeverForeign(to.address) && source !== undefined && source !== 'proxy') {
    report({ path: [...path, 'to'], message: `${to.address} cannot be dialled with a foreign address` })
  }
  if (to !== undefined && typeof source === 'object' && familyOf(source.address) !== familyOf(to.address)) {
    report({ path: [...path, 'to'], message: `expected an IPv${familyOf(source.address)} address: so is "source"` })
  }
  return { kind: 'forward', to, source }
}

import { issueProblems } from './issues.ts'
import { MOMENT, momentFrom } from './moment.ts'
import type { AskedFlow } from './policy-types.ts'
import { CLIENT_ADDRESS, DETECTED, FLOW_DESTINATION, HOST_NAME, MAC, POLICY_THEN } from './policy-values.ts'
import { type ConfigSource, MAX_PROBLEMS, type Problem } from './problem.ts'
import { value, values } from './schema.ts'
import { INTERFACE, PROTOCOL, type ValueKind } from './values.ts'
import { readYaml } from './yaml-source.ts'
import * as z from './zod.ts'

const MAX_FLOWS = 20_000

/** One line of a table: a flow, and what the policy is expected to say of it. */
export interface ExpectedFlow extends AskedFlow {
  /** A kind of decision (`reject`), or a whole one (`reject by forbidden`). */
  readonly expect: string
  /** The name of a rule, or `otherwise`; undefined: whichever. */
  readonly rule: string | undefined
}

const EXPECT: ValueKind<string> = {
  expected: `${POLICY_THEN.expected}, or more of it, such as reject by forbidden`,
  parse: (text) => (POLICY_THEN.parse(text.split(' ', 1)[0]!) === undefined ? undefined : text),
  suggest: POLICY_THEN.suggest,
}

const NAME = z.string({ error: 'a name' }).min(1, { error: 'a name' })

const FLOW = z.strictObject(
  {
    client: value(CLIENT_ADDRESS),
    dst: value(FLOW_DESTINATION),
    protocol: value(PROTOCOL).optional(),
    listener: NAME.optional(),
    interface: value(INTERFACE).optional(),
    mac: value(MAC).optional(),
    host: value(HOST_NAME).optional(),
    detected: value(DETECTED).optional(),
    learnt: values(HOST_NAME),
    at: value(MOMENT).optional(),
    expect: value(EXPECT),
    rule: NAME.optional(),
  },
  { error: 'a map with client, dst and expect' },
)

const TABLE = z
  .array(FLOW, { error: 'a list of flows' })
  .min(1, { error: 'a list of flows' })
  .max(MAX_FLOWS, { error: `at most ${MAX_FLOWS} flows` })

export interface FlowTable {
  readonly flows: readonly ExpectedFlow[]
  /** `file:line:column: message`, about the flow at that place of the table. */
  placed(index: number, message: string): string
}

/** The table of flows that `text` (YAML 1.2) has, each at `now` where it does not say when. @throws ConfigError with every problem. */
export function parseFlowTable(text: string, fileName: string, now: Date): FlowTable {
  const source: ConfigSource = readYaml(text, fileName)
  const parsed = TABLE.safeParse(source.value)
  if (!parsed.success) {
    const problems: Problem[] = parsed.error.issues
      .slice(0, MAX_PROBLEMS)
      .flatMap((issue) => issueProblems(issue, source.value, TABLE))
    throw source.error(problems)
  }
  return {
    flows: parsed.data.map(
      ({ dst, protocol = 'tcp', listener, interface: by, mac, host, detected, learnt = [], at, rule, ...rest }) => ({
        ...rest,
        originalDst: dst,
        protocol,
        listener,
        interface: by,
        mac,
        host,
        detected,
        learntNames: learnt,
        at: at === undefined ? now : momentFrom(at, now),
        rule,
      }),
    ),
    placed: (index, message) => source.error([{ path: [index], message }]).problems[0]!,
  }
}

import { z } from 'zod'
import type { Endpoint } from '../net/address.ts'
import { issueProblems } from './issues.ts'
import { MOMENT, type Moment } from './moment.ts'
import type { DetectedProtocol } from './policy-types.ts'
import { CLIENT_ADDRESS, DETECTED, FLOW_DESTINATION, HOST_NAME, MAC, POLICY_THENS } from './policy-values.ts'
import { type ConfigSource, MAX_PROBLEMS, type Problem } from './problem.ts'
import { value, values } from './schema.ts'
import type { Protocol } from './types.ts'
import { INTERFACE, PROTOCOL } from './values.ts'
import { readYaml } from './yaml-source.ts'

const MAX_FLOWS = 20_000
const EXPECT = new RegExp(`^(?:${POLICY_THENS.join('|')})(?: .+)?$`)

/** One line of a table: a flow, and what the policy is expected to say of it. */
export interface ExpectedFlow {
  readonly client: string
  /** Port 0: none was given. */
  readonly dst: Endpoint
  readonly protocol: Protocol
  readonly listener: string | undefined
  readonly interface: string | undefined
  readonly mac: string | undefined
  readonly host: string | undefined
  readonly detected: DetectedProtocol | undefined
  readonly learnt: readonly string[]
  readonly at: Moment | undefined
  /** A kind of decision (`reject`), or a whole one (`reject by forbidden`). */
  readonly expect: string
  /** The name of a rule, or `otherwise`; undefined: whichever. */
  readonly rule: string | undefined
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
    expect: z.string({ error: 'forward, via, handle, reject or bypass' }).regex(EXPECT, {
      error: 'forward, via, handle, reject or bypass, or more of it, such as reject by forbidden',
    }),
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

/** The table of flows that `text` (YAML 1.2) has. @throws ConfigError with every problem. */
export function parseFlowTable(text: string, fileName: string): FlowTable {
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
      ({ protocol = 'tcp', listener, interface: by, mac, host, detected, learnt = [], at, rule, ...rest }) => {
        return { ...rest, protocol, listener, interface: by, mac, host, detected, learnt, at, rule }
      },
    ),
    placed: (index, message) => source.error([{ path: [index], message }]).problems[0]!,
  }
}

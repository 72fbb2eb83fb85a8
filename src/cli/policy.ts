import type { Command } from 'commander'
import type { Colour } from '../colour.ts'
import { readConfig } from '../config/find.ts'
import type { ExpectedFlow } from '../config/flow-table.ts'
import { POLICY_THEN } from '../config/policy-values.ts'
import type { Config } from '../config/types.ts'
import { type Explanation, explainFlow, missingOf } from '../policy/asked-flow.ts'
import { formatDecision, formatRule } from '../policy/decision-text.ts'
import { LoadedPolicy } from '../policy/loaded-policy.ts'
import type { Policy, RuleAccount } from '../policy/policy.ts'
import { configFile, loadConfig } from './config-file.ts'
import { explanationJson, explanationLines, outcomesText } from './explanation.ts'
import type { Invocation } from './invocation.ts'
import { configurePush } from './policy-push.ts'
import { note, printJson, printLine } from './print.ts'
import { notingProblems } from './problems.ts'
import { withSharedPolicy } from './shared-policy.ts'

const EXIT_DIFFERS = 3

interface TestFlags {
  config?: string
  json?: true
}

export function configure(command: Command, invocation: Invocation): void {
  configurePush(command, invocation)
  command
    .command('test <file>')
    .description('decide a table of flows, and tell where a decision is not the expected one')
    .option('-c, --config <config>', 'limpid.yaml; without it the usual places are searched')
    .option('--json', 'what differs, as JSON')
    .addHelpText(
      'after',
      `
The table is YAML, a list of flows: { client, dst, expect } and, where they matter, protocol, listener, interface, mac, host,
detected, learnt, at, rule. \`expect\`: ${POLICY_THEN.expected}, or more of it: reject by forbidden. \`rule\`: a name,
or otherwise.
Reads the file and its lists, and asks no running Limpid. Exit code 3: a decision differs.`,
    )
    .action((file: string, flags: TestFlags) => notingProblems(invocation, () => testTable(file, flags, invocation)))
}

async function testTable(file: string, flags: TestFlags, invocation: Invocation): Promise<void> {
  const { parseFlowTable } = await import('../config/flow-table.ts')
  const table = parseFlowTable(readConfig(file), file, new Date())
  const path = configFile(flags.config, 'limpid policy test FILE -c limpid.yaml')
  const config = withSharedPolicy(await loadConfig(path, { policyAlone: true, decides: false }))
  const loaded = await LoadedPolicy.open(config.policy, note)
  const results = table.flows.map((flow) => judge(flow, loaded.policy, config))
  await loaded.close()
  const failed = results.flatMap((result, index) =>
    result.problem === undefined ? [] : [{ ...result, place: table.placed(index, result.problem) }],
  )
  if (flags.json === true) printJson(failed.map(failureJson))
  else for (const line of failed.flatMap((one) => failureLines(one, invocation.colour))) printLine(line)
  const good = results.length - failed.length
  if (flags.json !== true) printLine(`${good} of ${results.length} flows are decided as expected`)
  if (failed.length > 0) invocation.exitCode = EXIT_DIFFERS
}

interface Judged {
  /** Undefined: as expected. */
  readonly problem: string | undefined
  /** Undefined where the question is not complete. */
  readonly explanation: Explanation | undefined
}

function judge(flow: ExpectedFlow, policy: Policy, config: Config): Judged {
  const missing = missingOf(flow, config, (key) => `${key}: NAME`)
  if (missing !== undefined) return { problem: missing, explanation: undefined }
  const explanation = explainFlow(flow, policy, config)
  if (explanation.outcomes.every((outcome) => isExpected(outcome, flow))) return { problem: undefined, explanation }
  const expected = `${flow.expect}${flow.rule === undefined ? '' : ` by ${flow.rule}`}`
  return { problem: `expected ${expected}, found ${outcomesText(explanation.outcomes)}`, explanation }
}

function isExpected({ rule, decision }: RuleAccount, { expect, rule: byRule }: Pick<ExpectedFlow, 'expect' | 'rule'>) {
  const isDecision = expect === decision.kind || expect === formatDecision(decision)
  return isDecision && (byRule === undefined || byRule === formatRule(rule))
}

type Failure = Judged & { readonly place: string }

function failureLines({ place, explanation }: Failure, paint: Colour): string[] {
  const why = explanation === undefined ? [] : explanationLines(explanation, paint)
  return [paint.red(place), ...why.map((line) => `  ${line}`)]
}

function failureJson({ place, explanation }: Failure): object {
  return { problem: place, ...(explanation === undefined ? {} : explanationJson(explanation)) }
}

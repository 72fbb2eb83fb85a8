import { isAbsolute } from 'node:path'
import { deepFreeze } from './build.ts'
import { issueProblems } from './issues.ts'
import { MAX_CONFIG_BYTES } from './limits.ts'
import { BUILT_IN_APPS, buildPolicy, policySchema } from './policy.ts'
import type { PolicyConfig } from './policy-types.ts'
import { ConfigError, MAX_PROBLEMS, type Problem } from './problem.ts'
import { value, values } from './schema.ts'
import type { Config } from './types.ts'
import { readYaml } from './yaml-source.ts'

/** What a policy's rules may name of the gateway that it is for. */
export interface Gateway extends Pick<Config, 'listeners' | 'rules'> {
  /** By their names, where it is a program's. */
  readonly apps?: Readonly<Record<string, unknown>>
}

/** What the text of a policy may name, beyond itself. */
export interface PolicySurroundings {
  readonly gateway: Gateway
  /** Lists that lie beside the policy: their files by their names. */
  readonly lists: Readonly<Record<string, string>>
}

const SCHEMA = policySchema({ value, values })

/**
 * The policy that `text` (YAML, what the key `policy` of limpid.yaml holds) describes, checked as there, and frozen. Of the lists beside it
 * it has those that its rules name. `fileName` is for messages.
 * @throws ConfigError with every problem as `file:line:column: …`.
 */
export function parsePolicy(text: string, fileName: string, { gateway, lists }: PolicySurroundings): PolicyConfig {
  if (Buffer.byteLength(text) > MAX_CONFIG_BYTES) {
    throw new ConfigError([`${fileName}:1:1: expected at most ${MAX_CONFIG_BYTES} bytes, found more`])
  }
  const source = readYaml(text, fileName)
  const parsed = SCHEMA.safeParse(source.value)
  if (!parsed.success) {
    const issues = parsed.error.issues.slice(0, MAX_PROBLEMS)
    throw source.error(issues.flatMap((issue) => issueProblems(issue, source.value, SCHEMA)))
  }
  const problems: Problem[] = []
  const own = parsed.data.lists ?? {}
  for (const [name, path] of Object.entries(own)) {
    const at = ['lists', name]
    if (!isAbsolute(path)) problems.push({ path: at, message: `expected an absolute path, found "${path}"` })
    if (Object.hasOwn(lists, name)) problems.push({ path: at, message: `list "${name}" lies beside this policy, too` })
  }
  const named = new Set(parsed.data.rules?.flatMap((rule) => rule.lists ?? []))
  const beside = Object.fromEntries(Object.entries(lists).filter(([name]) => named.has(name)))
  const policy = buildPolicy(
    { ...parsed.data, lists: { ...beside, ...own } },
    {
      listeners: gateway.listeners.length === 0 ? undefined : gateway.listeners.map(({ name }) => name),
      apps: [...BUILT_IN_APPS, ...Object.keys(gateway.apps ?? {})],
      markMask: gateway.rules.markMask,
      report: (problem) => problems.push(problem),
    },
  )
  if (problems.length > 0) throw source.error(problems)
  return deepFreeze(policy)
}

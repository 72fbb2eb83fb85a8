import type { TraceStep } from '../doctor/trace.ts'
import { run } from '../sys/program.ts'
import type { CommentOf } from './observed.ts'

const TABLES = new Set(['raw', 'mangle', 'nat', 'filter'])

/**
 * The comments of iptables' rules, which nft's trace does not show. Where iptables works by nft, a rule of the one is a rule of
 * the other, in the same order: the handle tells which. None for chains that cannot be read.
 */
export async function readComments(steps: readonly TraceStep[]): Promise<CommentOf> {
  const chains = new Map<string, Map<number, string>>()
  for (const { family, table, chain, kind } of steps) {
    const key = `${family} ${table} ${chain}`
    if (kind !== 'rule' || chains.has(key) || !TABLES.has(table) || (family !== 'ip' && family !== 'ip6')) continue
    chains.set(key, await commentsOfChain(family, table, chain))
  }
  return ({ family, table, chain, handle }) =>
    handle === undefined ? undefined : chains.get(`${family} ${table} ${chain}`)?.get(handle)
}

async function commentsOfChain(family: 'ip' | 'ip6', table: string, chain: string): Promise<Map<number, string>> {
  try {
    const [listed, said] = await Promise.all([
      run('nft', ['-a', '-s', 'list', 'chain', family, table, chain]),
      run(family === 'ip' ? 'iptables' : 'ip6tables', ['-t', table, '-S', chain]),
    ])
    const handles = [...listed.stdout.matchAll(/^\t\t.* # handle (\d+)$/gm)].map(([, handle]) => Number(handle))
    const rules = said.stdout.split('\n').filter((line) => line.startsWith(`-A ${chain} `))
    if (handles.length !== rules.length) return new Map()
    return new Map(
      rules.flatMap((rule, i) => {
        const comment = /--comment (?:"([^"]*)"|(\S+))/.exec(rule)
        return comment === null ? [] : [[handles[i]!, comment[1] ?? comment[2]!] as const]
      }),
    )
  } catch {
    return new Map() // no iptables: then the rules are not its
  }
}

import { familySwitch } from './ip-commands.ts'
import type { KnowsRow } from './knows.ts'
import { isEmptyPlan, type Plan } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'

/** The plan as an operator would type it, and what follows from it as comments: a shell script. Ends with a newline. */
export function printPlan(plan: Plan): string {
  const sections: string[] = []
  if (isEmptyPlan(plan)) {
    sections.push('# the kernel needs no rules for this')
  } else {
    for (const { program, text } of [...plan.main, ...plan.guard]) {
      sections.push(`${program === 'nft' ? 'nft -f -' : `${program} --noflush`} <<'EOF'\n${text}EOF`)
    }
    if (plan.ipRules.length > 0)
      sections.push(
        [
          '# marked packets are delivered on this host; only those that were received, hence the detour for `iif lo`',
          ...plan.routes.map((route) => `ip ${familySwitch(route.family)} route add ${routeArgs(route).join(' ')}`),
          ...plan.ipRules.map((rule) => `ip ${familySwitch(rule.family)} rule add ${ipRuleArgs(rule).join(' ')}`),
        ].join('\n'),
      )
    sections.push(
      plan.sysctls.length === 0
        ? '# no sysctl is changed'
        : plan.sysctls
            .map(({ key, value, former, why }) => `sysctl -w ${key}=${value} # now ${former}; ${why}`)
            .join('\n'),
    )
  }
  sections.push(knowsTable(plan.knows), ...plan.notes.map((note) => `# note: ${note}`))
  return `${sections.join('\n\n')}\n`
}

/** Who knows whom, one line per listener, family and way of dialling; families with equal lines share one. */
export function knowsTable(rows: readonly KnowsRow[]): string {
  const cells = rows.map((row) => [
    row.listener,
    `IPv${row.family}`,
    row.clientDials === 'proxy' ? 'X' : 'Z',
    row.clientSees === 'proxy' ? 'X' : 'Z',
    { proxy: 'X', client: 'Y', 'client:port': 'Y, its port' }[row.serverSees as string] ?? row.serverSees,
    row.verdict,
    row.clientSetup,
    row.serverSetup,
  ])
  const heading = ['listener', 'family', 'Y dials', 'Y sees', 'Z sees', 'who knows whom', 'Y needs', 'Z needs']
  const lines = ['Y: the client, X: this host, Z: the server', ...aligned([heading, ...joinFamilies(cells)])]
  return lines.map((line) => `# ${line}`).join('\n')
}

function joinFamilies(rows: readonly string[][]): string[][] {
  const joined = new Map<string, string[]>()
  for (const row of rows) {
    const key = JSON.stringify(row.filter((_, column) => column !== 1))
    const same = joined.get(key)
    if (same === undefined) joined.set(key, [...row])
    else same[1] = 'both'
  }
  return [...joined.values()]
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  )
}

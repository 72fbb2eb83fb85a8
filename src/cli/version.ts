import { release } from 'node:os'
import type { Command } from 'commander'
import type { Invocation } from './invocation.ts'
import { packageVersion } from './package-version.ts'
import { printJson, printLine } from './print.ts'

export function configure(command: Command, _: Invocation): void {
  command.option('--json', 'as JSON').action(({ json }: { json?: true }) => {
    const versions = { limpid: packageVersion(), node: process.version, kernel: release(), arch: process.arch }
    if (json) printJson(versions)
    else printLine(`limpid ${versions.limpid} (Node.js ${versions.node}, Linux ${versions.kernel}, ${versions.arch})`)
  })
}

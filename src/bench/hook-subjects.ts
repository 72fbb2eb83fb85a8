import { ADDRESSES, X_TO_Y } from '../lab/topology.ts'
import { startLimpid, writeRunFile } from './on-topology.ts'
import { TCP_PORTS } from './ports.ts'
import type { SubjectKind } from './suite.ts'
import { PROXIED, tcpKind } from './tcp-path.ts'

/** What the hook waits for in place of a database. */
const WAIT_MS = 5
const HOOKS = `, hooks: { onFlow: () => new Promise((resolve) => setTimeout(resolve, ${WAIT_MS})) }`

/** The rule asks for the first bytes, so that both look at them. */
function program(hooks: string): string {
  return `import { defineConfig } from 'limpid'
export default defineConfig({
  listeners: [{ name: 'all', intercept: 'tproxy', protocols: 'tcp', interfaces: '${X_TO_Y}', family: 4, listen: ['127.0.0.1:50080'],
    ports: [${TCP_PORTS.join(', ')}], source: 'client' }],
  policy: { rules: [{ name: 'nobody', hosts: 'nobody.example', then: 'reject' }] }${hooks}
})
`
}

function kind(name: string, hooks: string): SubjectKind {
  return tcpKind(name, PROXIED, (topology, env) => {
    const file = writeRunFile(`${name}.config.mjs`, program(hooks))
    return startLimpid(topology, ['--config', file], { name, dialled: ADDRESSES[4].z }, env)
  })
}

/** The same configuration with a hook that waits, and without. */
export const HOOK_SUBJECTS: readonly SubjectKind[] = [kind('limpid-hook', HOOKS), kind('limpid', '')]

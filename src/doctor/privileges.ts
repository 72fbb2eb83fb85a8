import type { CapabilityName } from '../sys/capability.ts'
import { type Finding, ok, unknown, wrong } from './finding.ts'

export interface Privileges {
  readonly needed: readonly CapabilityName[]
  /** Effective in this process. */
  readonly own: ReadonlySet<CapabilityName>
  /** Effective in the process that listens; undefined when there is none, or it may not be looked at. */
  readonly holder: { readonly pid: number; readonly capabilities: ReadonlySet<CapabilityName> } | undefined
  readonly uid: number
  readonly configArguments: string
}

const WITHOUT: Partial<Record<CapabilityName, string>> = {
  CAP_NET_ADMIN: 'no rules can be read or installed',
  CAP_NET_RAW: "no socket can take others' addresses (IP_TRANSPARENT)",
}

/** One finding for each capability that is needed: limpid runs with those of the user who starts it. */
export function capabilityFindings({ needed, own, holder, uid, configArguments }: Privileges): Finding[] {
  return needed.map((name) => {
    const short = needed.map((each) => `+${each.slice('CAP_'.length).toLowerCase()}`).join(',')
    const cure =
      `setpriv --reuid=${uid} --init-groups --inh-caps=${short} --ambient-caps=${short} limpid run ${configArguments}`.trim()
    if (holder !== undefined && !holder.capabilities.has(name)) {
      return wrong('capability', `limpid (pid ${holder.pid}) lacks ${name}: ${WITHOUT[name]}`, `as root: ${cure}`)
    }
    if (own.has(name)) return ok('capability', `${name} is there`)
    const what = `this process (uid ${uid}) lacks ${name}: ${WITHOUT[name]}`
    if (holder === undefined) return wrong('capability', what, `as root: ${cure}`)
    return unknown('capability', `${what}; limpid (pid ${holder.pid}) has it`, 'run limpid doctor as root')
  })
}

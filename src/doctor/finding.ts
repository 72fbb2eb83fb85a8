/** `wrong`: flows break by it. `note`: worth knowing, breaks nothing here. `unknown`: could not be checked, and why. */
export type Status = 'ok' | 'note' | 'wrong' | 'unknown'

/** What is looked at. Stable: scripts that read `limpid doctor --json` go by it. */
export type CheckId =
  | 'kernel'
  | 'capability'
  | 'descriptors'
  | 'rp-filter'
  | 'src-valid-mark'
  | 'bridge-nf-call'
  | 'forwarding'
  | 'route-to-clients'
  | 'route-to-servers'
  | 'mtu'
  | 'rules'
  | 'ip-rule'
  | 'local-route'
  | 'route-table'
  | 'foreign-ip-rule'
  | 'foreign-nft'
  | 'listener'
  | 'server'
  | 'forward'
  | 'packets'

/** What one check found. */
export interface Finding {
  readonly id: CheckId
  readonly status: Status
  /** One line that names the object and its values. */
  readonly what: string
  /** One command that mends it. */
  readonly cure?: string
}

export function ok(id: CheckId, what: string): Finding {
  return { id, status: 'ok', what }
}

export function note(id: CheckId, what: string, cure?: string): Finding {
  return withCure({ id, status: 'note', what }, cure)
}

export function wrong(id: CheckId, what: string, cure: string): Finding {
  return { id, status: 'wrong', what, cure }
}

export function unknown(id: CheckId, what: string, cure?: string): Finding {
  return withCure({ id, status: 'unknown', what }, cure)
}

function withCure(finding: Finding, cure: string | undefined): Finding {
  return cure === undefined ? finding : { ...finding, cure }
}

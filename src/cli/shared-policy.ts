import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { POLICY_FILE, readPolicyFolder } from '../config/policy-folder.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'

/**
 * The same, where the policy is shared with it as it lies on this host: in its folder, or as it was kept of a bucket, for commands that ask no
 * running Limpid. @throws ConfigError; LimpidError LIMPID_POLICY_SOURCE when none is kept.
 */
export function withSharedPolicy<C extends Config>(config: C): C {
  const { policyFrom } = config
  if (policyFrom === undefined) return config
  const folder = policyFrom.kind === 'directory' ? policyFrom.directory : policyFrom.keep
  if (policyFrom.kind === 'bucket' && !existsSync(join(folder, POLICY_FILE))) {
    throw new LimpidError('LIMPID_POLICY_SOURCE', `no policy of bucket ${policyFrom.bucket} is kept in ${folder}`, {
      cure: 'run limpid once: it keeps there what it gets from NATS',
    })
  }
  return { ...config, policy: readPolicyFolder(folder, config) }
}

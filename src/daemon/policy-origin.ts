import type { PolicyConfig } from '../config/policy-types.ts'
import type { Config } from '../config/types.ts'
import type { NatsLink } from './nats-link.ts'

/** What `limpid stats` tells of it. */
export interface OriginStats {
  /** `directory /etc/limpid/policy`, `bucket limpid-policy`. */
  readonly from: string
  /** Of the policy that decides: of a bucket's key policy.yaml. Undefined for a folder. */
  readonly revision: number | undefined
  /** Undefined for a folder. */
  readonly isConnected: boolean | undefined
  /** What was wrong last, until it is not any more. */
  readonly problem: string | undefined
}

/** Where the policy comes from that limpid.yaml does not have. */
export interface PolicyOrigin extends AsyncDisposable {
  /** To begin with. @throws LimpidError when there is none. */
  first(): Promise<PolicyConfig>
  /** As it is to be now; parsed beside what this process does. @throws LimpidError with what is wrong with it. */
  read(): Promise<PolicyConfig>
  /** What was read last decides now. */
  taken(): Promise<void>
  /** From now on `onChange` is called when read() may give another one; the next call waits for the end of this one. */
  follow(onChange: () => Promise<void>): void
  readonly stats: OriginStats
}

export interface OriginOptions {
  /** Of a bucket; undefined for a folder. */
  readonly link: NatsLink | undefined
  /** One line for the operator. */
  note(line: string): void
}

/** Resolves when there is a policy to begin with; undefined where limpid.yaml has it. @throws LimpidError when there is none. */
export async function openPolicyOrigin(config: Config, options: OriginOptions): Promise<PolicyOrigin | undefined> {
  const { policyFrom } = config
  if (policyFrom === undefined) return undefined
  if (policyFrom.kind === 'directory') {
    const { PolicyDirectory } = await import('./policy-directory.ts')
    return new PolicyDirectory(policyFrom.directory, config)
  }
  const { PolicyBucket } = await import('./policy-bucket.ts')
  return await PolicyBucket.open(policyFrom, config, { link: options.link!, note: options.note })
}

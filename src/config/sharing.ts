import { NAME } from './name.ts'
import { buildNats, type NatsConfig, natsProblems, natsSchema } from './nats.ts'
import { missing, type Problem } from './problem.ts'
import type { values } from './schema.ts'
import * as z from './zod.ts'

/** Where a policy comes from that other gateways have, too: a folder, or a bucket of NATS JetStream KV. */
export type PolicyFrom =
  | { readonly kind: 'directory'; readonly directory: string }
  /** `keep`: the folder in which the last good policy is kept, for a start without NATS. */
  | { readonly kind: 'bucket'; readonly bucket: string; readonly keep: string }

/** Where flow records go, besides stdout. */
export interface RecordsConfig {
  /** The name of this gateway in them; undefined: the host's. */
  readonly gateway: string | undefined
  readonly file: string | undefined
  /** Of messages to a JetStream stream. */
  readonly subject: string | undefined
}

/** What gateways have in common, and what of it they tell. */
export interface SharingConfig {
  readonly nats?: NatsConfig
  readonly policyFrom?: PolicyFrom
  readonly records?: RecordsConfig
}

const KEPT_IN = '/var/lib/limpid/policy'

const absolute = (what: string) =>
  z.string({ error: `the absolute path of ${what}` }).regex(/^\/[^\0]*$/, { error: `the absolute path of ${what}` })
const BUCKET_ERROR = 'the name of a bucket: letters, digits, "_" and "-"' // nats.io, Key/Value Store
const SUBJECT_ERROR = 'a subject without wildcards and spaces' // nats.io, Subject-Based Messaging

/** The keys `nats`, `policyFrom` and `records`. */
export function sharingKeys(pieces: { readonly values: typeof values }) {
  return {
    nats: natsSchema(pieces).optional().describe('How the servers of NATS are reached.'),
    policyFrom: z
      .strictObject(
        {
          directory: absolute('a folder').optional().describe('It has policy.yaml, and lists in its folder lists.'),
          bucket: z
            .string({ error: BUCKET_ERROR })
            .regex(/^[\w-]{1,64}$/, { error: BUCKET_ERROR })
            .optional()
            .describe('Of NATS JetStream KV: its key policy.yaml, and lists in keys lists/NAME.'),
          keep: absolute('a folder')
            .optional()
            .describe('Where the last good policy of a bucket is kept; a folder below /var/lib/limpid when left out.'),
        },
        { error: 'a map with directory or bucket' },
      )
      .optional()
      .describe('The policy of many gateways, instead of the key policy: a folder or a bucket that is watched.'),
    records: z
      .strictObject(
        {
          gateway: NAME.optional().describe('The name of this gateway in records; its host name when left out.'),
          file: absolute('a file').optional().describe('Records are appended to it, one JSON object on each line.'),
          subject: z
            .string({ error: SUBJECT_ERROR })
            .regex(/^[^\s.*>\p{Cc}]+(?:\.[^\s.*>\p{Cc}]+)*$/u, { error: SUBJECT_ERROR })
            .max(255, { error: SUBJECT_ERROR })
            .optional()
            .describe('A subject of a JetStream stream, to which each record is published.'),
        },
        { error: 'a map with file or subject' },
      )
      .optional()
      .describe('Where flow records go, besides stdout.'),
  }
}

type SharingInput = { [K in keyof ReturnType<typeof sharingKeys>]?: z.output<ReturnType<typeof sharingKeys>[K]> }

/** Completes the three keys, and checks what they say together; those that are left out are not in the result. */
export function buildSharing(
  { nats, policyFrom, records }: SharingInput,
  report: (problem: Problem) => void,
): SharingConfig {
  const shared = {
    ...(nats && { nats: buildNats(nats) }),
    ...(policyFrom && { policyFrom: buildPolicyFrom(policyFrom, report) }),
    ...(records && {
      records: { gateway: records.gateway, file: records.file, subject: records.subject },
    }),
  }
  if (shared.nats !== undefined) for (const problem of natsProblems(shared.nats)) report(problem)
  if (nats === undefined && policyFrom?.bucket !== undefined) report(missing('nats', 'policyFrom has a bucket'))
  if (nats === undefined && records?.subject !== undefined) report(missing('nats', 'records have a subject'))
  if (records !== undefined && records.file === undefined && records.subject === undefined) {
    report({ path: ['records'], message: 'expected "file" or "subject", or both' })
  }
  return shared
}

function buildPolicyFrom(
  { directory, bucket, keep }: NonNullable<SharingInput['policyFrom']>,
  report: (problem: Problem) => void,
): PolicyFrom {
  if ((directory === undefined) === (bucket === undefined)) {
    report({ path: ['policyFrom'], message: 'expected one of "directory" and "bucket"' })
  }
  if (bucket !== undefined) return { kind: 'bucket', bucket, keep: keep ?? `${KEPT_IN}/${bucket}` }
  if (keep !== undefined) {
    report({ path: ['policyFrom', 'keep'], at: 'key', message: '"keep" has no meaning without a bucket' })
  }
  return { kind: 'directory', directory: directory ?? '' }
}

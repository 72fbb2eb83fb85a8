import { parsePort } from '../net/address.ts'
import type { Problem } from './problem.ts'
import type { values } from './schema.ts'
import type { ValueKind } from './values.ts'
import * as z from './zod.ts'

const MAX_SERVERS = 16

/** How the servers of NATS are reached: for `policyFrom: { bucket }` and `records: { subject }`. */
export interface NatsConfig {
  /** `nats://10.0.0.5:4222`, `tls://…`; one of them is tried after the other. */
  readonly servers: readonly string[]
  /** The file of a user's JWT and NKey (`nsc generate creds`). */
  readonly credentials: string | undefined
  readonly user: string | undefined
  readonly password: string | undefined
  /** Files in PEM; undefined: as the server wants it. */
  readonly tls:
    | { readonly ca: string | undefined; readonly cert: string | undefined; readonly key: string | undefined }
    | undefined
}

export const NATS_SERVER: ValueKind<string> = {
  expected: 'a server of NATS such as nats://10.0.0.5:4222 or tls://nats.example:4222',
  parse: (text) => {
    const [, scheme = 'nats', host, port = '4222'] =
      /^(?:(nats|tls):\/\/)?([\w.-]+|\[[\da-fA-F:.]+\])(?::(\d+))?$/.exec(text) ?? []
    return host === undefined || parsePort(port) === undefined ? undefined : `${scheme}://${host}:${port}`
  },
  hint: (text) => (text.includes('@') ? 'who we are is told by "user" and "password", or "credentials"' : undefined),
}

const FILE = z.string({ error: 'the path of a file' }).min(1, { error: 'the path of a file' })
const SECRET = z
  .string({ error: 'a text' })
  .min(1, { error: 'a text' })
  .max(1_024, { error: 'at most 1024 characters' })

/** The key `nats`. */
export function natsSchema(pieces: { readonly values: typeof values }) {
  return z.strictObject(
    {
      servers: pieces
        .values(NATS_SERVER, 1, MAX_SERVERS)
        .nonoptional({ error: NATS_SERVER.expected })
        .describe('One is tried after the other: nats://10.0.0.5:4222, tls://nats.example:4222.'),
      credentials: FILE.optional().describe('The file of a user’s JWT and NKey.'),
      user: SECRET.optional().describe('Instead of credentials.'),
      password: SECRET.optional().describe('Of that user.'),
      tls: z
        .strictObject(
          {
            ca: FILE.optional().describe('Whom to believe (PEM).'),
            cert: FILE.optional().describe('Who we are (PEM).'),
            key: FILE.optional().describe('Its private key (PEM).'),
          },
          { error: 'a map with ca, cert and key' },
        )
        .optional()
        .describe('Files: whom to believe, and who we are. An empty map: TLS, by the authorities that Node.js knows.'),
    },
    { error: 'a map with servers' },
  )
}

export type NatsInput = z.output<ReturnType<typeof natsSchema>>

export function buildNats({ servers, credentials, user, password, tls }: NatsInput): NatsConfig {
  return { servers, credentials, user, password, tls: tls && { ca: tls.ca, cert: tls.cert, key: tls.key } }
}

export function natsProblems({ credentials, user, password, tls }: NatsConfig): Problem[] {
  const problems: Problem[] = []
  if ((user === undefined) !== (password === undefined)) {
    problems.push({ path: ['nats'], message: 'expected both "user" and "password", or none' })
  }
  if (user !== undefined && credentials !== undefined) {
    problems.push({ path: ['nats', 'user'], message: 'expected "credentials" or "user", found both' })
  }
  if ((tls?.cert === undefined) !== (tls?.key === undefined)) {
    problems.push({ path: ['nats', 'tls'], message: 'expected both "cert" and "key", or none' })
  }
  return problems
}

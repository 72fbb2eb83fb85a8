import type { Credentials, Via } from './policy-types.ts'
import { PROXY_ENDPOINT, PROXY_VERSION } from './policy-values.ts'
import { missing, type Report } from './problem.ts'
import type { value as parsed } from './schema.ts'
import * as z from './zod.ts'

const MAX_CREDENTIAL_BYTES = 255 // RFC 1929 §2: one byte tells the length
const CREDENTIAL_ERROR = `1 to ${MAX_CREDENTIAL_BYTES} bytes without control characters`
const CREDENTIAL = z
  .string({ error: CREDENTIAL_ERROR })
  .regex(/^\P{Cc}+$/u, { error: CREDENTIAL_ERROR })
  .refine((text) => Buffer.byteLength(text) <= MAX_CREDENTIAL_BYTES, { error: CREDENTIAL_ERROR })

/** The key `via` of a rule. */
export function viaSchema({ value }: { readonly value: typeof parsed }) {
  return z
    .strictObject(
      {
        proxyProtocol: value<1 | 2, 'v1' | 'v2'>(PROXY_VERSION)
          .optional()
          .describe(
            'v1 or v2: the upstream is told the client and the original destination by a PROXY protocol header.',
          ),
        socks5: value(PROXY_ENDPOINT)
          .optional()
          .describe('A SOCKS5 proxy (RFC 1928) that is asked for the destination.'),
        connect: value(PROXY_ENDPOINT)
          .optional()
          .describe('An HTTP proxy that is asked for the destination with CONNECT (RFC 9110 §9.3.6).'),
        user: CREDENTIAL.optional().describe('For the proxy: RFC 1929 with SOCKS5, Basic with CONNECT.'),
        password: CREDENTIAL.optional().describe('The same.'),
        names: z
          .boolean({ error: 'true or false' })
          .optional()
          .describe('true: the proxy is asked for the host by its name, where one is known, not by its address.'),
      },
      { error: 'a map with proxyProtocol, socks5 or connect' },
    )
    .describe('With `then: via`: what is said on the upstream connection first.')
}

export type ViaInput = z.output<ReturnType<typeof viaSchema>>

const NO_VIA: Via = { kind: 'proxy-protocol', version: 2 } // of a rule that is in error

/** Of a rule with `then: via`. Problems go to `report`, with paths that begin with `path`, the rule's. */
export function buildVia(input: ViaInput | undefined, path: readonly (string | number)[], report: Report): Via {
  if (input === undefined) {
    const problem = missing('via', 'then via needs to know what it is: proxyProtocol, socks5 or connect')
    report({ ...problem, path: [...path, ...problem.path] })
    return NO_VIA
  }
  const { proxyProtocol, socks5, connect } = input
  const proxy = socks5 ?? connect
  if ([proxyProtocol, socks5, connect].filter((one) => one !== undefined).length !== 1) {
    report({ path: [...path, 'via'], message: 'expected one of proxyProtocol, socks5 and connect' })
    return NO_VIA
  }
  if (proxy === undefined) {
    for (const key of ['user', 'password', 'names'] as const) {
      if (input[key] === undefined) continue
      report({ path: [...path, 'via', key], at: 'key', message: `"${key}" has no meaning with proxyProtocol` })
    }
    return { kind: 'proxy-protocol', version: proxyProtocol! }
  }
  const kind = socks5 === undefined ? 'connect' : 'socks5'
  return { kind, proxy, credentials: buildCredentials(input, kind, path, report), names: input.names ?? false }
}

function buildCredentials(
  { user, password }: ViaInput,
  kind: 'socks5' | 'connect',
  path: readonly (string | number)[],
  report: Report,
): Credentials | undefined {
  if (user === undefined && password === undefined) return undefined
  if (user === undefined || password === undefined) {
    report({ path: [...path, 'via'], message: 'expected both "user" and "password", or none' })
    return undefined
  }
  if (kind === 'connect' && user.includes(':')) {
    report({ path: [...path, 'via', 'user'], message: 'expected a user without ":", which ends it (RFC 7617 §2)' })
  }
  return { user, password }
}

import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import type { Authenticator, TlsOptions } from '@nats-io/transport-node'
import type { NatsConfig } from '../config/nats.ts'
import { readSecret } from './secret-file.ts'

/** How NATS is spoken to where TLS is asked for. */
export interface NatsTls {
  readonly tls: TlsOptions
  /** Refuses to tell who we are in the clear; before any other authenticator. */
  readonly authenticator: Authenticator
}

/**
 * What the package of NATS leaves open (@nats-io/transport-node 3.3.1): with tls:// alone it speaks in the clear to who does not offer TLS,
 * and in any case to who offers it with another value than `true`; and it looks for "localhost" in the certificate of an address. Undefined:
 * TLS is up to the server.
 * @throws LimpidError LIMPID_CONFIG for files that cannot be read.
 */
export function natsTls({ servers, tls }: NatsConfig): NatsTls | undefined {
  if (tls === undefined && !servers.some((server) => server.startsWith('tls:'))) return undefined
  const pem = (file: string | undefined): string | undefined => (file === undefined ? undefined : `${readSecret(file)}`)
  const [ca, cert, key] = [tls?.ca, tls?.cert, tls?.key].map(pem)
  const hosts = servers.map((server) => new URL(server).hostname.replace(/^\[(.*)\]$/, '$1'))
  let isSecured = false
  const options = {
    ...(ca && { ca }),
    ...(cert && { cert }),
    ...(key && { key }),
    // passed on to tls.connect(); each handshake calls it, since no session is resumed
    checkServerIdentity: (_: string, certificate: PeerCertificate): Error | undefined => {
      const errors = hosts.map((host) => checkServerIdentity(host, certificate))
      isSecured = errors.includes(undefined)
      return isSecured ? undefined : errors[0]
    },
  }
  const authenticator: Authenticator = () => {
    if (!isSecured) throw new Error('the server does not offer TLS')
    isSecured = false // the next connection has a handshake of its own
    return undefined
  }
  return { tls: options, authenticator }
}

import type { DetectedProtocol } from '../config/policy-types.ts'
import { probeHttp1 } from './http1-head.ts'
import { probeHttp2 } from './http2-preface.ts'
import { match, more, NO, type Probed } from './probe.ts'
import { probeSocks } from './socks.ts'
import { beginsAsSsh, probeSsh } from './ssh-banner.ts'
import { probeTls } from './tls-client-hello.ts'

/** What the first bytes of a stream are, and whom they are for. */
export interface StreamFinding {
  readonly protocol: DetectedProtocol
  /** Canonical; undefined where there is none. */
  readonly host: string | undefined
  /** Of an HTTP client that names its host by an IP literal: canonical. */
  readonly address?: string | undefined
  /** Of a TLS client: the protocols that it would speak (ALPN), first choice first. */
  readonly alpn?: readonly string[]
}

type Probe = (bytes: Uint8Array) => Probed<StreamFinding>

/** No two of them match the same bytes, nor does one call malformed what another matches. */
const PROBES: readonly Probe[] = [
  (bytes) => named(probeTls(bytes), ({ serverName, alpn }) => ({ protocol: 'tls', host: serverName, alpn })),
  (bytes) => named(probeHttp2(bytes), ({ host, address }) => ({ protocol: 'http2', host, address })),
  (bytes) =>
    beginsAsSsh(bytes) ? NO : named(probeHttp1(bytes), ({ host, address }) => ({ protocol: 'http1', host, address })), // a method may be `SSH-2.0-x`
  (bytes) => named(probeSsh(bytes), () => ({ protocol: 'ssh', host: undefined })),
  (bytes) => named(probeSocks(bytes), () => ({ protocol: 'socks', host: undefined })),
]

/** The first bytes of a client's stream, by all probes: `no` when none knows them. */
export function inspectStream(bytes: Uint8Array): Probed<StreamFinding> {
  let atLeast = Number.POSITIVE_INFINITY
  for (const probe of PROBES) {
    const probed = probe(bytes)
    if (probed.kind === 'match' || probed.kind === 'malformed') return probed
    if (probed.kind === 'more') atLeast = Math.min(atLeast, probed.atLeast)
  }
  return atLeast === Number.POSITIVE_INFINITY ? NO : more(atLeast)
}

function named<T>(probed: Probed<T>, finding: (found: T) => StreamFinding): Probed<StreamFinding> {
  return probed.kind === 'match' ? match(finding(probed.finding)) : probed
}

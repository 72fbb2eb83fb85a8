import { fuzzApp } from '../apps/dns/app.fixture.ts'
import { readAll, SEEDS } from './dns.fixture.ts'
import { DNS_CAPTURES } from './dns-captures.fixture.ts'
import type { FuzzSubject } from './fuzz.fixture.ts'
import { subject as hpack } from './hpack.fixture.ts'
import { subject as http1 } from './http1-head.fixture.ts'
import { subject as http2 } from './http2-preface.fixture.ts'
import { subject as proxyProtocol } from './proxy-protocol.fixture.ts'
import { subject as quic } from './quic.fixture.ts'
import { subject as socks } from './socks.fixture.ts'
import { subject as ssh } from './ssh-banner.fixture.ts'
import { subject as stream } from './stream.fixture.ts'
import { subject as tls } from './tls-client-hello.fixture.ts'

const DNS_SAMPLES: readonly Uint8Array[] = [...DNS_CAPTURES, ...SEEDS]

/** All that `npm run fuzz` can name. A new parser's `subject` stands in its own fixture, and here. */
export function fuzzSubjects(): readonly FuzzSubject[] {
  return [dns, dnsApp(), tls, quic, http1, http2, hpack, ssh, socks, proxyProtocol, stream]
}

/** The readers of messages. */
const dns: FuzzSubject<string> = {
  name: 'dns',
  samples: DNS_SAMPLES,
  parse: readAll,
  mostBytes: 16_384,
  read: (_bytes, outcome) => outcome,
}

/** The app that stands on them. */
function dnsApp(): FuzzSubject<string> {
  const offer = fuzzApp()
  return {
    name: 'dns-app',
    samples: DNS_SAMPLES,
    parse: (bytes) => offer(bytes.slice()),
    mostBytes: 131_072,
    read: (_bytes, outcome) => outcome,
  }
}

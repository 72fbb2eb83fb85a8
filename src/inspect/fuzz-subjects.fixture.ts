import { fuzzApp } from '../apps/dns/app.fixture.ts'
import { readAll, SEEDS } from './dns.fixture.ts'
import type { FuzzSubject } from './fuzz.fixture.ts'
import { subject as http1 } from './http1-head.fixture.ts'
import { subject as http2 } from './http2-preface.fixture.ts'
import { subject as proxyProtocol } from './proxy-protocol.fixture.ts'
import { subject as quic } from './quic.fixture.ts'
import { subject as socks } from './socks.fixture.ts'
import { subject as ssh } from './ssh-banner.fixture.ts'
import { subject as tls } from './tls-client-hello.fixture.ts'

/** All that `npm run fuzz` can name. A new parser's `subject` stands in its own fixture, and here. */
export function fuzzSubjects(): readonly FuzzSubject[] {
  return [dns(), tls, quic, http1, http2, ssh, socks, proxyProtocol]
}

/** The readers of messages, and the app that stands on them. */
function dns(): FuzzSubject {
  const offer = fuzzApp()
  return { name: 'dns', samples: SEEDS, read: (bytes) => `${readAll(bytes)}, ${offer(bytes.slice())}` }
}

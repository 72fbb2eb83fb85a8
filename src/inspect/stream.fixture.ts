import assert from 'node:assert/strict'
import { type FuzzSubject, probeOutcome } from './fuzz.fixture.ts'
import { subject as http1 } from './http1-head.fixture.ts'
import { probeHttp1 } from './http1-head.ts'
import { subject as http2 } from './http2-preface.fixture.ts'
import { probeHttp2 } from './http2-preface.ts'
import { subject as socks } from './socks.fixture.ts'
import { probeSocks } from './socks.ts'
import { subject as ssh } from './ssh-banner.fixture.ts'
import { probeSsh } from './ssh-banner.ts'
import { inspectStream } from './stream.ts'
import { subject as tls } from './tls-client-hello.fixture.ts'
import { probeTls } from './tls-client-hello.ts'

const PROBES = [probeTls, probeHttp2, probeHttp1, probeSsh, probeSocks]

/** All probes of a stream's first bytes, one after the other: no two of them may match the same bytes. */
export const subject: FuzzSubject<ReturnType<typeof inspectStream>> = {
  name: 'stream',
  samples: [tls, http2, http1, ssh, socks].flatMap(({ samples }) => samples),
  parse: inspectStream,
  mostBytes: 262_144,
  read(bytes, answer) {
    const matches = PROBES.filter((probe) => probe(bytes).kind === 'match').length
    assert.ok(matches <= 1 || answer.kind === 'malformed', 'two protocols at once')
    const outcome = probeOutcome(inspectStream, bytes, answer)
    return answer.kind === 'match' ? answer.finding.protocol : answer.kind === 'malformed' ? 'malformed' : outcome
  },
}

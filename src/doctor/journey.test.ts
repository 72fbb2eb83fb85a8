import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_RULES } from '../config/defaults.ts'
import { diagnose, type Journey } from './journey.ts'
import { parseTrace } from './trace.ts'

const LOST = {
  connected: false,
  taken: false,
  answered: false,
  failure: 'silence',
  serverSaw: undefined,
  serverWaits: false,
  ms: 900,
}
const TAKEN = `trace id 1 inet limpid prerouting packet: iif "x-y" ip saddr 198.18.7.2 ip daddr 198.18.7.6 tcp flags == syn
trace id 1 inet limpid prerouting rule meta nfproto ipv4 tproxy ip to 127.0.0.1:50080 counter packets 1 bytes 60 goto take comment "listener web" # handle 9 (verdict goto take)
trace id 1 inet limpid take verdict accept meta mark 0x10000000
`

function journey(changes: Partial<Journey>): Journey {
  return {
    probe: 'TCP over IPv4',
    listener: 'web',
    outcome: LOST,
    rules: DEFAULT_RULES,
    byMark: true,
    isOurs: ({ table }) => table === 'limpid',
    seen: true,
    syn: parseTrace(TAKEN)[0]!,
    synAck: [],
    serverSynAck: [],
    takenWay: { kind: 'local' },
    wayBack: { kind: 'by', dev: 'limpid-dc', via: undefined },
    dialWay: { kind: 'by', dev: 'limpid-ds', via: undefined },
    answerWay: { kind: 'local' },
    entryLink: 'limpid-dc',
    ingress: undefined,
    serverLink: 'limpid-ds',
    reversePath: 0,
    isListening: true,
    runCommand: 'limpid run',
    mendRules: 'limpid rules install',
    mendRouting: 'ip rule add …',
    ...changes,
  }
}

const BEHIND = { ...LOST, connected: true, taken: true }
const DROP = 'trace id 1 inet theirs i policy drop\n'

for (const [name, changes, what, cure] of [
  ['never seen', { seen: false, syn: [] }, /before nft's prerouting hook/, /^tcpdump/],
  ['no rules', { syn: [] }, /no rule of ours sees it/, /^limpid rules install$/],
  [
    'a policy drops it later',
    { syn: parseTrace(TAKEN + DROP)[0]! },
    /chain i: its policy drop/,
    /^nft insert rule inet theirs i /,
  ],
  [
    'no route to this host',
    { takenWay: { kind: 'by', dev: 'eth1', via: undefined } },
    /policy routing: .* routed by eth1/,
    /^ip rule add/,
  ],
  [
    'rp_filter',
    { takenWay: { kind: 'none', why: 'Invalid argument' }, reversePath: 2 },
    /rp_filter on limpid-dc/,
    /rp_filter=2$/,
  ],
  [
    'reset by this host',
    { outcome: { ...LOST, failure: 'ECONNREFUSED' } },
    /at the socket: this host answers ECONNREFUSED/,
    /^ss /,
  ],
  ['backlog', {}, /no SYN-ACK comes/, /backlog/],
  [
    'no way to the server',
    { outcome: BEHIND, dialWay: { kind: 'none', why: 'Network is unreachable' } },
    /no route to the server: Network is unreachable/,
    /^ip route add/,
  ],
  ['dial lost', { outcome: BEHIND }, /its dial does not reach the server/, /^tcpdump -ni limpid-ds/],
  [
    'answer lost to rp_filter',
    { outcome: { ...BEHIND, serverWaits: true }, reversePath: 1 },
    /rp_filter on limpid-ds drops the server's SYN-ACK/,
    /limpid-ds\.rp_filter=2$/,
  ],
  [
    'answer routed on',
    { outcome: { ...BEHIND, serverWaits: true }, answerWay: { kind: 'by', dev: 'eth0', via: undefined } },
    /routed by eth0 instead/,
    /^ip rule add/,
  ],
] as readonly (readonly [string, Partial<Journey>, RegExp, RegExp])[]) {
  test(`a dead packet's hop is named: ${name}`, () => {
    const found = diagnose(journey(changes))
    assert.equal(found.status, 'wrong')
    assert.match(found.what, what)
    assert.match(found.cure ?? '', cure)
  })
}

test('what goes on to the server for want of a listener does not die', () => {
  const found = diagnose(journey({ outcome: { ...LOST, connected: true }, isListening: false }))
  assert.equal(
    found.what,
    'TCP over IPv4 to listener web is not taken: nothing listens there, and it goes on to the server',
  )
})

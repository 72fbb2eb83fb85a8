import { crypto, sealed } from '../inspect/quic.fixture.ts'
import {
  CAPTURES,
  helloMessage,
  inRecords,
  protocols,
  serverName,
  uint16,
  vector16,
} from '../inspect/tls-client-hello.fixture.ts'

/** What a client does to get past a rule that refuses `.blocked.example`, and what becomes of it. */
export interface Attempt {
  readonly name: string
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
  /** Sent one after the other; a number: milliseconds to wait. */
  readonly steps: readonly (Uint8Array | number | 'fin')[]
  /** `passes`: the server gets what was sent; `held`: what comes of the refused hello waits for its rest, which cannot come any more. */
  readonly outcome: 'policy' | 'malformed' | 'hello-timeout' | 'passes' | 'held'
}

const BLOCKED = 'www.blocked.example'
const SILENCE_AND_MORE_MS = 600

function tls(name: string): Uint8Array {
  return inRecords(hello(serverName(name)))
}

function hello(...extensions: readonly (readonly [number, readonly number[]])[]): Uint8Array {
  return helloMessage({ extensions: [...extensions, protocols('h2', 'http/1.1')] })
}

function names(...texts: readonly string[]): readonly [number, number[]] {
  return [0, vector16(texts.flatMap((text) => [0, ...vector16([...Buffer.from(text, 'latin1')])]))]
}

function http(...lines: readonly string[]): Uint8Array {
  return Buffer.from([...lines, '', ''].join('\r\n'), 'latin1')
}

function bytesOf(message: Uint8Array, pauseMs: number): (Uint8Array | number)[] {
  return [...message].flatMap((byte) => [Uint8Array.of(byte), pauseMs])
}

function inPieces(message: Uint8Array, ...at: readonly number[]): (Uint8Array | number)[] {
  const cuts = [0, ...at, message.length]
  return cuts.slice(1).flatMap((end, i) => [message.subarray(cuts[i]!, end), 20])
}

/** RFC 9113 §3.4: the preface, empty SETTINGS, and HEADERS of stream 1 without Huffman codes. */
function http2(authority: string): Uint8Array {
  const literal = (index: number, text: string) => [index, text.length, ...Buffer.from(text, 'latin1')]
  const block = [0x82, 0x86, 0x84, ...literal(0x41, authority)] // GET, http, /, :authority
  return Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0),
    Uint8Array.of(0, ...uint16(block.length), 1, 0x5, 0, 0, 0, 1, ...block),
  ])
}

function quic(name: string, dcid: string): Uint8Array {
  return sealed(crypto(hello(serverName(name))), { dcid: Buffer.from(dcid, 'hex') })
}

/** A hello in two datagrams, the end of it first. */
function quicShuffled(name: string): Uint8Array[] {
  const message = hello(serverName(name))
  const dcid = Buffer.from('00112233445566ff', 'hex')
  const half = message.length >> 1
  return [
    sealed(crypto(message.subarray(half), half), { dcid, number: 0 }),
    sealed(crypto(message.subarray(0, half)), { dcid, number: 1 }),
  ]
}

/** Hellos of two connections, each in two datagrams. */
const HALVES = (() => {
  const halves = (name: string, dcid: string) => {
    const message = hello(serverName(name))
    const half = message.length >> 1
    const options = { dcid: Buffer.from(dcid, 'hex') }
    return [
      sealed(crypto(message.subarray(0, half)), { ...options, number: 0 }),
      sealed(crypto(message.subarray(half), half), { ...options, number: 1 }),
    ] as const
  }
  return { blocked: halves(BLOCKED, 'ee11223344556677'), ok: halves('ok.example', 'ff11223344556677') }
})()

const tcp = { protocol: 'tcp', port: 443 } as const
const web = { protocol: 'tcp', port: 80 } as const
const udp = { protocol: 'udp', port: 443 } as const
const HOST = `Host: ${BLOCKED}`
const GET = 'GET / HTTP/1.1'

/** In the order of docs/inspection/attempts.md, which says why. */
export const ATTEMPTS: readonly Attempt[] = [
  { ...tcp, name: 'SNI in mixed case', steps: [tls('WWW.Blocked.EXAMPLE')], outcome: 'policy' },
  { ...tcp, name: 'SNI with the root’s dot', steps: [tls(`${BLOCKED}.`)], outcome: 'policy' },
  { ...tcp, name: 'ClientHello in single bytes', steps: bytesOf(tls(BLOCKED), 1), outcome: 'policy' },
  {
    ...tcp,
    name: 'ClientHello in many TLS records',
    steps: [inRecords(hello(serverName(BLOCKED)), [1, 1, 4, 20, 60])],
    outcome: 'policy',
  },
  { ...tcp, name: 'ClientHello cut within the name', steps: inPieces(tls(BLOCKED), 70, 75), outcome: 'policy' },
  { ...tcp, name: 'ClientHello that never ends', steps: [tls(BLOCKED).subarray(0, 40)], outcome: 'hello-timeout' },
  { ...tcp, name: 'FIN within the ClientHello', steps: [tls(BLOCKED).subarray(0, 40), 'fin'], outcome: 'malformed' },
  { ...tcp, name: 'SNI with NUL', steps: [tls('ok.example\0.blocked.example')], outcome: 'malformed' },
  { ...tcp, name: 'two names in SNI', steps: [inRecords(hello(names('ok.example', BLOCKED)))], outcome: 'malformed' },
  {
    ...tcp,
    name: 'SNI extension twice',
    steps: [inRecords(hello(serverName('ok.example'), serverName(BLOCKED)))],
    outcome: 'malformed',
  },
  { ...tcp, name: 'no SNI', steps: [inRecords(hello())], outcome: 'passes' },
  { ...tcp, name: 'Encrypted Client Hello with another outer name', steps: [CAPTURES.chromium], outcome: 'passes' },
  { ...tcp, name: 'silence, then a ClientHello', steps: [SILENCE_AND_MORE_MS, tls(BLOCKED)], outcome: 'policy' },
  { ...web, name: 'silence, then an HTTP head', steps: [SILENCE_AND_MORE_MS, http(GET, HOST)], outcome: 'policy' },
  {
    ...web,
    name: 'silence, then half a head',
    steps: [SILENCE_AND_MORE_MS, Buffer.from(`${GET}\r\nHost: `)],
    outcome: 'hello-timeout',
  },
  {
    ...web,
    name: 'silence, then another name',
    steps: [SILENCE_AND_MORE_MS, http(GET, 'Host: ok.example')],
    outcome: 'passes',
  },
  { ...tcp, name: 'HTTP on the port of TLS', steps: [http(GET, 'Host: ok.example')], outcome: 'policy' },
  { ...tcp, name: 'SSH on the port of TLS', steps: [Buffer.from('SSH-2.0-x\r\n')], outcome: 'policy' },
  { ...tcp, name: 'SOCKS on the port of TLS', steps: [Uint8Array.of(5, 1, 0)], outcome: 'policy' },
  {
    ...tcp,
    name: 'a protocol that nobody knows on the port of TLS',
    steps: [Buffer.from('\x13BitTorrent protocol', 'latin1')],
    outcome: 'policy',
  },
  {
    ...web,
    name: 'Host in mixed case, with a port and the root’s dot',
    steps: [http(GET, 'hOST:\t WWW.BLOCKED.example.:80')],
    outcome: 'policy',
  },
  { ...web, name: 'two Host fields', steps: [http(GET, 'Host: ok.example', HOST)], outcome: 'malformed' },
  {
    ...web,
    name: 'Host continued on another line',
    steps: [http(GET, 'Host: ok.example', ' .blocked.example')],
    outcome: 'malformed',
  },
  {
    ...web,
    name: 'space before the colon of Host',
    steps: [http(GET, `Host : ${BLOCKED}`, 'Host: ok.example')],
    outcome: 'malformed',
  },
  { ...web, name: 'NUL in Host', steps: [http(GET, `Host: ok.example\0${BLOCKED}`)], outcome: 'malformed' },
  {
    ...web,
    name: 'absolute target against Host',
    steps: [http(`GET http://${BLOCKED}/ HTTP/1.1`, 'Host: ok.example')],
    outcome: 'malformed',
  },
  { ...web, name: 'absolute target', steps: [http(`GET http://${BLOCKED}/ HTTP/1.1`, HOST)], outcome: 'policy' },
  {
    ...web,
    name: 'CONNECT to the host',
    steps: [http(`CONNECT ${BLOCKED}:443 HTTP/1.1`, `Host: ${BLOCKED}:443`)],
    outcome: 'policy',
  },
  { ...web, name: 'head in pieces', steps: inPieces(http(GET, HOST), 1, 7, 20, 30), outcome: 'policy' },
  { ...web, name: 'head without end', steps: [Buffer.from(`${GET}\r\n${HOST}\r\n`)], outcome: 'hello-timeout' },
  { ...web, name: 'HTTP/2 without TLS', steps: [http2(BLOCKED)], outcome: 'policy' },
  { ...web, name: 'TLS on the port of HTTP', steps: [tls(BLOCKED)], outcome: 'policy' },
  { ...web, name: 'HTTP/1.0 without Host', steps: [http('GET / HTTP/1.0')], outcome: 'passes' },
  { ...udp, name: 'QUIC instead of TLS', steps: [quic(BLOCKED, '0011223344556677')], outcome: 'policy' },
  { ...udp, name: 'QUIC, its hello shuffled over two datagrams', steps: quicShuffled(BLOCKED), outcome: 'policy' },
  {
    ...udp,
    name: 'QUIC, another connection in a session that may go on',
    steps: [quic('ok.example', 'aa11223344556677'), 50, quic(BLOCKED, 'bb11223344556677')],
    outcome: 'policy',
  },
  {
    ...udp,
    name: 'QUIC, another connection with its hello in two datagrams, and a third between them',
    steps: [
      ...[quic('ok.example', 'a011223344556677'), 50],
      ...[HALVES.blocked[0], 20, HALVES.ok[0], 20, HALVES.blocked[1]],
    ],
    outcome: 'held',
  },
  {
    ...udp,
    name: 'QUIC, the half of a hello before the whole of another, and its other half behind',
    steps: [...[HALVES.blocked[0], 20, quic('ok.example', 'a111223344556677'), 20], HALVES.blocked[1]],
    outcome: 'held',
  },
  {
    ...udp,
    name: 'datagrams that are no QUIC, then QUIC',
    steps: [Buffer.from('hello'), 50, quic(BLOCKED, 'cc11223344556677')],
    outcome: 'policy',
  },
  { ...udp, name: 'QUIC with another name', steps: [quic('ok.example', 'dd11223344556677')], outcome: 'passes' },
]

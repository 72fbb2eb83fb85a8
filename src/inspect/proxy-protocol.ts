import { addressOfBytes, type Endpoint, parseAddress, parsePort } from '../net/address.ts'
import { crc32c } from './crc32c.ts'
import { latin1 } from './latin1.ts'
import { malformed, match, more, NO, type Probed } from './probe.ts'

/** What a proxy in front says of the connection, in a header before its first byte (HAProxy's doc/proxy-protocol.txt). */
export interface ProxyHeader {
  readonly protocol: 'proxy-protocol'
  readonly version: 1 | 2
  /** `local`: the proxy's own connection, a health check perhaps. */
  readonly command: 'proxy' | 'local'
  /** Undefined: it says nothing of it. */
  readonly transport: 'tcp' | 'udp' | undefined
  /** The peer for whom the proxy connected. Undefined (LOCAL, UNKNOWN, AF_UNIX): the connection's own addresses are the true ones. */
  readonly client: Endpoint | undefined
  /** Where that peer connected to; there whenever `client` is. */
  readonly originalDst: Endpoint | undefined
  readonly tlvs: readonly ProxyTlv[]
  /** Bytes of the header: behind them the client's own begin. */
  readonly length: number
}

export interface ProxyTlv {
  /** One byte; §2.2 has the registered ones. */
  readonly type: number
  /** A copy. */
  readonly value: Uint8Array
}

export const SIGNATURE_V2 = Uint8Array.from([0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a])
export const FIXED_BYTES_V2 = 16 // signature, command, family, length
export const TLV = { alpn: 1, authority: 2, crc32c: 3, noop: 4, uniqueId: 5, ssl: 0x20, netns: 0x30 } as const
const MAX_BYTES_V2 = 4096 // §2.2 expects one segment; TLVs of certificates may need some more
const MAX_UNIQUE_ID_BYTES = 128 // §2.2.5
const PREFIX_V1 = Buffer.from('PROXY ')
const MAX_BYTES_V1 = 107 // with CR and LF, §2.1
const LF = 0x0a
const ADDRESSES_V1 = /^PROXY TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9]\d*) (0|[1-9]\d*)$/
const UNKNOWN_V1 = /^PROXY UNKNOWN(?: .*)?$/s
/** Bytes of one address by its family; of AF_UNSPEC there is none. */
const ADDRESS_BYTES: readonly number[] = [0, 4, 16, 108]
const TRANSPORTS = [undefined, 'tcp', 'udp'] as const
const UNIX = 3

/**
 * Reads a header of version 1 or 2. Believe it only of a peer that is known to be such a proxy. `more` until the header is complete;
 * looks at 4,096 bytes at the most. What the specification does not have is malformed: the connection is to be closed.
 */
export function probeProxyProtocol(bytes: Uint8Array): Probed<ProxyHeader> {
  if (bytes.length === 0) return more(PREFIX_V1.length + 1)
  return bytes[0] === PREFIX_V1[0] ? probeV1(bytes) : probeV2(bytes)
}

function probeV1(bytes: Uint8Array): Probed<ProxyHeader> {
  if (!beginsAlike(bytes, PREFIX_V1)) return NO
  const shown = bytes.subarray(0, MAX_BYTES_V1)
  const end = shown.indexOf(LF)
  if (end < 0) {
    if (shown.length === MAX_BYTES_V1) return malformed(`line is longer than ${MAX_BYTES_V1} bytes`)
    return more(Math.max(PREFIX_V1.length, bytes.length) + 1)
  }
  const text = latin1(shown, 0, end)
  const line = text.slice(0, -1)
  if (!text.endsWith('\r') || line.includes('\r')) return malformed('line does not end with CR and LF')
  const header = { protocol: 'proxy-protocol', version: 1, command: 'proxy', tlvs: [], length: end + 1 } as const
  if (UNKNOWN_V1.test(line)) {
    return match({ ...header, transport: undefined, client: undefined, originalDst: undefined })
  }
  const parts = ADDRESSES_V1.exec(line)
  if (parts === null) return malformed('line is not protocol, addresses and ports')
  const [, family, source = '', destination = '', sourcePort = '', destinationPort = ''] = parts
  const client = endpointOf(source, sourcePort, family)
  const originalDst = endpointOf(destination, destinationPort, family)
  if (client === undefined || originalDst === undefined) return malformed('address or port is none')
  return match({ ...header, transport: 'tcp', client, originalDst })
}

/** The family dictates the text's format; an IPv4-mapped address of TCP6 becomes IPv4. */
function endpointOf(text: string, portText: string, family: string | undefined): Endpoint | undefined {
  const address = text.includes(':') === (family === '6') ? parseAddress(text) : undefined
  const port = parsePort(portText, 0)
  return address === undefined || port === undefined ? undefined : { address, port }
}

function probeV2(bytes: Uint8Array): Probed<ProxyHeader> {
  if (!beginsAlike(bytes, SIGNATURE_V2)) return NO
  if (bytes.length < FIXED_BYTES_V2) return more(FIXED_BYTES_V2)
  const [command, family, transport] = [bytes[12]! & 0x0f, bytes[13]! >> 4, bytes[13]! & 0x0f]
  if (bytes[12]! >> 4 !== 2) return malformed('version is not 2')
  if (command > 1) return malformed('command is neither LOCAL nor PROXY')
  const length = FIXED_BYTES_V2 + ((bytes[14]! << 8) | bytes[15]!)
  if (length > MAX_BYTES_V2) return malformed(`header is longer than ${MAX_BYTES_V2} bytes`)
  if (command === 0) {
    return bytes.length < length ? more(length) : match({ ...UNSAID, command: 'local', tlvs: [], length })
  }
  if (family >= ADDRESS_BYTES.length || transport >= TRANSPORTS.length) return malformed('family or transport is none')
  const endOfAddresses = FIXED_BYTES_V2 + addressesBytes(family)
  if (endOfAddresses > length) return malformed('header is too short for its addresses')
  if (bytes.length < length) return more(length)
  const header = bytes.subarray(0, length)
  // of AF_UNSPEC nobody can say where addresses end and TLVs begin
  const tlvs = family === 0 ? [] : readTlvs(header, endOfAddresses)
  if (typeof tlvs === 'string') return malformed(tlvs)
  if (family === 0 || family === UNIX || transport === 0) {
    return match({ ...UNSAID, command: 'proxy', tlvs, length })
  }
  const size = ADDRESS_BYTES[family]!
  const portAt = FIXED_BYTES_V2 + 2 * size
  const endpoint = (at: number, port: number): Endpoint => ({
    address: addressOfBytes(header.subarray(at, at + size)),
    port: (header[port]! << 8) | header[port + 1]!,
  })
  return match({
    ...UNSAID,
    command: 'proxy',
    transport: TRANSPORTS[transport],
    client: endpoint(FIXED_BYTES_V2, portAt),
    originalDst: endpoint(FIXED_BYTES_V2 + size, portAt + 2),
    tlvs,
    length,
  })
}

const UNSAID = {
  protocol: 'proxy-protocol',
  version: 2,
  transport: undefined,
  client: undefined,
  originalDst: undefined,
} as const

/** With two ports where there are any. */
function addressesBytes(family: number): number {
  return 2 * ADDRESS_BYTES[family]! + (family === 1 || family === 2 ? 4 : 0)
}

const MAX_TLVS = 64 // proxies send a handful

/** Type, length in two bytes, value. A string: what is wrong. The checksum, where there is one, has to be right (§2.2.3). */
function readTlvs(header: Uint8Array, from: number): ProxyTlv[] | string {
  const tlvs: ProxyTlv[] = []
  let sums = 0
  for (let at = from; at < header.length; ) {
    const start = at + 3
    const end = start + ((header[at + 1]! << 8) | header[at + 2]!)
    if (start > header.length || end > header.length) return 'TLV goes beyond the header'
    if (tlvs.length === MAX_TLVS) return `more than ${MAX_TLVS} TLVs`
    const type = header[at]!
    if (type === TLV.crc32c) {
      if (++sums > 1 || end - start !== 4) return 'checksum is none'
      const said =
        ((header[start]! << 24) | (header[start + 1]! << 16) | (header[start + 2]! << 8) | header[start + 3]!) >>> 0
      if (crc32c(header, start) !== said) return 'checksum is wrong'
    }
    if (type === TLV.uniqueId && end - start > MAX_UNIQUE_ID_BYTES) return 'unique id is too long'
    if (type !== TLV.noop) tlvs.push({ type, value: Uint8Array.from(header.subarray(start, end)) })
    at = end
  }
  return tlvs
}

function beginsAlike(bytes: Uint8Array, prefix: Uint8Array): boolean {
  for (let i = 0; i < prefix.length && i < bytes.length; i++) if (bytes[i] !== prefix[i]) return false
  return true
}

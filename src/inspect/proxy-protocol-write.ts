import { addressBytes, type Endpoint, familyOf } from '../net/address.ts'
import { crc32c } from './crc32c.ts'
import { FIXED_BYTES_V2, type ProxyTlv, SIGNATURE_V2, TLV } from './proxy-protocol.ts'

const COMMAND = { local: 0x20, proxy: 0x21 } as const // version 2 in the upper bits
const TRANSPORT = { tcp: 1, udp: 2 } as const

/** For whom and where to a connection is opened. When the families differ, the IPv4 address is sent as IPv4-mapped IPv6. */
export interface ProxiedFlow {
  readonly client: Endpoint
  readonly originalDst: Endpoint
}

export interface ProxyV2Options {
  /** Default: tcp. */
  readonly transport?: 'tcp' | 'udp'
  /** Written in their order; none of type CRC32C. Together with the rest they must fit 65,551 bytes. */
  readonly tlvs?: readonly ProxyTlv[]
  /** Adds the CRC32C that a receiver may check. Default: false. */
  readonly checksum?: boolean
}

/** A line of version 1, TCP only: at most 107 bytes, to be sent before all else and at once. */
export function proxyV1(flow: ProxiedFlow): Uint8Array {
  const family = isIpv4(flow) ? 4 : 6
  const { client, originalDst } = flow
  const addresses = `${textOf(client.address, family)} ${textOf(originalDst.address, family)}`
  return Buffer.from(`PROXY TCP${family} ${addresses} ${client.port} ${originalDst.port}\r\n`)
}

/** A header of version 2. */
export function proxyV2(flow: ProxiedFlow, options: ProxyV2Options = {}): Uint8Array {
  const { transport = 'tcp', tlvs = [], checksum = false } = options
  const family = isIpv4(flow) ? 4 : 6
  const { client, originalDst } = flow
  const body = [
    addressBytes(textOf(client.address, family)),
    addressBytes(textOf(originalDst.address, family)),
    big16(client.port),
    big16(originalDst.port),
    ...tlvs.flatMap(({ type, value }) => [Uint8Array.of(type), big16(value.length), value]),
  ]
  if (checksum) body.push(Uint8Array.of(TLV.crc32c, 0, 4, 0, 0, 0, 0))
  const bytes = headerV2(COMMAND.proxy, ((family === 4 ? 1 : 2) << 4) | TRANSPORT[transport], body)
  if (checksum) new DataView(bytes.buffer).setUint32(bytes.length - 4, crc32c(bytes)) // over zeros in its place
  return bytes
}

/** For a connection of the proxy's own, such as a health check. */
export function proxyV2Local(): Uint8Array {
  return headerV2(COMMAND.local, 0, [])
}

function headerV2(command: number, family: number, body: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = body.reduce((sum, part) => sum + part.length, 0)
  const bytes = new Uint8Array(FIXED_BYTES_V2 + length)
  bytes.set(SIGNATURE_V2)
  bytes.set([command, family, length >> 8, length & 0xff], SIGNATURE_V2.length)
  let at = FIXED_BYTES_V2
  for (const part of body) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

function isIpv4({ client, originalDst }: ProxiedFlow): boolean {
  return familyOf(client.address) === 4 && familyOf(originalDst.address) === 4
}

function textOf(address: string, family: 4 | 6): string {
  return familyOf(address) === family ? address : `::ffff:${address}`
}

function big16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 0xff)
}

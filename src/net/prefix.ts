import { addressOfBytes, type Family, familyOf, parseAddress, putAddress } from './address.ts'

/** An address range: `address` is the network address (host bits zero), `length` the number of leading bits that match. */
export interface Prefix {
  readonly family: Family
  readonly address: string
  readonly length: number
}

/** `10.0.3.0/24`, `fd00::/8`, or a bare address (its full length). Host bits must be zero; undefined otherwise. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf('/')
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash))
  if (address === undefined) return undefined
  const family = familyOf(address)
  const bits = family === 4 ? 32 : 128
  if (slash < 0) return { family, address, length: bits }
  const digits = text.slice(slash + 1)
  if (!/^\d{1,3}$/.test(digits) || Number(digits) > bits) return undefined
  const length = Number(digits)
  const network = networkOf(address, length)
  return network === address ? { family, address, length } : undefined
}

/** `10.0.3.0/24`. */
export function formatPrefix(prefix: Prefix): string {
  return `${prefix.address}/${prefix.length}`
}

export function prefixContains(prefix: Prefix, address: string): boolean {
  return prefix.family === familyOf(address) && networkOf(address, prefix.length) === prefix.address
}

/** The address with all bits after `length` cleared, in canonical form. */
export function networkOf(address: string, length: number): string {
  const bytes = new Uint8Array(familyOf(address) === 4 ? 4 : 16)
  putAddress(address, bytes, 0)
  for (let i = length >> 3; i < bytes.length; i++) bytes[i]! &= i === length >> 3 ? 0xff00 >> (length & 7) : 0
  return addressOfBytes(bytes)
}

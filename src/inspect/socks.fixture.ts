import { type FuzzSubject, probeOutcome } from './fuzz.fixture.ts'
import { probeSocks, probeSocks5Request } from './socks.ts'

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

/** What curl sent on loopback (7.88.1: `socks4a://`, and `socks5h://` both of its messages), and SOCKS4 without a name. */
export const CAPTURED = {
  socks4a: fromHex('0401005000000001007777772e6578616d706c652e6f726700'),
  greeting: fromHex('05020001'),
  request: fromHex('050100030f7777772e6578616d706c652e6f72670050'),
} as const
export const SOCKS4 = fromHex('04010050cb0071076d6500')

export const subject: FuzzSubject = {
  name: 'socks',
  samples: [...Object.values(CAPTURED), SOCKS4, fromHex('0501000420010db80000000000000000000000010050')],
  parse: (bytes) => [probeSocks(bytes), probeSocks5Request(bytes)],
  mostBytes: 32_768,
  read: (bytes) => `${probeOutcome(probeSocks, bytes)}, request: ${probeOutcome(probeSocks5Request, bytes)}`,
}

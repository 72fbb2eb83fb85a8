import { type FuzzSubject, probeOutcome } from './fuzz.fixture.ts'
import { probeSsh } from './ssh-banner.ts'

export const BANNERS: readonly Uint8Array[] = [
  'SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6\r\n', // captured
  'SSH-2.0-JSCH-0.1.54\r\n',
  'SSH-1.99-client\n',
].map((text) => Uint8Array.from(Buffer.from(text)))

export const subject: FuzzSubject<ReturnType<typeof probeSsh>> = {
  name: 'ssh',
  samples: BANNERS,
  parse: probeSsh,
  mostBytes: 8_192,
  read: (bytes, answer) => probeOutcome(probeSsh, bytes, answer),
}

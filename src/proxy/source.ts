import type { Source } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import type { SourceUsed } from './record.ts'

/** The address that is bound before dialling. Without `bind` the kernel chooses, and the server sees the proxy. */
export interface DialSource {
  readonly kind: SourceUsed
  /** Port 0: any. */
  readonly bind: Endpoint | undefined
}

export function dialSource(source: Source, client: Endpoint): DialSource {
  if (source === 'proxy') return { kind: 'proxy', bind: undefined }
  if (source === 'client') return { kind: 'client', bind: { address: client.address, port: 0 } }
  if (source === 'client-port') return { kind: 'client-port', bind: client }
  return { kind: 'address', bind: { address: source.address, port: 0 } }
}

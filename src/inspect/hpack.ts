import { huffmanText } from './hpack-huffman.ts'
import { latin1 } from './latin1.ts'

export interface Field {
  readonly name: string
  readonly value: string
}

// RFC 7541 Appendix A; an entry is a name, or a name and a value
const STATIC: readonly Field[] = [
  ':authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206',
  ':status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|accept',
  'access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding|content-language',
  'content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since',
  'if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range',
  'referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate',
]
  .join('|')
  .split('|')
  .map((entry) => {
    const [name = '', ...value] = entry.split(' ')
    return { name, value: value.join(' ') }
  })
const TABLE_BYTES = 4096 // RFC 9113 §6.5.2: until our side has said something else
const ENTRY_BYTES = 32 // beside name and value, RFC 7541 §4.1
const MAX_INTEGER_BYTES = 4 // behind the prefix: more than any length or index that can be right

/**
 * The fields of a connection's first field block (RFC 7541), which begins with an empty dynamic table. Undefined when it is malformed,
 * or has more than `maxFields` fields.
 */
export function firstFields(block: Uint8Array, maxFields: number): Field[] | undefined {
  const reader = new BlockReader(block)
  const fields: Field[] = []
  while (!reader.atEnd) {
    const field = reader.next(fields.length === 0)
    if (field === undefined || fields.length === maxFields) return undefined
    if (field !== 'size') fields.push(field)
  }
  return fields
}

class BlockReader {
  readonly #bytes: Uint8Array
  readonly #dynamic: Field[] = [] // newest first
  #at = 0
  #size = 0
  #limit = TABLE_BYTES

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length
  }

  /** A field, `size` for a change of the table's size, undefined for what is malformed (RFC 7541 §6). */
  next(isFirst: boolean): Field | 'size' | undefined {
    const byte = this.#bytes[this.#at]!
    if ((byte & 0x80) !== 0) return this.#entry(this.#integer(7))
    if ((byte & 0xe0) === 0x20) return isFirst && this.#resize(this.#integer(5)) ? 'size' : undefined // only in front, §4.2
    const isKept = (byte & 0x40) !== 0
    const index = this.#integer(isKept ? 6 : 4)
    const name = index === 0 ? this.#text() : this.#entry(index)?.name
    const value = name === undefined ? undefined : this.#text()
    if (name === undefined || value === undefined) return undefined
    const field = { name, value }
    if (isKept) this.#keep(field)
    return field
  }

  #entry(index: number): Field | undefined {
    if (index < 1) return undefined
    return index <= STATIC.length ? STATIC[index - 1] : this.#dynamic[index - STATIC.length - 1]
  }

  /** RFC 7541 §5.1; -1 when it has no end, or goes too far. */
  #integer(prefixBits: number): number {
    const most = (1 << prefixBits) - 1
    let value = this.#bytes[this.#at++]! & most
    if (value < most) return value
    for (let i = 0; i < MAX_INTEGER_BYTES; i++) {
      const byte = this.#bytes[this.#at++]
      if (byte === undefined) return -1
      value += (byte & 0x7f) * 2 ** (7 * i)
      if (byte < 0x80) return value
    }
    return -1
  }

  /** RFC 7541 §5.2. */
  #text(): string | undefined {
    if (this.atEnd) return undefined
    const isHuffman = this.#bytes[this.#at]! >= 0x80
    const length = this.#integer(7)
    const from = this.#at
    if (length < 0 || from + length > this.#bytes.length) return undefined
    this.#at += length
    return isHuffman ? huffmanText(this.#bytes, from, from + length) : latin1(this.#bytes, from, from + length)
  }

  #resize(limit: number): boolean {
    if (limit < 0 || limit > TABLE_BYTES) return false
    this.#limit = limit
    this.#evict()
    return true
  }

  /** An entry larger than the table empties it, RFC 7541 §4.4. */
  #keep(field: Field): void {
    this.#dynamic.unshift(field)
    this.#size += sizeOf(field)
    this.#evict()
  }

  #evict(): void {
    while (this.#size > this.#limit) this.#size -= sizeOf(this.#dynamic.pop()!)
  }
}

function sizeOf(field: Field): number {
  return field.name.length + field.value.length + ENTRY_BYTES
}

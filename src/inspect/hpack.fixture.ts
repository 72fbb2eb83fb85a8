import assert from 'node:assert/strict'
import type { FuzzSubject } from './fuzz.fixture.ts'
import { firstFields } from './hpack.ts'
import { MAX_FIELDS } from './http-grammar.ts'

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

/** Field blocks that clients sent on loopback (curl 7.88 and Node.js 24), and others that use the dynamic table. */
const BLOCKS: readonly Uint8Array[] = [
  '820485607fe47013864190f1e3c2e5f23a6ba0ab9ec9ae32db2d3b7a8825b650c3abbcf2e153032a2f2a',
  '04022f6e418cf1e3c2e5f23a6ba0ab9ec9bf8286',
  '3fe11f8286844109612e6578616d706c6540016101624001630164bebf',
].map(fromHex)

export const subject: FuzzSubject<ReturnType<typeof firstFields>> = {
  name: 'hpack',
  samples: BLOCKS,
  parse: (block) => firstFields(block, MAX_FIELDS),
  mostBytes: 262_144,
  read(block, fields) {
    if (fields === undefined) return 'malformed'
    assert.ok(fields.length <= MAX_FIELDS)
    // a name may stand for a whole entry of the table, a value for what is in the block: 8 bits for 5
    for (const { name, value } of fields) assert.ok(Math.max(name.length, value.length) <= (block.length * 8) / 5 + 32)
    return fields.length > 4 ? 'many' : `${fields.length} fields`
  },
}

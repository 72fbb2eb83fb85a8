import { matchesPattern, type NameEntry, type PatternParts } from './name-entry.ts'

/** Each pattern is tried with each name that nothing else matched. */
export const MAX_PATTERNS = 1_000

const EXACT = 1
const SUFFIX = 2
const BELOW = 4
const KIND_BITS = { exact: EXACT, suffix: SUFFIX, below: BELOW } as const
const HEADER = 2 // before a name's bytes: its length (at most 253) and its kinds
const SPREAD = 1.5 // slots for each name: two of three are taken, and a name that is not there is seen after 1.5 slots on average
const DOT = 0x2e

/**
 * A set of host names that does not change; NameSetBuilder makes it. Two flat arrays, however many names: `text` has each name's bytes
 * behind its header; `slots` is a table with open addressing, in pairs: a hash, and where its name stands in `text` plus 1 (0: free).
 *
 * A name is hashed from its end, so that one pass over it has the hash of everything that it is below, each of which is looked up.
 * Matches by bytes, never by hash alone.
 */
export class NameSet {
  /** Names and patterns, without repetitions. */
  readonly size: number
  /** Bytes of the arrays. */
  readonly bytes: number
  readonly #text: Uint8Array
  readonly #slots: Uint32Array
  readonly #seed: number
  readonly #deepest: number
  readonly #patterns: readonly PatternParts[]

  constructor(parts: NameSetParts) {
    this.#text = parts.text
    this.#slots = parts.slots
    this.#seed = parts.seed
    this.#deepest = parts.deepest
    this.#patterns = parts.patterns
    this.size = parts.names + parts.patterns.length
    this.bytes = parts.text.byteLength + parts.slots.byteLength
  }

  /** Whether an entry matches. `name` has the form of canonicalHost(). */
  has(name: string): boolean {
    return this.#search(name, true) !== NONE || this.#pattern(name) !== undefined
  }

  /** The entry that matches, as its list has it (in canonical form): the longest name, else the first pattern. */
  find(name: string): string | undefined {
    const found = this.#search(name, false)
    if (found === NONE) return this.#pattern(name)?.join('*')
    const text = name.slice(found >> 3)
    return (found & 7) === EXACT ? text : `${(found & 7) === SUFFIX ? '.' : '*.'}${text}`
  }

  /** `where the matching end of the name begins << 3 | kind`, or NONE; of the longest entry unless `any` will do. */
  #search(name: string, any: boolean): number {
    let found = NONE
    let hash = this.#seed
    let labels = 0
    for (let i = name.length - 1; i >= 0; i--) {
      const code = name.charCodeAt(i)
      if (code === DOT && labels < this.#deepest) {
        labels++
        const kinds = this.#kindsOf(name, i + 1, mixed(hash)) & (SUFFIX | BELOW)
        if (kinds !== 0) found = ((i + 1) << 3) | (kinds & SUFFIX || BELOW)
        if (kinds !== 0 && any) return found
      }
      hash = Math.imul(hash ^ code, PRIME)
    }
    const kinds = this.#kindsOf(name, 0, mixed(hash)) & (EXACT | SUFFIX)
    return kinds === 0 ? found : kinds & EXACT || SUFFIX
  }

  #kindsOf(name: string, from: number, hash: number): number {
    const at = placeOf(this.#text, this.#slots, name, from, hash)
    return at < 0 ? 0 : this.#text[at + 1]!
  }

  #pattern(name: string): PatternParts | undefined {
    for (const parts of this.#patterns) if (matchesPattern(name, parts)) return parts
    return undefined
  }
}

interface NameSetParts {
  readonly text: Uint8Array
  readonly slots: Uint32Array
  readonly seed: number
  readonly names: number
  /** Labels of the deepest name with entries below it: what lies deeper need not be looked up. */
  readonly deepest: number
  readonly patterns: readonly PatternParts[]
}

/**
 * Collects entries into a NameSet: first their bytes, in pieces, so that none is copied when there are more; then, when their number is
 * known, into the table.
 */
export class NameSetBuilder {
  readonly #pieces: Piece[] = []
  #names = 0
  #deepest = 0
  readonly #patterns = new Map<string, PatternParts>()
  readonly #seed: number

  /** `seed`: 32 random bits, so that nobody can write names whose hashes collide. */
  constructor(seed = Math.floor(Math.random() * 2 ** 32)) {
    this.#seed = seed | 0
  }

  /** Entries that are there already are fine. @returns false for a pattern that is one too many. */
  add(entry: NameEntry): boolean {
    if (entry.kind !== 'pattern') this.#append(entry.name, KIND_BITS[entry.kind])
    else if (this.#patterns.has(entry.text)) return true
    else if (this.#patterns.size === MAX_PATTERNS) return false
    else this.#patterns.set(entry.text, entry.text.split('*'))
    return true
  }

  #append(name: string, kind: number): void {
    let piece = this.#pieces[this.#pieces.length - 1]
    if (piece === undefined || piece.end + HEADER + name.length > PIECE_BYTES) {
      piece = { bytes: new Uint8Array(PIECE_BYTES), end: 0 }
      this.#pieces.push(piece)
    }
    const { bytes } = piece
    bytes[piece.end++] = name.length
    bytes[piece.end++] = kind
    let labels = 1
    for (let i = 0; i < name.length; i++) {
      const code = name.charCodeAt(i)
      if (code === DOT) labels++
      bytes[piece.end++] = code
    }
    this.#names++
    if (kind !== EXACT && labels > this.#deepest) this.#deepest = labels
  }

  /** The set of what was added; the builder is not used after it. */
  build(): NameSet {
    const steps = this.steps()
    for (;;) {
      const { done, value } = steps.next()
      if (done) return value
    }
  }

  /** The same in steps of some milliseconds: a million names take most of a second. */
  *steps(): Generator<undefined, NameSet, undefined> {
    const table: Table = {
      text: new Uint8Array(this.#pieces.reduce((sum, { end }) => sum + end, 0)),
      slots: new Uint32Array(2 * Math.ceil(this.#names * SPREAD + 1)), // one is free always: it ends a search
      seed: this.#seed,
      end: 0,
      names: 0,
    }
    yield // so much memory at once makes the garbage collector look
    for (;;) {
      const piece = this.#pieces.shift() // its memory is free from here on
      if (piece === undefined) break
      takeAll(piece, table)
      yield
    }
    const { slots, seed, names } = table
    const text = yield* withoutRest(table)
    return new NameSet({ text, slots, seed, names, deepest: this.#deepest, patterns: [...this.#patterns.values()] })
  }
}

const COPY_BYTES = 1024 * 1024 // in one step

/** Repeated names leave a rest of the text, which is given back when it is worth a copy. */
function* withoutRest({ text, end }: Table): Generator<undefined, Uint8Array, undefined> {
  if (end > 0.9 * text.length) return text
  const copy = new Uint8Array(end)
  for (let at = 0; at < end; at += COPY_BYTES) {
    copy.set(text.subarray(at, Math.min(end, at + COPY_BYTES)), at)
    yield
  }
  return copy
}

/** Entries behind each other, none over the end. */
interface Piece {
  readonly bytes: Uint8Array
  end: number
}

const PIECE_BYTES = 16_384 // some 700 names: a millisecond in the table, a few while its pages are new

/** A set that is being made. */
interface Table {
  readonly text: Uint8Array
  readonly slots: Uint32Array
  readonly seed: number
  /** Bytes of `text` that are taken. */
  end: number
  names: number
}

function takeAll({ bytes, end }: Piece, table: Table): void {
  for (let from = 0; from < end; ) {
    const size = HEADER + bytes[from]!
    for (let i = 0; i < size; i++) table.text[table.end + i] = bytes[from + i]!
    if (isTaken(table)) {
      table.end += size
      table.names++
    }
    from += size
  }
}

/** Takes the entry that stands at the end of the text into the table; when its name is there already its kind goes to that, and false. */
function isTaken({ text, slots, seed, end: at }: Table): boolean {
  let hash = seed
  for (let i = at + HEADER + text[at]! - 1; i >= at + HEADER; i--) hash = Math.imul(hash ^ text[i]!, PRIME)
  hash = mixed(hash)
  let slot = slotOf(hash, slots)
  for (; slots[slot + 1] !== 0; slot = slot + 2 === slots.length ? 0 : slot + 2) {
    const other = slots[slot + 1]! - 1
    if (slots[slot] !== hash || !isSameName(text, at, other)) continue
    text[other + 1]! |= text[at + 1]!
    return false
  }
  slots[slot] = hash
  slots[slot + 1] = at + 1
  return true
}

function isSameName(text: Uint8Array, a: number, b: number): boolean {
  if (text[a] !== text[b]) return false
  const end = a + HEADER + text[a]!
  for (let i = a + HEADER, j = b + HEADER; i < end; i++, j++) if (text[i] !== text[j]) return false
  return true
}

const NONE = -1
const PRIME = 0x01000193 // FNV-1a's for 32 bits, http://www.isthe.com/chongo/tech/comp/fnv/

/** Spreads what FNV leaves in the low bits over all 32: the last steps of MurmurHash3. */
function mixed(hash: number): number {
  let h = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** The slot where a hash is looked for first: for any number of slots, without a division. */
function slotOf(hash: number, slots: Uint32Array): number {
  return Math.floor((hash / 2 ** 32) * (slots.length >> 1)) * 2
}

/** Where in `text` the entry for the end of `name` stands, from `from` on; -1 when there is none. */
function placeOf(text: Uint8Array, slots: Uint32Array, name: string, from: number, hash: number): number {
  for (let slot = slotOf(hash, slots); ; slot = slot + 2 === slots.length ? 0 : slot + 2) {
    const place = slots[slot + 1]!
    if (place === 0) return NONE
    if (slots[slot] === hash && isAt(text, place - 1, name, from)) return place - 1
  }
}

function isAt(text: Uint8Array, at: number, name: string, from: number): boolean {
  const length = name.length - from
  if (text[at] !== length) return false
  for (let i = 0; i < length; i++) if (text[at + HEADER + i] !== name.charCodeAt(from + i)) return false
  return true
}

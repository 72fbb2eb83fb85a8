/** What is done after the bytes that have come. `used`: how many of them are answered by it; the others stay. */
export type Step =
  | { readonly kind: 'more' }
  | { readonly kind: 'say'; readonly used: number; readonly bytes: Uint8Array }
  /** It is done: what comes behind is the server's own. */
  | { readonly kind: 'open'; readonly used: number }
  /** The proxy understood, and would not. */
  | { readonly kind: 'refused'; readonly why: string }
  /** What it said is none of its protocol. */
  | { readonly kind: 'failed'; readonly why: string }

/** Our side of what is said to a proxy, without its socket. */
export interface Conversation {
  /** Said first. */
  readonly opening: Uint8Array
  /** `bytes`: what has come and was not used yet; none at first. */
  next(bytes: Uint8Array): Step
}

/** What a proxy is asked for: the host by its name, else by its address. */
export interface ViaTarget {
  readonly host: string | undefined
  readonly address: string
  readonly port: number
}

/** More than an honest answer has: a head with a few fields. */
export const MAX_ANSWER_BYTES = 8_192
export const MORE: Step = { kind: 'more' }
const SHOWN_BYTES = 120

/** What a proxy said, fit for a line of a log: bounded, and nothing but printable ASCII. */
export function shown(bytes: Uint8Array): string {
  const part = Buffer.from(bytes.subarray(0, SHOWN_BYTES)).toString('latin1')
  const text = part.replace(/[^ !#-[\]-~]/g, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`)
  return bytes.length > SHOWN_BYTES ? `${text}…` : text
}

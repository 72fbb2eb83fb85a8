/**
 * What a probe says of the first bytes that a peer has sent. A probe is a pure function of these bytes: it never throws, never looks at
 * more than its bound, and asking it again with more bytes may only turn `more` into another answer.
 */
export type Probed<Finding> =
  /** Not this protocol, whatever follows. */
  | { readonly kind: 'no' }
  /** It may be; with at least so many bytes in all the probe can say more. */
  | { readonly kind: 'more'; readonly atLeast: number }
  | { readonly kind: 'match'; readonly finding: Finding }
  /** It is this protocol, in a form that its specification forbids: two readers may understand it differently. `why`: a short phrase. */
  | { readonly kind: 'malformed'; readonly why: string }

export const NO: Probed<never> = { kind: 'no' }

export function more(atLeast: number): Probed<never> {
  return { kind: 'more', atLeast }
}

export function malformed(why: string): Probed<never> {
  return { kind: 'malformed', why }
}

export function match<Finding>(finding: Finding): Probed<Finding> {
  return { kind: 'match', finding }
}

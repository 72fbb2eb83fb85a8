import { canonicalHost } from './host-name.ts'

/**
 * One entry of a list of names, as an operator writes it:
 * - `exact` `www.example.org`: that name;
 * - `suffix` `.example.org`: that name and all below it, as Squid's dstdomain and nginx have it;
 * - `below` `*.example.org`: all below it at any depth, and not the name itself, as nginx, Envoy and a zone's wildcard (RFC 4592 §4.2)
 *   have it. Only certificates mean exactly one label (RFC 9525 §6.3), and a rule that meant that would miss `a.b.example.org`;
 * - `pattern` with `*` elsewhere, `ads*.example.org`, `*tracker*`: each `*` stands for any characters, dots too, or for none.
 */
export type NameEntry =
  | {
      readonly kind: 'exact' | 'suffix' | 'below' /** In canonical form, without `.` or `*.`. */
      readonly name: string
    }
  | { readonly kind: 'pattern' /** Lower case. */; readonly text: string }

const PATTERN = /^[a-z0-9_.*-]{1,253}$/
const MAX_STARS = 8 // each is a search in the name

/** Undefined for what is no entry, or would match every name (`*`, `.`). The text is ASCII: names in other scripts are `xn--`. */
export function parseNameEntry(text: string): NameEntry | undefined {
  if (text.startsWith('.')) return named('suffix', text.slice(1))
  if (!text.includes('*')) return named('exact', text)
  if (text.startsWith('*.') && !text.includes('*', 1)) return named('below', text.slice(2))
  const pattern = text.toLowerCase()
  if (!PATTERN.test(pattern) || !/[a-z0-9]/.test(pattern) || pattern.includes('..')) return undefined
  return pattern.split('*').length - 1 > MAX_STARS ? undefined : { kind: 'pattern', text: pattern }
}

function named(kind: 'exact' | 'suffix' | 'below', text: string): NameEntry | undefined {
  const name = canonicalHost(text)
  return name === undefined ? undefined : { kind, name }
}

/** A pattern, cut at its stars: the first part begins a name, the last ends it, the others stand between in their order. */
export type PatternParts = readonly string[]

/** The parts are looked for from left to right and each is taken where it comes first, so that nothing is tried twice. */
export function matchesPattern(name: string, parts: PatternParts): boolean {
  const first = parts[0]!
  const last = parts[parts.length - 1]!
  if (!name.startsWith(first) || !name.endsWith(last)) return false
  const end = name.length - last.length
  let at = first.length
  for (let i = 1; i < parts.length - 1; i++) {
    const part = parts[i]!
    const found = name.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return at <= end
}

const MAX_NAME = 253 // RFC 1035 §2.3.4, without the trailing dot
const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/

/**
 * The one form in which names are compared: lower case, no trailing dot, LDH labels (and `_`). Undefined for what is no host name (an
 * address, an empty label, other characters): such a name matches no rule.
 */
export function canonicalHost(text: string): string | undefined {
  const name = (text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase()
  if (name.length === 0 || name.length > MAX_NAME) return undefined
  const labels = name.split('.')
  if (!labels.every((label) => LABEL.test(label))) return undefined
  return /^(\d+|0x[\da-f]*)$/.test(labels[labels.length - 1]!) ? undefined : name // a number is an address (RFC 1123 §2.1; 0x7f.1 in many libraries)
}

const MAX_NAME = 253 // RFC 1035 §2.3.4, without the trailing dot
const MAX_LABEL = 63
const [DOT, HYPHEN] = [0x2e, 0x2d]

/**
 * The one form in which names are compared: lower case, no trailing dot, LDH labels (and `_`). Undefined for what is no host name (an
 * address, an empty label, other characters): such a name matches no rule.
 */
export function canonicalHost(text: string): string | undefined {
  const name = (text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase()
  if (name.length === 0 || name.length > MAX_NAME) return undefined
  let labelAt = 0
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at)
    if (code === DOT) {
      if (!isLabel(name, labelAt, at)) return undefined
      labelAt = at + 1
    } else if (!isOfLabel(code)) return undefined
  }
  if (!isLabel(name, labelAt, name.length)) return undefined
  return isNumber(name, labelAt) ? undefined : name // a number is an address (RFC 1123 §2.1; 0x7f.1 in many libraries)
}

/** Of characters that may stand in one; hyphens only within it. */
function isLabel(name: string, from: number, to: number): boolean {
  const length = to - from
  return length > 0 && length <= MAX_LABEL && name.charCodeAt(from) !== HYPHEN && name.charCodeAt(to - 1) !== HYPHEN
}

function isOfLabel(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39) || code === HYPHEN || code === 0x5f // a–z 0–9 - _
}

function isNumber(name: string, from: number): boolean {
  const first = name.charCodeAt(from)
  return first >= 0x30 && first <= 0x39 && /^(\d+|0x[\da-f]*)$/.test(name.slice(from))
}

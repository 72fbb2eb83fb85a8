/** What a statement of another's rule does to mark bits of ours. */
export type MarkEffect =
  | { readonly kind: 'keeps' }
  | { readonly kind: 'sets'; readonly bits: number }
  | { readonly kind: 'depends' }

/** Of one statement of an nft rule (libnftables-json(5)); undefined when it does not set the packet's mark. */
export function markEffect(statement: Readonly<Record<string, unknown>>, mask: number): MarkEffect | undefined {
  const mangle = statement.mangle as { key: unknown; value: unknown } | undefined
  if (mangle === undefined || !isMark(mangle.key)) return undefined
  return valueEffect(mangle.value, mask)
}

function valueEffect(value: unknown, mask: number): MarkEffect {
  if (typeof value === 'number') return { kind: 'sets', bits: (value & mask) >>> 0 }
  if (isMark(value)) return { kind: 'keeps' }
  const [operator, operands] = Object.entries((value ?? {}) as Record<string, unknown>)[0] ?? []
  if (!Array.isArray(operands) || operands.length !== 2) return { kind: 'depends' }
  const [left, right] = operands as [unknown, unknown]
  if (typeof right !== 'number') return { kind: 'depends' }
  const inner = valueEffect(left, mask)
  if (operator === '|' || operator === '^') return (right & mask) === 0 ? inner : { kind: 'depends' }
  if (operator === '&') {
    if ((right & mask) >>> 0 === mask) return inner
    return (right & mask) === 0 ? { kind: 'sets', bits: 0 } : { kind: 'depends' }
  }
  return { kind: 'depends' }
}

function isMark(expression: unknown): boolean {
  return (expression as { meta?: { key?: string } } | null)?.meta?.key === 'mark'
}

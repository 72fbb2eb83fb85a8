import { formatPrefix, type Prefix } from '../net/prefix.ts'
import type { ElementSet } from './bypass-account.ts'
import { prefixText } from './nft-match.ts'

/** An element that is to come into the sets. */
export interface NewElement {
  readonly prefix: Prefix
  /** Milliseconds; undefined: without one. */
  readonly timeoutMs: number | undefined
}

/** What it has counted so far in one set, by the set's name and formatPrefix(). */
export type Counted = ReadonlyMap<string, { readonly packets: number; readonly bytes: number }>

export function countedKey(set: ElementSet, prefix: Prefix): string {
  return `${set.name} ${formatPrefix(prefix)}`
}

/** The commands of one transaction: what goes, then what comes. `flush`: all that is there goes before. */
export function elementCommands(
  sets: readonly ElementSet[],
  change: { readonly flush: boolean; readonly gone: readonly Prefix[]; readonly added: readonly NewElement[] },
  counted: Counted = new Map(),
): string {
  const lines = sets.flatMap((set) => {
    const gone = change.gone.filter(({ family }) => family === set.family)
    const added = change.added.filter(({ prefix }) => prefix.family === set.family)
    return [
      ...(change.flush ? [`flush set ${set.name}`] : []),
      ...(gone.length === 0 ? [] : [`delete element ${set.name} { ${gone.map(prefixText).join(', ')} }`]),
      ...(added.length === 0
        ? []
        : [
            `add element ${set.name} { ${added.map((one) => elementText(one, counted.get(countedKey(set, one.prefix)))).join(', ')} }`,
          ]),
    ]
  })
  return lines.map((line) => `${line}\n`).join('')
}

function elementText(
  { prefix, timeoutMs }: NewElement,
  counted: { readonly packets: number; readonly bytes: number } | undefined,
): string {
  const counter = counted === undefined ? '' : ` counter packets ${counted.packets} bytes ${counted.bytes}`
  return `${prefixText(prefix)}${counter}${timeoutMs === undefined ? '' : ` timeout ${Math.ceil(timeoutMs)}ms`}`
}

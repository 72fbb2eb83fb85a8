import { LimpidError } from '../errors.ts'

/**
 * Replaces what stands between `<!-- figures: NAME -->` and `<!-- end: NAME -->` in a document, for each name.
 * @throws LimpidError LIMPID_LAB when the document has not each pair of marks, once.
 */
export function withBlocks(document: string, blocks: Readonly<Record<string, string>>): string {
  let text = document
  for (const [name, content] of Object.entries(blocks)) {
    const [before, rest, ...more] = text.split(`<!-- figures: ${name} -->`)
    const [, after, ...evenMore] = rest?.split(`<!-- end: ${name} -->`) ?? []
    if (after === undefined || more.length > 0 || evenMore.length > 0) {
      throw new LimpidError('LIMPID_LAB', `docs/performance.md has no place for ${name}, or several`, {
        cure: `put <!-- figures: ${name} --> and <!-- end: ${name} --> there, once`,
      })
    }
    text = `${before}<!-- figures: ${name} -->\n\n${content.trim()}\n\n<!-- end: ${name} -->${after}`
  }
  return text
}

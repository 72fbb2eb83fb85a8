/**
 * C0, DEL and C1 (ECMA-48: a terminal obeys them), line and paragraph separators, and what turns the direction of text around (UAX #9), so
 * that a line would read as another one.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is sought
const UNPRINTABLE = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

/**
 * Text from elsewhere as one line that a terminal shows and does not obey: each such character is written as `\u001b`, which is also how
 * JSON has it.
 */
export function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

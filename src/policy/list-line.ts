import { domainToASCII } from 'node:url'
import { describeValue } from '../config/problem.ts'
import { parseAddress } from '../net/address.ts'
import { parseNameEntry } from '../net/name-entry.ts'
import { MAX_PATTERNS, type NameSetBuilder } from '../net/name-set.ts'
import { networkOf, parsePrefix } from '../net/prefix.ts'
import type { PrefixSetBuilder } from '../net/prefix-set.ts'

/** What a list's lines are collected into. */
export interface Collected {
  readonly names: NameSetBuilder
  readonly prefixes: PrefixSetBuilder
  /** Entries read so far, with repetitions. */
  entries: number
  prefixEntries: number
}

/** Prefixes of one list: those of the largest networks and countries; sorting more would keep the event loop for too long. */
export const MAX_PREFIXES = 250_000

/** What hosts files have for the host itself, and nobody means by a list made of one. */
const HOST_ITSELF = new Set(
  'localhost localhost.localdomain local broadcasthost ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts 0.0.0.0'.split(
    ' ',
  ),
)

/**
 * Reads one line of a list: nothing, an entry (a name, `.suffix`, `*.below`, a pattern, a prefix, an address), or a line of a hosts file,
 * whose names count and whose address does not. `#` begins a comment. Returns what is wrong.
 */
export function readLine(line: string, into: Collected): string | undefined {
  const comment = line.indexOf('#')
  const text = (comment < 0 ? line : line.slice(0, comment)).trim()
  if (text === '') return undefined
  if (!/\s/.test(text)) return readEntry(text, into)
  const [first = '', ...names] = text.split(/\s+/)
  if (parseAddress(first.replace(/%.*/, '')) === undefined) {
    return `expected one entry, or the address and names of a hosts file, found ${describeValue(text)}`
  }
  for (const name of names) {
    const problem = HOST_ITSELF.has(name) ? undefined : readName(name, into)
    if (problem !== undefined) return problem
  }
  return undefined
}

function readEntry(text: string, into: Collected): string | undefined {
  return /[/:]|^[\d.]+$/.test(text) ? readPrefix(text, into) : readName(text, into)
}

function readPrefix(text: string, into: Collected): string | undefined {
  const prefix = parsePrefix(text)
  if (prefix === undefined) return unexpected(text, hostBits(text))
  if (into.prefixEntries === MAX_PREFIXES) return `more than ${MAX_PREFIXES} prefixes`
  into.prefixEntries++
  into.entries++
  into.prefixes.add(prefix)
  return undefined
}

function hostBits(text: string): string {
  const [, address = '', digits = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? []
  const network = parseAddress(address)
  if (network === undefined) return ''
  const prefix = parsePrefix(`${networkOf(network, Number(digits))}/${digits}`)
  return prefix === undefined ? '' : `: host bits must be zero, as in ${prefix.address}/${digits}`
}

function readName(text: string, into: Collected): string | undefined {
  const ascii = IS_ASCII.test(text) ? text : inAscii(text)
  const entry = ascii === undefined ? undefined : parseNameEntry(ascii)
  if (entry === undefined) return unexpected(text, text.includes('\ufffd') ? ': it is not UTF-8' : '')
  into.entries++
  return into.names.add(entry) ? undefined : `more than ${MAX_PATTERNS} patterns with * inside`
}

const IS_ASCII = /^[!-~]*$/
const NAME_IN_ANY_SCRIPT = /^(\*?\.)?((?:[\w.-]|[^!-~])+)$/ // of ASCII what names have, and no % or / that URLs would read as such

/** A name in any script as the wire has it, `xn--…` (UTS 46); undefined when it is none. A pattern has to be written in ASCII. */
function inAscii(text: string): string | undefined {
  const [, before = '', name = ''] = NAME_IN_ANY_SCRIPT.exec(text) ?? []
  const ascii = domainToASCII(name)
  return ascii === '' ? undefined : before + ascii
}

function unexpected(text: string, hint: string): string {
  return `expected a name, .suffix, *.below, a pattern, a prefix or a line of a hosts file, found ${describeValue(text)}${hint}`
}

import type { ForwardConfig, RulesConfig } from '../config/types.ts'
import { isLoopback } from '../net/address.ts'
import { type Interception, isUntouched } from './interception.ts'
import { bridgeScript } from './nft-bridge.ts'
import { NamedSets, portExpression } from './nft-match.ts'
import { natChains } from './nft-nat.ts'
import { chain, markIs, nftScript, TABLE_COMMENT } from './nft-text.ts'
import { untouchedChains } from './nft-untouched.ts'
import type { Script } from './script.ts'

/** What the rules of nft are written from. */
export interface NftInput {
  readonly rules: RulesConfig
  readonly interceptions: readonly Interception[]
  readonly forwards: readonly ForwardConfig[]
  /** Packets addressed to somebody else must come to sockets of ours. */
  readonly divert: boolean
}

/** The nft tables that bring packets to listeners: one, and one more for bridges. */
export function nftScripts(input: NftInput): Script[] {
  const { rules, interceptions, forwards } = input
  const sets = new NamedSets()
  const untouched = interceptions.filter(isUntouched)
  const diverts = untouched.length > 0 || input.divert
  const marks = diverts ? untouchedChains(rules, untouched, sets) : { sets: [], chains: [] }
  const rewritten = interceptions.filter((interception) => !isUntouched(interception))
  const nat = natChains(rules, rewritten, forwards, sets)
  const inet = nftScript('inet', rules.nftTable, 'Brings intercepted TCP flows to their listeners.', [
    ...sets.lines(),
    ...marks.sets,
    ...marks.chains,
    ...nat,
    ...inputChain(rules, interceptions),
  ])
  const bridge = bridgeScript(rules, interceptions)
  return bridge === undefined ? [inet] : [inet, bridge]
}

/** The name of the tables that drop what closed listeners did not take. */
export function guardTable(rules: RulesConfig): string {
  return `${rules.nftTable}-guard`
}

/** The same table, but gone when the process that adds it closes its netlink socket (Linux 5.12, NFT_TABLE_F_OWNER). */
export function ownedText(text: string): string {
  return text.replaceAll(/^table .*\{\n/gm, '$&\tflags owner\n')
}

/** The digests within the comments of tables of ours: in a text of ours, or in what `nft list table` says. */
export function tableDigest(text: string): string | undefined {
  const found = [...text.matchAll(new RegExp(`^\\tcomment "${TABLE_COMMENT} ([0-9a-f]+)"`, 'gm'))]
  return found.length === 0 ? undefined : found.map(([, digest]) => digest).join('+')
}

/** A listener that others can dial must not be dialled: it would find itself as the destination. */
function inputChain(rules: RulesConfig, interceptions: readonly Interception[]): string[] {
  const open = interceptions.filter(({ listener }) => listener.listen.some(({ address }) => !isLoopback(address)))
  const reject = (ports: string | undefined, condition: string) =>
    ports === undefined ? [] : [`tcp dport ${ports} ${condition}counter reject with tcp reset`]
  const untouched = portExpression(open.filter(isUntouched).map(({ toPorts }) => toPorts))
  const rewritten = portExpression(open.filter((one) => !isUntouched(one)).map(({ toPorts }) => toPorts))
  const lines = [
    ...reject(untouched, `${markIs(rules, '!=', rules.interceptMark)} `),
    ...(rewritten === undefined ? [] : ['ct status dnat return']),
    ...reject(rewritten, ''),
  ]
  if (lines.length === 0) return []
  return chain('input', 'filter hook input priority filter', [
    '# a connection to the listener itself, not intercepted',
    'iifname "lo" return',
    'tcp flags & (syn|ack) != syn return',
    ...lines,
  ])
}

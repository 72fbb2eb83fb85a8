import type { ForwardConfig, RulesConfig } from '../config/types.ts'
import { familyOf, isLoopback, isWildcard } from '../net/address.ts'
import type { Prefix } from '../net/prefix.ts'
import { type Diverted, type Interception, isUntouched } from './interception.ts'
import { bridgeScript } from './nft-bridge.ts'
import { bypassBeforeNat, bypassRules, countingChains } from './nft-bypass.ts'
import { addressKeyword, NamedSets, portExpression } from './nft-match.ts'
import { natChains } from './nft-nat.ts'
import { chain, markIs, nftScript, protocolWords, TABLE_COMMENT } from './nft-text.ts'
import { notePassed, untouchedChains } from './nft-untouched.ts'
import type { Script } from './script.ts'

/** What the rules of nft are written from. */
export interface NftInput {
  readonly rules: RulesConfig
  readonly interceptions: readonly Interception[]
  readonly forwards: readonly ForwardConfig[]
  /** Of which packets addressed to somebody else must come to sockets of ours. */
  readonly divert: readonly Diverted[]
  readonly bypass: readonly Prefix[]
}

/** The nft tables that bring packets to listeners: one, and one more for bridges. */
export function nftScripts(input: NftInput): Script[] {
  const { rules, interceptions, forwards, divert } = input
  const sets = new NamedSets()
  const untouched = interceptions.filter(isUntouched)
  const rewritten = interceptions.filter((interception) => !isUntouched(interception))
  const rewrites = rewritten.length > 0 || forwards.length > 0
  const forwardsDatagrams = forwards.some(({ protocols }) => protocols.includes('udp'))
  const bypass =
    interceptions.length === 0 ? undefined : bypassRules(rules, interceptions, input.bypass, notePassed(untouched))
  const marks =
    divert.length === 0
      ? { sets: [], chains: [] }
      : untouchedChains({ rules, interceptions: untouched, divert, rewrites, forwardsDatagrams, bypass }, sets)
  const nat = natChains(rules, rewritten, forwards, sets)
  const flows = protocolWords([...divert, ...interceptions]) || 'TCP'
  const inet = nftScript('inet', rules.nftTable, `Brings intercepted ${flows} flows to their listeners.`, [
    ...sets.lines(),
    ...(bypass?.sets ?? []),
    ...marks.sets,
    ...(bypass?.chains ?? []),
    ...marks.chains,
    ...(bypass === undefined ? [] : bypassBeforeNat(rules, rewritten, bypass)),
    ...nat,
    ...(bypass === undefined ? [] : countingChains(rules, interceptions, bypass)),
    ...inputChain(rules, interceptions),
  ])
  const bridge = bridgeScript(rules, interceptions, input.bypass)
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
  const isConnection = ({ protocol }: Interception) => protocol === 'tcp'
  const untouched = open.filter(isUntouched)
  const rewritten = open.filter((one) => !isUntouched(one))
  const refuse = (ones: readonly Interception[], condition: string) => [
    ...rejectConnections(ones.filter(isConnection), condition),
    ...rejectDatagrams(
      ones.filter((one) => !isConnection(one)),
      condition,
    ),
  ]
  const lines = [
    ...refuse(untouched, `${markIs(rules, '!=', rules.interceptMark)} `),
    ...(rewritten.length === 0 ? [] : ['ct status dnat return']),
    ...refuse(rewritten, ''),
  ]
  if (lines.length === 0) return []
  return chain('input', 'filter hook input priority filter', [
    open.every(isConnection)
      ? '# a connection to the listener itself, not intercepted'
      : '# what is sent to the listener itself, not intercepted',
    'iifname "lo" return',
    ...(open.some(isConnection) ? ['tcp flags & (syn|ack) != syn return'] : []),
    ...lines,
  ])
}

function rejectConnections(open: readonly Interception[], condition: string): string[] {
  const ports = portExpression(open.map(({ toPorts }) => toPorts))
  return ports === undefined ? [] : [`tcp dport ${ports} ${condition}counter reject with tcp reset`]
}

/** Those of the interception's family at which others can dial the listener. */
function openAddresses({ listener, family }: Interception): string[] {
  const addresses = listener.listen.map(({ address }) => address)
  return addresses.filter((address) => familyOf(address) === family && !isLoopback(address))
}

/** With the listener's address, where it has one: answers to other sockets here may go to the same port of another. */
function rejectDatagrams(open: readonly Interception[], condition: string): string[] {
  const addressed = new Map<string, Interception[]>()
  for (const one of open) {
    for (const address of openAddresses(one)) {
      const match = isWildcard(address)
        ? `meta nfproto ipv${one.family}`
        : `${addressKeyword(one.family)} daddr ${address}`
      addressed.set(match, [...(addressed.get(match) ?? []), one])
    }
  }
  return [...addressed].map(([match, ones]) => {
    const ports = portExpression(ones.map(({ toPorts }) => toPorts))
    return `${match} udp dport ${ports} ${condition}counter reject with icmpx port-unreachable`
  })
}

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '../net/prefix.ts'
import { type ElementSet, iptablesAccounts, nftTotal, parseElements } from './bypass-account.ts'
import { countedKey, elementCommands } from './bypass-elements.ts'

const prefix = (text: string) => parsePrefix(text)!

test("elements are read from nft's JSON: prefixes, addresses, with timeouts and without", () => {
  const elem = [
    { elem: { val: { prefix: { addr: '10.0.0.0', len: 8 } }, counter: { packets: 3, bytes: 93 } } },
    { elem: { val: '192.0.2.1', timeout: 700, expires: 698, counter: { packets: 5, bytes: 50 } } },
    'fd00::1',
  ]
  const json = JSON.stringify({ nftables: [{ metainfo: {} }, { set: { name: 'bypass4', elem } }] })
  assert.deepEqual(parseElements(json), [
    { prefix: prefix('10.0.0.0/8'), packets: 3, bytes: 93 },
    { prefix: prefix('192.0.2.1'), packets: 5, bytes: 50 },
    { prefix: prefix('fd00::1'), packets: 0, bytes: 0 },
  ])
  assert.deepEqual(parseElements(JSON.stringify({ nftables: [{ set: { name: 'bypass4' } }] })), [])
})

test('all that was bypassed is the sum of its rules: beginnings are packets, too', () => {
  const listing = `
    meta l4proto tcp counter packets 2 bytes 120 comment "bypass connections"
    meta l4proto udp counter packets 3 bytes 90 comment "bypass packets"
    ip saddr . th sport @x counter packets 10 bytes 5000 return comment "bypass packets"
    tcp dport 80 counter packets 7 bytes 7 goto take comment "listener bypass connections"`
  assert.deepEqual(nftTotal(listing), { connections: 2, packets: 15, bytes: 5_210 })
})

test('of iptables, chains of one name in two tables see the same connections', () => {
  const rule = (chain: string, packets: number, protocol = 'tcp') =>
    `[${packets}:60] -A limpid-${chain} -d 10.0.0.0/8 -p tcp -m comment --comment "bypass ${protocol} 10.0.0.0/8" -j RETURN`
  const listing = [
    '*mangle',
    rule('prerouting', 4),
    rule('udp', 9, 'udp'),
    rule('output', 2),
    '*nat',
    rule('prerouting', 3),
  ].join('\n')
  const { of, total } = iptablesAccounts(listing, [prefix('10.0.0.0/8'), prefix('fd00::/8')])
  const counts = { connections: 6, packets: undefined, bytes: undefined }
  assert.deepEqual([...of], [['10.0.0.0/8', counts]])
  assert.deepEqual(total, counts)
})

test('a change is one transaction: what goes, then what comes, in each set of its family', () => {
  const sets: ElementSet[] = [
    { name: 'inet limpid bypass4', family: 4, count: 'connections' },
    { name: 'bridge limpid bypassed4', family: 4, count: 'packets' },
    { name: 'inet limpid bypassed6', family: 6, count: 'packets' },
  ]
  const added = [
    { prefix: prefix('10.0.0.0/8'), timeoutMs: 1_499.2 },
    { prefix: prefix('fd00::1'), timeoutMs: undefined },
  ]
  const counted = new Map([[countedKey(sets[1]!, prefix('10.0.0.0/8')), { packets: 2, bytes: 99 }]])
  const gone = [prefix('10.1.0.0/16'), prefix('10.2.3.4')]
  assert.equal(
    elementCommands(sets, { flush: false, gone, added }, counted),
    `delete element inet limpid bypass4 { 10.1.0.0/16, 10.2.3.4 }
add element inet limpid bypass4 { 10.0.0.0/8 timeout 1500ms }
delete element bridge limpid bypassed4 { 10.1.0.0/16, 10.2.3.4 }
add element bridge limpid bypassed4 { 10.0.0.0/8 counter packets 2 bytes 99 timeout 1500ms }
add element inet limpid bypassed6 { fd00::1 }
`,
  )
  assert.equal(
    elementCommands(sets.slice(2), { flush: true, gone: [], added: [] }),
    'flush set inet limpid bypassed6\n',
  )
})

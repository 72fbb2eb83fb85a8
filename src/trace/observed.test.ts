import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTrace } from '../doctor/trace.ts'
import { observe } from './observed.ts'

const PACKET =
  'packet: iif "x-y" ether saddr b6:7e:6c:26:dd:0a ether daddr 7e:55:96:bc:e0:1c ip saddr 10.0.3.1 ip daddr 10.0.4.2 ip ttl 64 tcp sport 43502 tcp dport 80 tcp flags == syn'
const COMMENTS: Readonly<Record<number, string>> = { 4: 'listener web', 9: 'listener mail' }

/** Steps as nft 1.0.6 prints them, each without its `trace id`. */
function observed(...lines: string[]) {
  const steps = parseTrace(lines.map((line) => `trace id 4c18394c ${line}`).join('\n')).flat()
  return observe(steps, ({ handle }) => COMMENTS[handle ?? 0])
}

const BEGIN = `inet limpid-trace-7 prerouting ${PACKET}`
const INPUT = [`inet limpid-trace-7 input ${PACKET}`, 'inet limpid-trace-7 input policy accept meta mark 0x10000000']

test('the rule that ended the packet’s way through its chain took it, and the chains behind routing tell where it went', () => {
  const rule =
    'inet limpid prerouting rule tcp dport 80 tproxy ip to 127.0.0.1:50080 counter packets 0 bytes 0 goto take comment "listener web" # handle 12 (verdict goto take)'
  const found = observed(BEGIN, rule, ...INPUT)!
  assert.deepEqual([found.takenBy, found.fate, found.mark], ['listener web', 'delivered', 0x1000_0000])
  assert.deepEqual([found.interface, found.to], ['x-y', '10.0.4.2:80'])
  assert.deepEqual(
    found.steps.map(({ where, chain, verdict }) => [where, chain, verdict]),
    [['nft inet limpid', 'prerouting', 'goto take']],
  )
})

test('a jump into chains of iptables takes the packet only when one of them does', () => {
  const jump =
    'ip mangle limpid-prerouting rule meta l4proto tcp counter packets 0 bytes 0 jump limpid-l1 # handle 4 (verdict jump limpid-l1)'
  const back = 'ip mangle limpid-l1 rule ip saddr 10.0.3.1 counter packets 0 bytes 0 return # handle 5 (verdict return)'
  const taken =
    'ip mangle limpid-l1 rule meta l4proto tcp counter packets 0 bytes 0 xt target TPROXY # handle 6 (verdict accept)'
  const next =
    'ip mangle limpid-prerouting rule meta l4proto tcp xt match socket counter packets 0 bytes 0 # handle 7 (verdict continue)'
  assert.equal(observed(BEGIN, jump, back, next)?.takenBy, null)
  assert.equal(observed(BEGIN, jump, next)?.takenBy, null)
  assert.equal(observed(BEGIN, jump, taken, ...INPUT)?.takenBy, 'listener web')
})

test('a guard’s rule drops, and takes nothing', () => {
  const guard =
    'inet limpid-guard prerouting rule tcp dport 80 counter packets 0 bytes 0 drop comment "listener web" # handle 3 (verdict drop)'
  const found = observed(BEGIN, guard)!
  assert.deepEqual([found.takenBy, found.fate], [null, 'dropped'])
})

test('a packet that comes to none of the chains behind routing was dropped, and none at all is told apart', () => {
  assert.equal(observed(BEGIN)?.fate, 'dropped')
  assert.equal(observed(), undefined)
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findPacket, parseTrace } from './trace.ts'

// as nft 1.0.6 prints it (nft -a monitor trace)
const TEXT = `trace id c0f3210c inet limpid-doctor prerouting packet: iif "x-y" ether saddr 7a:8e:b1:a3:64:38 ip saddr 198.18.7.2 ip daddr 198.18.7.6 ip protocol tcp tcp sport 42382 tcp dport 80 tcp flags == syn tcp window 64240 
trace id c0f3210c inet limpid-doctor prerouting rule ip saddr 198.18.7.2 ip daddr 198.18.7.6 meta nftrace set 1 # handle 3 (verdict continue)
trace id c0f3210c inet limpid-doctor prerouting policy accept 
trace id 8819bff9 inet theirs p packet: oif "x-y" ip saddr 198.18.7.6 ip daddr 198.18.7.2 tcp sport 80 tcp flags == 0x12 
trace id c0f3210c inet theirs early rule tcp dport 80 counter packets 4 bytes 240 meta mark set 0x00000005 comment "hello" # handle 2 (verdict continue)
trace id c0f3210c inet theirs early policy accept meta mark 0x00000005 
something else
trace id c0f3210c inet theirs late rule tcp dport 80 drop (verdict drop)
`

test('a trace is read packet by packet, with rules, handles, verdicts and marks', () => {
  const packets = parseTrace(TEXT)
  assert.equal(packets.length, 2)
  const [first] = packets
  assert.deepEqual(
    first!.map(({ kind, chain, handle, verdict, mark }) => [kind, chain, handle, verdict, mark]),
    [
      ['packet', 'prerouting', undefined, undefined, undefined],
      ['rule', 'prerouting', 3, 'continue', undefined],
      ['policy', 'prerouting', undefined, 'accept', 0],
      ['rule', 'early', 2, 'continue', undefined],
      ['policy', 'early', undefined, 'accept', 5],
      ['rule', 'late', undefined, 'drop', undefined],
    ],
  )
  assert.equal(first![3]!.text, 'tcp dport 80 counter meta mark set 0x00000005 comment "hello"')
})

test('a packet is found by its addresses and flags', () => {
  const packets = parseTrace(TEXT)
  assert.equal(findPacket(packets, '198.18.7.2', '198.18.7.6', /tcp flags == syn/).length, 6)
  assert.equal(findPacket(packets, '198.18.7.6', '198.18.7.2', /tcp flags == 0x12/).length, 1)
  assert.equal(findPacket(packets, '198.18.7.2', '198.18.7.9', /tcp/).length, 0)
})

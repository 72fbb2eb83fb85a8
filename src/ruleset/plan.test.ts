import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ListenerConfig } from '../config/types.ts'
import type { LimpidError } from '../errors.ts'
import { parsePrefix } from '../net/prefix.ts'
import type { HostFacts } from '../sys/host.ts'
import { usesOurBits } from './clash.ts'
import { configOf, listener } from './gateway.fixture.ts'
import { ownedText, tableDigest } from './nft.ts'
import { isEmptyPlan, type Plan, planRuleset } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'
import { printPlan } from './print.ts'

const FACTS: HostFacts = {
  interfaces: [
    { name: 'lo', addresses: ['127.0.0.1', '::1'], up: true },
    { name: 'lan0', addresses: ['10.0.3.101'], up: true },
    { name: 'wan0', addresses: ['10.0.4.1'], up: true },
  ],
  bridges: [],
  ipv6: true,
  sysctls: new Map(),
  namespace: 1,
}
const mainOf = ({ main }: Plan): string => main.map(({ text }) => text).join('')
const planOf = (...listeners: ListenerConfig[]) => planRuleset(configOf(...listeners), FACTS)
const NONE: Partial<ListenerConfig> = { intercept: 'none', listen: [{ address: '0.0.0.0', port: 80 }], families: [4] }

const WEB = listener({
  name: 'web',
  families: [4],
  match: {
    ...MATCH_ANY,
    interfaces: ['lan0'],
    sources: [parsePrefix('10.0.3.0/24')!],
    destinations: [],
    ports: [
      { from: 80, to: 80 },
      { from: 443, to: 443 },
    ],
  },
  exclude: { ...MATCH_ANY, destinations: [parsePrefix('10.0.9.0/24')!] },
})

const WEB_TEXT = `# Brings intercepted TCP flows to their listeners.
table inet limpid {
	comment "limpid DIGEST"

	set bypass4 {
		type ipv4_addr
		flags interval,timeout
		counter
	}

	set bypassed4 {
		type ipv4_addr
		flags interval,timeout
		counter
	}

	set bypass-flows4 {
		type ipv4_addr . inet_service . ipv4_addr . inet_service
		flags dynamic,timeout
		timeout 1h
		size 262144
	}

	set begun4 {
		type ipv4_addr . inet_service . ipv4_addr . inet_service
		flags dynamic,timeout
		timeout 10s
		size 262144
	}

	chain bypass {
		# forwarded by the kernel; counted, and known by its mark
		meta l4proto tcp counter comment "bypass connections"
		update @bypass-flows4 { ip saddr . th sport . ip daddr . th dport }
		meta mark set (meta mark & 0xcfffffff) | 0x20000000
	}

	chain take {
		tcp flags & (syn|ack) == syn update @begun4 { ip saddr . tcp sport . ip daddr . tcp dport }
		meta mark set (meta mark & 0xcfffffff) | 0x10000000 accept
	}

	chain divert {
		# a socket that listens on all addresses is not meant for those of somebody else
		socket wildcard 1 return
		meta mark set (meta mark & 0xcfffffff) | 0x10000000 counter accept
	}

	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;

		iifname "lo" return

		# errors about what sockets here have sent
		meta l4proto { icmp, icmpv6 } socket transparent 1 jump divert

		meta l4proto != tcp return

		# Limpid's own packets
		meta mark & 0x30000000 == 0x20000000 return

		# packets of flows that have a socket here; a SYN may find that of an older flow, so it comes last
		tcp flags & (syn|ack) != syn socket transparent 1 jump divert

		# of what has no socket, only the beginning of a flow is taken
		tcp flags & (syn|ack) != syn ip saddr . tcp sport . ip daddr . tcp dport != @begun4 return

		# addresses that stand for no single other host
		fib daddr type { broadcast, anycast, multicast } return
		ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4 } return
		ip6 daddr { ::, ::1, fe80::/10, ff00::/8 } return

		# destinations that the kernel forwards by itself
		tcp flags & (syn|ack) == syn fib daddr type != local ip daddr @bypass4 goto bypass

		# addressed to this host
		fib daddr type local return

		# listener web
		iifname "lan0" ip saddr 10.0.3.0/24 tcp dport { 80, 443 } ip daddr != 10.0.9.0/24 tproxy ip to 127.0.0.1:50080 counter goto take comment "listener web"

		# new flows to a socket that listens on an address of somebody else
		tcp flags & (syn|ack) == syn socket transparent 1 jump divert
	}

	chain bypassed {
		meta mark & 0x30000000 != 0x0 return
		ip saddr . th sport . ip daddr . th dport @bypass-flows4 ip daddr @bypassed4 update @bypass-flows4 { ip saddr . th sport . ip daddr . th dport } counter return comment "bypass packets"
		ip daddr . th dport . ip saddr . th sport @bypass-flows4 ip saddr @bypassed4 counter return comment "bypass packets"
	}

	chain bypassed-forward {
		type filter hook forward priority filter; policy accept;

		meta l4proto tcp goto bypassed
	}
}
`

const WEB_GUARD = `# Drops what closed listeners did not take, also while Limpid is down.
table inet limpid-guard {
	comment "limpid DIGEST"

	chain prerouting {
		type filter hook prerouting priority dstnat + 1; policy accept;

		iifname "lo" return
		meta mark & 0x30000000 != 0x0 return

		# no flow comes to be without its SYN
		meta l4proto != tcp return
		tcp flags & (syn|ack) != syn return

		# addresses that stand for no single other host
		fib daddr type { broadcast, anycast, multicast } return
		ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4 } return
		ip6 daddr { ::, ::1, fe80::/10, ff00::/8 } return

		# listener web
		iifname "lan0" ip saddr 10.0.3.0/24 tcp dport { 80, 443 } ip daddr != 10.0.9.0/24 fib daddr type != local counter drop comment "listener web"
	}
}
`

const withoutDigest = (text: string) => text.replace(/limpid [0-9a-f]{12}/, 'limpid DIGEST')

test('the nft text is what an operator would type', () => {
  const plan = planOf(WEB)
  assert.equal(withoutDigest(mainOf(plan)), WEB_TEXT)
  assert.deepEqual(plan.guard, [])
  assert.equal(withoutDigest(planOf({ ...WEB, onDown: 'closed' }).guard[0]?.text ?? ''), WEB_GUARD)
})

test('an owned table differs by one line, and both have the digest of their config', () => {
  const nftText = mainOf(planOf(WEB))
  assert.equal(ownedText(nftText).replace('\tflags owner\n', ''), nftText)
  assert.equal(tableDigest(ownedText(nftText)), tableDigest(nftText))
  assert.notEqual(tableDigest(nftText), tableDigest(mainOf(planOf({ ...WEB, name: 'other' }))))
})

test('marked packets that were received are routed to this host, in the families that are served', () => {
  const { ipRules, routes } = planOf(WEB)
  assert.deepEqual(
    ipRules.map((rule) => `${rule.family} ${ipRuleArgs(rule).join(' ')}`),
    [
      '4 pref 194 iif lo fwmark 0x10000000/0x30000000 goto 196 protocol 195',
      '4 pref 195 fwmark 0x10000000/0x30000000 lookup 19536 protocol 195',
      '4 pref 196 nop protocol 195',
    ],
  )
  assert.deepEqual(
    routes.map((route) => routeArgs(route).join(' ')),
    ['local default dev lo table 19536 proto 195'],
  )
})

test('a plain forwarder needs nothing; one with a foreign source or a foreign address to listen on needs the divert', () => {
  assert.ok(isEmptyPlan(planOf(listener(NONE))))
  assert.ok(isEmptyPlan(planOf(listener({ ...NONE, source: { address: '10.0.4.1' } }))))
  for (const changes of [
    { source: 'client' },
    { source: 'client-port' },
    { source: { address: '10.0.9.9' } },
    { listen: [{ address: '10.0.4.77', port: 21 }] },
  ] satisfies Partial<ListenerConfig>[]) {
    const plan = planOf(listener({ ...NONE, ...changes }))
    assert.match(mainOf(plan), /jump divert/)
    assert.doesNotMatch(mainOf(plan), /tproxy/)
    assert.equal(plan.ipRules.length, 3)
  }
})

test('rules are of the protocols that listeners have, and of no other', () => {
  const texts = (protocols: ListenerConfig['protocols'], changes: Partial<ListenerConfig> = {}) => {
    const { main, guard } = planOf(listener({ protocols, onDown: 'closed', ...changes }))
    return [...main, ...guard].map(({ text }) => text).join('')
  }
  for (const intercept of ['tproxy', 'redirect', 'none'] as const) {
    const changes = { intercept, source: 'client' } as const
    assert.doesNotMatch(texts(['tcp'], changes), /udp|datagram/)
    assert.doesNotMatch(texts(['udp'], changes), /tcp|syn/)
    assert.match(texts(['tcp', 'udp'], changes), /TCP and UDP/)
  }
  assert.match(
    texts(['udp']),
    /# listener all\n\t\tmeta nfproto ipv4 meta l4proto udp tproxy ip to 127\.0\.0\.1:50080 /,
  )
})

test('what passes by is noted only where a listener for datagrams has ports to which answers go', () => {
  const notes = (...ports: number[]) => {
    const match = { ...MATCH_ANY, ports: ports.map((port) => ({ from: port, to: port })) }
    return /@passed4/.test(mainOf(planOf(listener({ protocols: ['udp'], match }))))
  }
  assert.ok(!notes(53, 443))
  assert.ok(notes())
  assert.ok(notes(53, 1_024))
  assert.ok(notes(123), 'both ends of NTP have this port')
})

test('flows are noted as taken only where a dial has the address and port of its client', () => {
  const text = (source: ListenerConfig['source']) => mainOf(planOf(listener({ protocols: ['udp'], source })))
  assert.match(text('client-port'), /@taken4/)
  assert.doesNotMatch(text('client'), /@taken4/)
})

test('fragments are put together for listeners of datagrams, also without tproxy', () => {
  const text = (intercept: 'tproxy' | 'mark') => mainOf(planOf(listener({ protocols: ['udp'], intercept })))
  assert.match(text('mark'), /chain whole \{/)
  assert.doesNotMatch(text('tproxy'), /chain whole/)
})

test('datagrams to a listener that others can reach are refused at its address alone, for answers may go to that port of another', () => {
  const text = (address: string) =>
    mainOf(planOf(listener({ protocols: ['udp'], listen: [{ address, port: 50_081 }], families: [4] })))
  assert.match(text('10.0.3.101'), /ip daddr 10\.0\.3\.101 udp dport 50081 .* reject with icmpx port-unreachable/)
  assert.match(text('0.0.0.0'), /meta nfproto ipv4 udp dport 50081 .* reject with icmpx port-unreachable/)
})

test('a family that cannot be served is left out, and the plan says why', () => {
  const off = planRuleset(configOf(listener()), { ...FACTS, ipv6: false })
  assert.deepEqual(off.notes, ['listener all: IPv6 is left out: IPv6 is off on this host'])
  assert.doesNotMatch(mainOf(off), /tproxy ip6/)
  assert.deepEqual(
    off.routes.map(({ family }) => family),
    [4],
  )
  const source = planOf(listener({ source: { address: 'fd00::9' } }))
  assert.deepEqual(source.notes, ['listener all: IPv4 is left out: the source fd00::9 is not IPv4'])
})

test('a listener on a wildcard address gets its packets on loopback, and may not be dialled', () => {
  const nftText = mainOf(planOf(listener({ listen: [{ address: '0.0.0.0', port: 50_081 }], families: [4] })))
  assert.match(nftText, /tproxy ip to 127\.0\.0\.1:50081 /)
  assert.match(nftText, /tcp dport 50081 meta mark & 0x30000000 != 0x10000000 counter reject with tcp reset/)
  assert.doesNotMatch(mainOf(planOf(WEB)), /reject/)
})

test('an interface that this host does not have is refused with the list of those it has; a prefix may come later', () => {
  assert.throws(
    () => planOf(listener({ match: { ...MATCH_ANY, interfaces: ['eth7'] } })),
    (error: LimpidError) => error.code === 'LIMPID_INTERFACE' && /lo, lan0, wan0/.test(error.cure ?? ''),
  )
  const nftText = mainOf(planOf(listener({ match: { ...MATCH_ANY, interfaces: ['ppp*'] } })))
  assert.match(nftText, /iifname "ppp\*" /)
})

test('a name that nft would not take as it is cannot break its text', () => {
  const nftText = mainOf(planOf(listener({ name: 'a "b"\n; flush ruleset é' })))
  assert.match(nftText, /comment "listener a \?b\?\?; flush ruleset \?"\n/)
})

test('a rule of somebody else clashes when it could match our mark, or its mark ours', () => {
  const uses = (mark: number, mask: number) => usesOurBits({ mark, mask }, DEFAULT_RULES)
  assert.equal(uses(0x4000, 0x4000), false)
  assert.equal(uses(0xca6c, 0xffff_ffff), false) // wg-quick
  assert.equal(uses(0x1000_0000, 0xffff_ffff), true)
  assert.equal(uses(0, 0xf000_0000), true)
  assert.equal(usesOurBits({ mark: undefined, mask: undefined }, DEFAULT_RULES), false)
})

test('the printed plan holds everything that an operator would type, and who knows whom', () => {
  const text = printPlan(planOf({ ...WEB, source: 'client' }))
  assert.match(text, /^nft -f - <<'EOF'\n# Brings/)
  assert.match(text, /\nip -4 rule add pref 195 fwmark 0x10000000\/0x30000000 lookup 19536 protocol 195\n/)
  assert.match(text, /\n# no sysctl is changed\n/)
  assert.match(text, /\n# web +IPv4 +Z +Z +Y +Y and Z know each other, not X {2}/)
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { forward, listener, problemsOf } from './parse.fixture.ts'
import { parseConfig } from './parse.ts'
import type { ListenerConfig } from './types.ts'

function only(...lines: string[]): ListenerConfig {
  return parseConfig(listener(...lines), 'f').listeners[0]!
}

const endpoints = ({ listen }: ListenerConfig): string[] => listen.map(({ address, port }) => `${address} ${port}`)

test('redirect waits on every address, on one port or a range of them', () => {
  assert.deepEqual(endpoints(only('intercept: redirect')), ['0.0.0.0 50080', ':: 50080'])
  assert.deepEqual(endpoints(only('intercept: redirect', 'listen: 50080-50081')), [
    '0.0.0.0 50080',
    '0.0.0.0 50081',
    ':: 50080',
    ':: 50081',
  ])
  assert.equal(only('intercept: redirect', 'listen: 50080-50143', 'family: 4').listen.length, 64)
  assert.deepEqual(endpoints(only('intercept: redirect', 'paths: local', 'listen: "127.0.0.1:50080"')), [
    '127.0.0.1 50080',
  ])
})

test('mark waits on every address, on the port that it takes, whichever of the two is said', () => {
  for (const line of ['ports: 80', 'listen: 80', 'ports: [80-80]']) {
    const config = only('intercept: mark', line)
    assert.deepEqual(endpoints(config), ['0.0.0.0 80', ':: 80'], line)
    assert.deepEqual(config.match.ports, [{ from: 80, to: 80 }], line)
  }
  assert.deepEqual(endpoints(only('intercept: mark', 'listen: "[::]:80"')), [':: 80'])
})

test('dnat waits where it is told to', () => {
  assert.deepEqual(endpoints(only('intercept: dnat', 'listen: ["10.0.3.101:1080", "[fd00:3::101]:1081"]')), [
    '10.0.3.101 1080',
    'fd00:3::101 1081',
  ])
})

test('forwarders take no paths, others the forwarded one unless told otherwise', () => {
  assert.deepEqual(only('intercept: none', 'listen: 1', 'to: z').paths, [])
  assert.deepEqual(only('intercept: mark', 'listen: 1').paths, ['forwarded'])
  assert.deepEqual(only('paths: [bridged, local, bridged]').paths, ['bridged', 'local'])
})

test('a configuration may have forwards alone; they keep the port, ask for TCP only, and show the client', () => {
  const config = parseConfig(
    'forwards: [{ ports: 53, to: 10.0.4.2, protocols: udp }, { ports: all, to: "[fd00::2]" }]',
    'f',
  )
  assert.deepEqual(config.listeners, [])
  assert.deepEqual(
    config.forwards.map(({ name, protocols, to, source, healthMs }) => ({ name, protocols, to, source, healthMs })),
    [
      { name: 'forward-1', protocols: ['udp'], to: { address: '10.0.4.2', port: 0 }, source: 'client', healthMs: 0 },
      { name: 'forward-2', protocols: ['tcp'], to: { address: 'fd00::2', port: 0 }, source: 'client', healthMs: 5_000 },
    ],
  )
})

const ONE_PORT = 'expected one port, on which the listener waits: intercept mark changes no port'
const LISTEN =
  'expected an address and port such as 127.0.0.1:50080 or [::1]:50080, a port from 1 to 65535, or a range of ports'
const PROCESS = 'needs paths: local; who sent a packet is known here alone'
const ONE_RANGE = 'expected one address and one range of ports of IPv4 for an intercepting listener, found more'

const BAD: [what: string, text: string, problems: string[]][] = [
  [
    'a mistyped path',
    listener('paths: [local, bridge]'),
    ['3:20: expected forwarded, local or bridged, found "bridge"; did you mean "bridged"?'],
  ],
  [
    'no path',
    listener('paths: []'),
    ['3:12: expected forwarded, local or bridged, or a list of such, found an empty list'],
  ],
  ['no endpoint', listener('listen: []'), [`3:13: ${LISTEN}, or a list of such, found an empty list`]],
  ['a listener for SCTP', listener('protocols: [tcp, sctp]'), ['3:22: expected tcp or udp, found "sctp"']],
  [
    'mark without a port',
    listener('intercept: mark'),
    ['2:5: expected "ports": with intercept mark the listener waits on the very port that it takes'],
  ],
  ['mark with two ports', listener('intercept: mark', 'ports: [80, 443]'), [`4:12: ${ONE_PORT}`]],
  ['mark with a range of ports', listener('intercept: mark', 'ports: 80-81'), [`4:12: ${ONE_PORT}`]],
  ['mark with all ports', listener('intercept: mark', 'ports: all'), [`4:12: ${ONE_PORT}`]],
  ['mark that waits on another port', listener('intercept: mark', 'ports: 80', 'listen: 50080'), [`4:12: ${ONE_PORT}`]],
  [
    'mark that waits on two ports',
    listener('intercept: mark', 'listen: ["0.0.0.0:80", "[::]:81"]'),
    [`4:13: ${ONE_PORT}`],
  ],
  [
    'mark that waits on one address',
    listener('intercept: mark', 'listen: "127.0.0.1:80"'),
    ['4:13: expected a port alone, found 127.0.0.1: intercept mark changes no address, so the listener waits on all'],
  ],
  [
    'dnat without an address',
    listener('intercept: dnat'),
    ['2:5: expected "listen": with intercept dnat packets get the address of the listener as their destination'],
  ],
  ...['"127.0.0.1:80"', '"127.0.0.9:80"', '"[::1]:80"', '"0.0.0.0:80"', '"[::]:80"', '80'].map(
    (listen): [string, string, string[]] => [
      `dnat to ${listen}`,
      listener('intercept: dnat', `listen: ${listen}`),
      [
        `4:13: expected an address of this host that others can reach, found ${
          listen === '80' ? '0.0.0.0' : listen.replaceAll(/"|\[|\]|:80"/g, '')
        }: intercept dnat sends packets there`,
      ],
    ],
  ),
  ['redirect to two ranges', listener('intercept: redirect', 'listen: [80-81, 90]'), [`4:13: ${ONE_RANGE}`]],
  [
    'redirect to two addresses',
    listener('intercept: redirect', 'listen: ["10.0.0.1:80", "10.0.0.2:80"]'),
    [`4:13: ${ONE_RANGE}`],
  ],
  [
    'redirect to 65 ports',
    listener('intercept: redirect', 'listen: 50080-50144'),
    [`4:13: ${LISTEN}, found "50080-50144": a range has at most 64 ports`],
  ],
  [
    'tproxy to a range of ports',
    listener('listen: 50080-50081'),
    ['3:13: expected one endpoint of IPv4 for an intercepting listener, found more'],
  ],
  [
    'redirect of others to loopback',
    listener('intercept: redirect', 'listen: "127.0.0.1:80"'),
    [
      "4:13: expected a port alone, found 127.0.0.1: intercept redirect sends packets to the receiving interface's own address",
    ],
  ],
  [
    'redirect of local packets to an address',
    listener('intercept: redirect', 'paths: local', 'listen: "10.0.0.1:80"'),
    ['5:13: expected a port alone, found 10.0.0.1: intercept redirect sends packets of this host to loopback'],
  ],
  [
    "users' packets on their way between others",
    listener('uids: 1000', 'paths: [local, forwarded]', 'cgroups: a'),
    [`3:5: "uids" ${PROCESS}`, `5:5: "cgroups" ${PROCESS}`],
  ],
  ['a cgroup without a path', listener('cgroups: a'), [`3:5: "cgroups" ${PROCESS}`]],
  [
    'a user excluded where none is known',
    listener('exclude: { uids: 0 }'),
    ['3:16: "uids" has no meaning without the path local'],
  ],
  [
    'a user id that is none',
    listener('paths: local', 'uids: [root, 9-1, 4294967295]'),
    ['12', '18', '23'].map(
      (column, i) =>
        `4:${column}: expected a user id such as 1000, or a range such as 1000-1999, found ${['"root"', '"9-1"', '4294967295'][i]}`,
    ),
  ],
  [
    'a cgroup outside of the hierarchy',
    listener('paths: local', 'cgroups: a/../b'),
    ['4:14: expected the path of a cgroup below /sys/fs/cgroup, such as system.slice/nginx.service, found "a/../b"'],
  ],
  [
    'a fwmark outside of its mask',
    listener('fwmarks: 0x100/0xff'),
    ['3:14: expected a fwmark such as 0x1, or one with its mask such as 0x1/0xff, found "0x100/0xff"'],
  ],
  [
    'a fwmark of our own',
    listener('fwmarks: 0x20000001', 'exclude: { fwmarks: 0x10000000/0x10000000 }'),
    [
      "3:14: fwmark 0x20000001 has bits of markMask 0x30000000, which are Limpid's own",
      "4:25: fwmark 0x10000000 has bits of markMask 0x30000000, which are Limpid's own",
    ],
  ],
  [
    'marks of which one holds the other, on the path local',
    `${listener('paths: local')}\nrules: { markMask: 3, interceptMark: 1, bypassMark: 3 }`,
    ['4:38: interceptMark 0x1 and bypassMark 0x3 must each have a bit of its own: the path local has the mark 0x3'],
  ],
  [
    'another program for the rules',
    `${listener()}\nrules: { backend: ufw }`,
    ['3:19: expected auto, nft or iptables, found "ufw"'],
  ],
  [
    'neither listeners nor forwards',
    'limits: {}',
    ['1:1: expected "listeners": a configuration needs listeners, or forwards'],
  ],
  ['no forwards', 'forwards: []', ['1:11: expected at least one forward, found an empty list']],
  [
    'a forward without ports',
    forward('to: 10.0.4.2'),
    ['2:5: expected "ports": a forward takes the ports that it names'],
  ],
  [
    'a forward with no ports',
    forward('to: 10.0.4.2', 'ports: []'),
    ['4:12: expected "ports": a forward takes the ports that it names'],
  ],
  [
    'a forward to nobody',
    forward('ports: 53'),
    ['2:5: expected "to", host:port, [address]:port, or a host alone to keep the original port, found nothing'],
  ],
  [
    'a forward to a name',
    forward('ports: 53', 'to: z.example:53'),
    ['4:9: expected an address: the kernel knows no names such as z.example'],
  ],
  [
    'a forward to ourselves',
    forward('ports: 53', 'to: 127.0.0.1'),
    ['4:9: expected the address of another host, found 127.0.0.1'],
  ],
  [
    'a forward of another protocol',
    forward('ports: 53', 'to: 10.0.4.2', 'protocols: [udp, sctp]'),
    ['5:22: expected tcp or udp, found "sctp"'],
  ],
  [
    'a forward with a source of its own',
    forward('ports: 53', 'to: 10.0.4.2', 'source: client-port'),
    ['5:13: expected client or proxy, found "client-port"'],
  ],
  [
    'a bypass of a prefix with host bits',
    `${listener()}\nbypass: [10.0.0.0/8, 10.0.4.2/24]`,
    [
      '3:22: expected an address or a prefix without host bits, such as 10.0.3.0/24 or fd00::/8, found "10.0.4.2/24"; did you mean "10.0.4.0/24"?',
    ],
  ],
  [
    'a bypass of a name',
    `${listener()}\nbypass: z.example`,
    ['3:9: expected an address or a prefix without host bits, such as 10.0.3.0/24 or fd00::/8, found "z.example"'],
  ],
  [
    'a bypass where nothing is taken',
    'listeners: [{ intercept: none, listen: 80, to: 10.0.4.2 }]\nbypass: 10.0.0.0/8',
    ['2:9: bypass has no meaning: no listener takes packets that could go by it'],
  ],
  [
    'a bypass without rules',
    `${listener()}\nrules: { install: false }\nbypass: 10.0.0.0/8`,
    ['4:9: bypass needs the kernel rules, which are switched off'],
  ],
  ['a forward for users', forward('ports: 53', 'to: 10.0.4.2', 'uids: 0'), [`5:5: "uids" ${PROCESS}`]],
  [
    'a forward that asks for UDP',
    forward('ports: 53', 'to: 10.0.4.2', 'protocols: udp', 'health: 1s'),
    ['6:13: health needs the protocol tcp: a UDP server cannot be asked whether it is there'],
  ],
  [
    'a forward from IPv6 to IPv4',
    forward('ports: 53', 'to: 10.0.4.2', 'destinations: ["fd00::1"]'),
    ['5:19: an IPv6 address cannot be passed on to "to", which is IPv4'],
  ],
  [
    "a listener's key in a forward",
    forward('ports: 53', 'to: 10.0.4.2', 'onDown: closed'),
    [
      '5:5: expected one of name, protocols, interfaces, sources, destinations, ports, uids, cgroups, fwmarks, exclude, to, source, health, found "onDown"',
    ],
  ],
  [
    'two forwards of one name',
    'forwards:\n  - { name: a, ports: 1, to: 10.0.4.2 }\n  - { name: a, ports: 2, to: 10.0.4.2 }',
    ['3:13: forward name "a" is used twice'],
  ],
]

for (const [what, text, problems] of BAD) {
  test(`${what} is refused with its place`, () => {
    assert.deepEqual(problemsOf(text), problems)
  })
}

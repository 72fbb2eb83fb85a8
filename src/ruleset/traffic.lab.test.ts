import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { MATCH_ANY } from '../config/defaults.ts'
import type { Config } from '../config/types.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { parsePrefix } from '../net/prefix.ts'
import { hostFacts, readSysctl } from '../sys/host.ts'
import { setReuseAddress, setTransparent } from '../sys/options.ts'
import { bindSocket, openTcp } from '../sys/socket.ts'
import {
  ask,
  CLIENT,
  configOf,
  FAMILIES,
  type Gateway,
  listener,
  listenTransparent,
  PROXY,
  raiseGateway,
  SERVER,
  SILENT_MS,
  setSysctl,
} from './gateway.fixture.ts'
import { type InstalledRuleset, installRuleset } from './install.ts'
import { planRuleset } from './plan.ts'

await enterNamespaces()

let gateway: Gateway
before(async () => {
  gateway = await raiseGateway()
})
after(async () => await gateway.close())

const install = (config: Config) => installRuleset(planRuleset(config, hostFacts()), { owner: 'process' })

async function withRules(config: Config, work: (installed: InstalledRuleset) => Promise<void>): Promise<void> {
  const servers = [
    listenTransparent({ address: '127.0.0.1', port: 50_080 }),
    listenTransparent({ address: '::1', port: 50_080 }),
  ]
  const installed = await install(config)
  try {
    await work(installed)
  } finally {
    await installed.remove()
    for (const server of servers) server.close()
  }
}

const fromY = (address: string, port = 80, waitMs?: number) => ask(gateway.y.connect({ address, port }), waitMs)

test('packets to a server reach the listener, whose accepted socket has the address that the client dialled', async () => {
  await withRules(configOf(listener()), async () => {
    assert.equal(await fromY(SERVER[4]), 'intercepted 10.0.4.2:80')
    assert.equal(await fromY(SERVER[6]), 'intercepted [fd00:4::2]:80')
    assert.equal(await fromY(SERVER[4], 4_711), 'intercepted 10.0.4.2:4711')
  })
  assert.match(await fromY(SERVER[4]), /^server saw 10\.0\.3\.1:/)
  assert.match(await fromY(SERVER[6]), /^server saw \[fd00:3::1\]:/)
})

test('without forwarding, the taken packets still reach the listener', async () => {
  setSysctl('net.ipv4.ip_forward', '0')
  setSysctl('net.ipv6.conf.all.forwarding', '0')
  await withRules(configOf(listener()), async () => {
    for (const family of FAMILIES) assert.match(await fromY(SERVER[family]), /^intercepted/)
  })
  setSysctl('net.ipv4.ip_forward', '1')
  setSysctl('net.ipv6.conf.all.forwarding', '1')
})

for (const values of [
  { 'net.ipv4.conf.all.src_valid_mark': '1' },
  { 'net.ipv4.conf.all.src_valid_mark': '1', 'net.ipv4.conf.all.rp_filter': '1' },
  { 'net.ipv4.conf.all.rp_filter': '1' },
  { 'net.ipv4.conf.all.rp_filter': '2' },
  { 'net.ipv4.tcp_fwmark_accept': '1' },
  { 'net.ipv4.fwmark_reflect': '1', 'net.ipv6.fwmark_reflect': '1' },
  { 'net.ipv4.tcp_early_demux': '0' },
]) {
  const shown = Object.entries(values).map(([key, value]) => `${key}=${value}`)
  test(`with ${shown.join(', ')} packets reach the listener, and no sysctl is changed`, async () => {
    const former = hostFacts().sysctls
    const facts = new Map<string, string>()
    for (const [key, value] of Object.entries(values)) {
      facts.set(key, key.includes('early_demux') ? '1' : '0')
      setSysctl(key, value)
    }
    const set = hostFacts().sysctls
    await withRules(configOf(listener()), async () => {
      for (const family of FAMILIES) assert.match(await fromY(SERVER[family]), /^intercepted/)
      assert.deepEqual(hostFacts().sysctls, set)
    })
    for (const [key, value] of facts) setSysctl(key, value)
    assert.deepEqual(hostFacts().sysctls, former)
  })
}

test('under SYN cookies, when no socket remembers a SYN, flows are taken all the same', async () => {
  const former = readSysctl('net.ipv4.tcp_syncookies')!
  setSysctl('net.ipv4.tcp_syncookies', '2') // for every connection (ip-sysctl.rst)
  await withRules(configOf(listener()), async () => {
    for (const family of FAMILIES) assert.match(await fromY(SERVER[family]), /^intercepted/)
  })
  setSysctl('net.ipv4.tcp_syncookies', former)
})

test('a connection made from the other side passes, both ways, by a listener for one interface', async () => {
  const inside = gateway.y.listen({ address: '0.0.0.0', port: 25 })
  inside.on('connection', (socket) => socket.end('from inside'))
  const config = configOf(listener({ match: { ...MATCH_ANY, interfaces: ['y'] }, onDown: 'closed' }))
  await withRules(config, async () => {
    assert.equal(await ask(gateway.z.connect({ address: CLIENT[4], port: 25 })), 'from inside')
    assert.match(await fromY(SERVER[4]), /^intercepted/)
  })
  inside.close()
})

test('a flow that is older than the rules goes on past the listener', async () => {
  const echo = gateway.z.listen({ address: '0.0.0.0', port: 7 })
  echo.on('connection', (socket) => socket.pipe(socket))
  const socket = gateway.y.connect({ address: SERVER[4], port: 7 })
  const say = async (text: string) => {
    socket.write(text)
    assert.equal(`${(await once(socket, 'data'))[0]}`, text)
  }
  await say('before')
  await withRules(configOf(listener({ onDown: 'closed' })), async () => {
    await say('under the rules')
    assert.match(await fromY(SERVER[4]), /^intercepted/)
  })
  await say('after')
  socket.destroy()
  echo.close()
})

test('only the ports, sources and interfaces of the match are taken', async () => {
  const match = {
    ...MATCH_ANY,
    interfaces: ['y'],
    sources: [parsePrefix('10.0.3.0/24')!],
    ports: [{ from: 81, to: 90 }],
  }
  await withRules(configOf(listener({ match })), async () => {
    assert.match(await fromY(SERVER[4], 81), /^intercepted/)
    assert.match(await fromY(SERVER[4], 80), /^server saw/)
    assert.match(await fromY(SERVER[6], 81), /^server saw/)
  })
  await withRules(configOf(listener({ match: { ...MATCH_ANY, interfaces: ['z'] } })), async () => {
    assert.match(await fromY(SERVER[4]), /^server saw/)
  })
})

const EXCLUSIONS = {
  interface: { interfaces: ['y'] },
  source: { sources: [parsePrefix('10.0.3.1')!, parsePrefix('fd00:3::/64')!] },
  destination: { destinations: [parsePrefix('10.0.4.0/24')!, parsePrefix('fd00:4::2')!] },
  port: { ports: [{ from: 80, to: 80 }] },
}
for (const [name, exclude] of Object.entries(EXCLUSIONS)) {
  test(`a flow that is excluded by ${name} passes untouched, in both directions, under a closed listener for everything`, async () => {
    const config = configOf(listener({ exclude: { ...MATCH_ANY, ...exclude }, onDown: 'closed' }))
    await withRules(config, async () => {
      for (const family of FAMILIES) {
        assert.match(await fromY(SERVER[family]), /^server saw/)
        if (name === 'port') assert.match(await fromY(SERVER[family], 81), /^intercepted/)
      }
    })
  })
}

test('of several listeners the first that matches takes a packet', async () => {
  const other = listenTransparent({ address: '127.0.0.1', port: 50_081 })
  const config = configOf(
    listener({
      name: 'web',
      families: [4],
      listen: [{ address: '127.0.0.1', port: 50_081 }],
      match: { ...MATCH_ANY, ports: [{ from: 81, to: 81 }] },
    }),
    listener(),
  )
  let taken = 0
  other.on('connection', () => taken++)
  await withRules(config, async () => {
    assert.match(await fromY(SERVER[4], 81), /^intercepted/)
    assert.equal(taken, 1)
    assert.match(await fromY(SERVER[4], 80), /^intercepted/)
    assert.equal(taken, 1)
  })
  other.close()
})

test('this host itself can still be dialled, unless its packets are to be taken too', async () => {
  await withRules(configOf(listener()), async () => {
    for (const family of FAMILIES) assert.equal(await fromY(PROXY[family]), 'ECONNREFUSED')
  })
  await withRules(configOf(listener({ addressedHere: true, onDown: 'closed' })), async () => {
    assert.equal(await fromY(PROXY[4]), 'intercepted 10.0.3.101:80')
    const own = new Socket({ fd: openTcp(4), allowHalfOpen: true }).connect({ host: SERVER[4], port: 80 })
    assert.match(await ask(own), /^server saw 10\.0\.4\.1:/)
  })
})

test('a client that dials a listener on a wildcard address is refused, and interception goes on', async () => {
  const server = listenTransparent({ address: '0.0.0.0', port: 50_090 })
  const config = configOf(listener({ listen: [{ address: '0.0.0.0', port: 50_090 }], families: [4] }))
  await withRules(config, async () => {
    assert.equal(await fromY(PROXY[4], 50_090), 'ECONNREFUSED')
    assert.equal(await fromY('10.0.4.1', 50_090), 'ECONNREFUSED')
    assert.equal(await fromY(SERVER[4], 50_090), 'intercepted 10.0.4.2:50090')
  })
  server.close()
})

test("answers to a connection with the client's address come back, when clients dial the listener itself", async () => {
  const config = configOf(
    listener({
      intercept: 'none',
      source: 'client',
      listen: [
        { address: '0.0.0.0', port: 1 },
        { address: '::', port: 1 },
      ],
    }),
  )
  const dial = (family: 4 | 6, waitMs?: number) => {
    const fd = openTcp(family)
    setTransparent(fd, family)
    setReuseAddress(fd)
    bindSocket(fd, { address: CLIENT[family], port: 0 })
    return ask(new Socket({ fd, allowHalfOpen: true }).connect({ host: SERVER[family], port: 80 }), waitMs)
  }
  await withRules(config, async () => {
    assert.match(await dial(4), /^server saw 10\.0\.3\.1:/)
    assert.match(await dial(6), /^server saw \[fd00:3::1\]:/)
    assert.match(await fromY(SERVER[4]), /^server saw/)
  })
  assert.equal(await dial(4, SILENT_MS), 'silence')
})

test('a socket that listens on an address of somebody else is dialled without any rule for its port', async () => {
  const foreign = { address: '10.0.4.77', port: 2_121 }
  const server = listenTransparent(foreign)
  await withRules(configOf(listener({ intercept: 'none', families: [4], listen: [foreign] })), async () => {
    assert.equal(await fromY(foreign.address, foreign.port), 'intercepted 10.0.4.77:2121')
  })
  server.close()
})

test('a new connection with the address and port of one in TIME_WAIT reaches the listener', async () => {
  await withRules(configOf(listener()), async () => {
    const from = { address: CLIENT[4], port: 40_123 }
    for (let i = 0; i < 3; i++) {
      const socket = gateway.y.connect({ address: SERVER[4], port: 80 }, { from })
      assert.match(await ask(socket), /^intercepted/)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })
})

test('onDown decides what happens while nobody listens', async () => {
  for (const [onDown, expected, waitMs] of [
    ['open', /^server saw/, undefined],
    ['closed', /^silence$/, SILENT_MS],
  ] as const) {
    const installed = await install(configOf(listener({ onDown })))
    for (const family of FAMILIES) assert.match(await fromY(SERVER[family], 80, waitMs), expected)
    await installed.remove()
    assert.match(await fromY(SERVER[4]), /^server saw/)
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPrefix } from '../net/prefix.ts'
import { MATCH_ANY } from './defaults.ts'
import { type QuickOptions, quickConfig } from './quick.ts'
import { type RelayOptions, relayConfig } from './relay.ts'

const ASKED: RelayOptions = { localPort: '50080', host: '10.0.4.2', remotePort: '80', rules: true }

/** What differs between the four scenarios. */
function summary(options: Partial<RelayOptions>) {
  const config = relayConfig({ ...ASKED, ...options })
  const [listener] = config.listeners
  return {
    intercept: listener?.intercept,
    listen: listener?.listen.map(({ address, port }) => `${address} ${port}`),
    ports: listener?.match.ports.map(({ from, to }) => `${from}-${to}`),
    source: listener?.source,
    rules: config.rules.install,
    flows: config.limits.flows,
  }
}

test('without -t and -T it is a forwarder on every address, without rules, for one connection', () => {
  const forwarder = {
    intercept: 'none',
    listen: ['0.0.0.0 50080', ':: 50080'],
    ports: [],
    source: 'proxy',
    rules: false,
  }
  assert.deepEqual(summary({}), { ...forwarder, flows: 1 })
  assert.deepEqual(summary({ keepServing: true }), { ...forwarder, flows: 0 })
})

test("-T dials as the client, which leaves the server's family only, and needs rules for the answers", () => {
  const expected = {
    intercept: 'none',
    listen: ['0.0.0.0 50080'],
    ports: [],
    source: 'client-port',
    rules: true,
    flows: 1,
  }
  assert.deepEqual(summary({ clientSource: true }), expected)
  assert.equal(summary({ clientSource: true, rules: false }).rules, false)
})

test('-t takes REMOTEPORT on its way to anybody, on loopback, in the family of HOST', () => {
  const expected = {
    intercept: 'tproxy',
    listen: ['127.0.0.1 50080'],
    ports: ['80-80'],
    source: 'proxy',
    rules: true,
    flows: 1,
  }
  assert.deepEqual(summary({ interceptClients: true }), expected)
  assert.deepEqual(summary({ interceptClients: true, host: 'fd00::1' }).listen, ['::1 50080'])
  assert.deepEqual(summary({ interceptClients: true, host: 'z' }).listen, ['127.0.0.1 50080', '::1 50080'])
  assert.deepEqual(summary({ interceptClients: true, interceptPorts: '80,8000-8100' }).ports, ['80-80', '8000-8100'])
  assert.deepEqual(summary({ interceptClients: true, interceptPorts: 'all' }).ports, [])
  assert.equal(relayConfig({ ...ASKED, interceptClients: true }).listeners[0]?.addressedHere, true)
})

test('the remote port is the local one when it is left out; -4, -6, -L and -f are heard', () => {
  const { listeners } = relayConfig({ ...ASKED, remotePort: undefined, fastOpen: true, ipv4: true })
  assert.deepEqual(listeners[0]?.to, { host: '10.0.4.2', port: 50_080 })
  assert.equal(listeners[0]?.fastOpen, true)
  assert.deepEqual(listeners[0]?.families, [4])
  assert.deepEqual(summary({ ipv6: true }).listen, [':: 50080'])
  assert.deepEqual(summary({ listenAddress: '192.0.2.1' }).listen, ['192.0.2.1 50080'])
  assert.deepEqual(relayConfig(ASKED, [4]).listeners[0]?.families, [4])
})

test('the quick form of run: all ports, both families, any interface, when left out', () => {
  const config = quickConfig({ intercept: 'tproxy', rules: true })
  const [listener] = config.listeners
  assert.deepEqual(listener?.match, MATCH_ANY)
  assert.deepEqual(listener?.families, [4, 6])
  assert.equal(listener?.onDown, 'open')
  assert.equal(config.rules.install, true)
  const narrow = quickConfig({
    intercept: 'tproxy',
    from: ['eth0', 'eth1'],
    ports: '80,443',
    source: 'client',
    rules: false,
  })
  assert.deepEqual(narrow.listeners[0]?.match.interfaces, ['eth0', 'eth1'])
  assert.deepEqual(narrow.listeners[0]?.match.ports, [
    { from: 80, to: 80 },
    { from: 443, to: 443 },
  ])
  assert.equal(narrow.rules.install, false)
})

test('the quick form of run takes paths, a range of ports to redirect to, and the program for the rules', () => {
  const config = quickConfig({
    intercept: 'redirect',
    path: ['forwarded,local', 'bridged'],
    listen: ['50080-50082'],
    family: '4',
    backend: 'iptables',
    rules: true,
  })
  const [listener] = config.listeners
  assert.deepEqual(listener?.paths, ['forwarded', 'local', 'bridged'])
  assert.deepEqual(
    listener?.listen.map(({ address, port }) => `${address} ${port}`),
    ['0.0.0.0 50080', '0.0.0.0 50081', '0.0.0.0 50082'],
  )
  assert.equal(config.rules.backend, 'iptables')
  assert.equal(quickConfig({ intercept: 'tproxy', rules: true }).rules.backend, 'auto')
})

test('the quick form of run takes prefixes to bypass, with commas and behind each other', () => {
  const config = quickConfig({ intercept: 'tproxy', bypass: ['10.0.0.0/8,192.0.2.1', 'fd00::/8'], rules: true })
  assert.deepEqual(config.bypass.map(formatPrefix), ['10.0.0.0/8', '192.0.2.1/32', 'fd00::/8'])
  assert.deepEqual(quickConfig({ intercept: 'tproxy', rules: true }).bypass, [])
})

test('what the quick form is missing or has too much of is named by its flag', () => {
  const refused = (options: Omit<QuickOptions, 'rules'>, message: string) =>
    assert.throws(() => quickConfig({ ...options, rules: true }), { code: 'LIMPID_USAGE', message })
  refused(
    { intercept: 'mark' },
    '--ports PORT is missing: with intercept mark the listener waits on the very port that it takes',
  )
  refused(
    { intercept: 'dnat' },
    '--listen ADDR:PORT is missing: with intercept dnat packets get the address of the listener as their destination',
  )
  refused(
    { intercept: 'none', listen: ['80'], to: 'z', path: ['local'] },
    '--path: "paths" has no meaning with intercept none, which takes no packets',
  )
  refused(
    { intercept: 'tproxy', path: ['lokal'] },
    '--path: expected forwarded, local or bridged, found "lokal"; did you mean "local"?',
  )
  refused(
    { intercept: 'tproxy', backend: 'nftables' },
    '--backend: expected auto, nft or iptables, found "nftables"; did you mean "iptables"?',
  )
})

test('--intercept-ports without REMOTEPORT keeps the port that the client dialled', () => {
  const to = (options: Partial<RelayOptions>) => relayConfig({ ...ASKED, ...options }).listeners[0]?.to?.port
  assert.equal(to({ interceptClients: true, interceptPorts: '80,443', remotePort: undefined }), 0)
  assert.equal(to({ interceptClients: true, interceptPorts: '80,443' }), 80)
})

test('HOST may be in brackets, and --from a list', () => {
  assert.equal(relayConfig({ ...ASKED, host: '[fd00:4::2]' }).listeners[0]?.to?.host, 'fd00:4::2')
  const config = quickConfig({ intercept: 'tproxy', from: ['eth0,eth1', 'eth2'], rules: true })
  assert.deepEqual(config.listeners[0]?.match.interfaces, ['eth0', 'eth1', 'eth2'])
})

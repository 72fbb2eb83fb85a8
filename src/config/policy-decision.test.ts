import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ConfigInput, defineConfig } from '../apps/define-config.ts'
import type { Decision } from './policy-types.ts'

type Written = NonNullable<NonNullable<ConfigInput['policy']>['otherwise']>

/** The decision that is meant, or what is wrong with it. */
function decisionOf(otherwise: Written, more: object = {}): Decision | string {
  try {
    return defineConfig({ listeners: [{}], policy: { ...more, otherwise } }).policy.otherwise
  } catch (error) {
    return (error as Error).message.replaceAll('policy.otherwise', '·')
  }
}

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a rule
test('via: a header, a SOCKS5 or an HTTP proxy', () => {
  assert.deepEqual(decisionOf({ then: 'via', via: { proxyProtocol: 'v1' } }), {
    kind: 'via',
    via: { kind: 'proxy-protocol', version: 1 },
    to: undefined,
    source: undefined,
  })
  assert.deepEqual(
    decisionOf({ then: 'via', via: { socks5: '[fd00::9]:1080', user: 'a', password: 'b', names: true } }),
    {
      kind: 'via',
      via: {
        kind: 'socks5',
        proxy: { address: 'fd00::9', port: 1080 },
        credentials: { user: 'a', password: 'b' },
        names: true,
      },
      to: undefined,
      source: undefined,
    },
  )
})

test('via: what does not go together is said', () => {
  const message = (via: Written['via'], more: Partial<Written> = {}) => decisionOf({ then: 'via', via, ...more })
  assert.match(String(message(undefined)), /·\.via: expected "via": then via needs to know/)
  assert.match(String(message({})), /·\.via: expected one of proxyProtocol, socks5 and connect/)
  assert.match(String(message({ socks5: '10.0.0.1:1', connect: '10.0.0.1:1' })), /·\.via: expected one of/)
  assert.match(
    String(message({ socks5: 'proxy.example:1080' })),
    /·\.via\.socks5: expected address:port .*a name would be/,
  )
  assert.match(String(message({ connect: '10.0.0.1:1', user: 'a' })), /expected both "user" and "password"/)
  assert.match(String(message({ connect: '10.0.0.1:1', user: 'a:b', password: 'c' })), /without ":"/)
  assert.match(String(message({ socks5: '10.0.0.1:1', user: 'a\n', password: 'c' })), /control characters/)
  assert.match(String(message({ proxyProtocol: 'v2', names: true })), /"names" has no meaning with proxyProtocol/)
  assert.match(
    String(message({ socks5: '127.0.0.1:1' }, { source: 'client' })),
    /·\.via\.socks5: 127\.0\.0\.1 cannot be dialled/,
  )
  assert.match(
    String(decisionOf({ then: 'forward', via: { proxyProtocol: 'v2' } })),
    /"via" has no meaning with then forward/,
  )
  const udp = { rules: [{ protocols: 'udp', then: 'via', via: { proxyProtocol: 'v2' } }] } as const
  assert.match(String(decisionOf({ then: 'forward' }, udp)), /rules\[0\]\.protocols: only TCP can go via a proxy/)
})

test('mark and dscp', () => {
  const decision = decisionOf({ then: 'forward', mark: '0x10', dscp: 'af41' })
  assert.deepEqual(decision, { kind: 'forward', to: undefined, source: undefined, mark: 16, dscp: 34 })
  for (const [text, value] of [
    ['ef', 46],
    ['CS1', 8],
    [0, 0],
    [63, 63],
    ['le', 1],
  ] as const) {
    const found = decisionOf({ then: 'forward', dscp: text })
    assert.equal(typeof found === 'object' && found.kind === 'forward' && found.dscp, value)
  }
  assert.match(String(decisionOf({ then: 'forward', dscp: 64 })), /expected a DSCP from 0 to 63/)
  assert.match(String(decisionOf({ then: 'forward', dscp: 'af44' })), /expected a DSCP/)
  assert.match(String(decisionOf({ then: 'reject', dscp: 1 })), /"dscp" has no meaning with then reject/)
  assert.match(String(decisionOf({ then: 'forward', mark: 0 })), /expected a fwmark/)
  const { markMask } = defineConfig({ listeners: [{}] }).rules
  const ours = decisionOf({ then: 'forward', mark: markMask & -markMask })
  assert.match(String(ours), /has bits of markMask .* Limpid's own/)
})
test('limits: new flows, bytes, or both', () => {
  const limit = (written: Written['limit']) => {
    const found = decisionOf({ then: 'forward', limit: written })
    return typeof found === 'object' && 'limit' in found ? found.limit : found
  }
  const bytes = { perSecond: 10_000_000, burst: 10_000_000 }
  const newFlows = { intervalMs: 100, burst: 10 }
  assert.deepEqual(limit({ newFlows: '10/s' }), { per: 'client', newFlows, bytes: undefined })
  assert.deepEqual(limit({ bytes: '10M/s', per: 'rule' }), { per: 'rule', newFlows: undefined, bytes })
  assert.deepEqual(limit({ newFlows: '10/s', bytes: '80Mbit/s' }), { per: 'client', newFlows, bytes })
  assert.deepEqual(limit({ bytes: '2k/s', burstBytes: '1.5M' }), {
    per: 'client',
    newFlows: undefined,
    bytes: { perSecond: 2_000, burst: 1_500_000 },
  })
  assert.match(String(limit({})), /·\.limit\.newFlows: expected "newFlows": a limit needs it, or "bytes", or both/)
  assert.match(String(limit({ bytes: '10M/s', burst: 5 })), /"burst" has no meaning without "newFlows"/)
  assert.match(String(limit({ newFlows: '1/s', burstBytes: '1M' })), /"burstBytes" has no meaning without "bytes"/)
  assert.match(
    String(limit({ bytes: '100M/s', burstBytes: '1M' })),
    /expected at least 2000000 bytes: what comes in 20 ms/,
  )
  assert.match(String(limit({ bytes: '1M/s', burstBytes: '64k' })), /expected a number of bytes from 100k to 100G/)
  for (const wrong of ['0/s', '10', '10M', '999/s', '101G/s', '10m/s', '10MB/s', '10Mb/s', '-1M/s', '10M/h', '1e6/s']) {
    assert.match(String(limit({ bytes: wrong })), /·\.limit\.bytes: expected bytes or bits a second from 1k\/s/, wrong)
  }
  assert.match(String(limit({ bytes: '10MB/s' })), /M is a million bytes, Mbit a million bits/)
})

test('timeouts: those that are given', () => {
  assert.deepEqual(decisionOf({ then: 'forward', timeouts: { idle: '5s', session: 'off' } }), {
    kind: 'forward',
    to: undefined,
    source: undefined,
    timeouts: { idleMs: 5_000, sessionIdleMs: 0 },
  })
  assert.match(
    String(decisionOf({ then: 'reject', timeouts: { idle: '5s' } })),
    /"timeouts" has no meaning with then reject/,
  )
  assert.match(String(decisionOf({ then: 'forward', timeouts: { idle: 5 } })), /·\.timeouts\.idle: expected a duration/)
  assert.match(
    String(decisionOf({ then: 'forward', timeouts: { idel: '5s' } as object })),
    /·\.timeouts\.idel: expected a known key/,
  )
})
// biome-ignore-end lint/suspicious/noThenProperty: as above

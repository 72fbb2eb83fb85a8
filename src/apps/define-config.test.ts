import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { parseConfig } from '../config/parse.ts'
import { type ConfigInput, defineConfig } from './define-config.ts'
import { transformApp } from './transform-app.ts'

test('an object gives the same configuration as the file that says the same', () => {
  const text = 'listeners: [{ name: web, ports: [80, 8000-8100], source: client, timeouts: { idle: 5m } }]'
  const input = { listeners: [{ name: 'web', ports: [80, '8000-8100'], source: 'client', timeouts: { idle: '5m' } }] }
  assert.deepEqual(defineConfig(input, {}), parseConfig(text, 'limpid.yaml'))
})

test('forwards alone, and the words of the ways of interception, compile', () => {
  const config = defineConfig({
    listeners: [{ intercept: 'redirect', paths: ['forwarded', 'local'], listen: '50080-50083' }],
    forwards: [{ ports: 53, protocols: ['tcp', 'udp'], to: '10.0.4.2', source: 'proxy' }],
    rules: { backend: 'nft' },
  })
  assert.deepEqual([config.listeners[0]?.listen.length, config.forwards[0]?.source], [8, 'proxy'])
  assert.deepEqual(defineConfig({ forwards: [{ ports: 53, to: '10.0.4.2' }] }).listeners, [])
})

test('what is wrong is named by its path', () => {
  assert.throws(() => defineConfig({ listeners: [{ ports: 70_000 }] }), {
    code: 'LIMPID_CONFIG',
    message: /^listeners\[0\]\.ports(\[0\])?: expected .*70000/,
  })
})

test('everything that is wrong is named, and no command', () => {
  assert.throws(() => defineConfig({ listeners: [{ ports: 70_000 }, { to: 'z:0' }] }), {
    message: /^listeners\[0\]\.ports[^;]*70000; listeners\[1\]\.to: [^;]*"z:0"$/,
  })
})

test('a mistyped word does not compile', () => {
  const listeners: ConfigInput['listeners'] = [
    { intercept: 'none', family: 'both', source: '10.0.0.9', onDown: 'closed' },
    // @ts-expect-error
    { intercept: 'tproxi' },
    // @ts-expect-error
    { family: 5 },
    // @ts-expect-error
    { source: 4 },
    // @ts-expect-error
    { onDown: 'shut' },
    // @ts-expect-error
    { intercept: 'bridge' },
  ]
  assert.throws(() => defineConfig({ listeners }), { code: 'LIMPID_CONFIG' })
})

const LISTENERS = [{ intercept: 'none', listen: '127.0.0.1:50080', to: '127.0.0.1:1' }] as const

// biome-ignore-start lint/suspicious/noThenProperty: the operator’s word; nobody awaits a decision
test('a mistyped hook, and a decision with a wrong word, do not compile', () => {
  const hooks: ConfigInput['hooks'][] = [
    {
      onFlow: async ({ client, host, alpn, protocol, names, originalDst }) =>
        host === 'a' || alpn.includes('h2') || protocol === 'ssh' || names.length + originalDst.port > 9
          ? { then: 'forward', to: `${client.address}:80`, source: 'client' }
          : undefined,
      onClose: ({ reason, host }) => void [reason === 'closed', host],
      onHttpRequest: async ({ method, url, headers, host }) =>
        method === 'PUT'
          ? { then: 'reject', status: 405, body: `${host} ${headers.accept}` }
          : { then: 'forward', url },
      hookDeadline: '200ms',
      onHookFailure: 'forward',
    },
    { onFlow: () => ({ then: 'reject', by: 'forbidden' }) },
    { onFlow: ({ transport }) => (transport === 'udp' ? { then: 'reject', by: 'refused' } : undefined) },
    {
      onDns: async ({ listener, transport, client, originalDst, name, type, rule, signal }) => {
        if (type === 'AAAA' && transport === 'udp' && !signal.aborted)
          return { then: 'answer', addresses: ['fd00::1'], ttl: '5m' }
        if (name.endsWith('.corp.example')) return { then: 'forward', to: `${originalDst.address}:${client.port}` }
        return rule === listener ? { then: 'reject', by: 'nxdomain' } : { then: 'forward' }
      },
    },
    { onDns: () => undefined },
    // @ts-expect-error
    { onDns: () => ({ then: 'via' }) },
    // @ts-expect-error
    { onDns: () => ({ then: 'reject', by: 'reset' }) },
    // @ts-expect-error
    { onDns: async () => ({ then: 'answer' }) },
    // @ts-expect-error
    { onDns: () => ({ then: 'reject', addresses: ['10.0.0.1'] }) },
    // @ts-expect-error
    { onDns: ({ host }) => (host === 'a' ? { then: 'reject' } : undefined) },
    { onFlow: () => ({ then: 'handle', app: 'http', to: 'pool:web' }) },
    // @ts-expect-error
    { onHttpRequest: () => ({ then: 'reject', status: '403' }) },
    // @ts-expect-error
    { onHttpRequest: () => ({ then: 'forward', status: 200 }) },
    // @ts-expect-error
    { onHttpRequest: ({ path }) => (path === '/' ? { then: 'reject' } : undefined) },
    // @ts-expect-error
    { onFlo: () => undefined },
    // @ts-expect-error
    { onFlow: () => ({ then: 'refuse' }) },
    // @ts-expect-error
    { onFlow: async () => ({ then: 'reject', by: 'forbiden' }) },
    // @ts-expect-error
    { onFlow: ({ hostname }) => (hostname === 'a' ? { then: 'reject' } : undefined) },
    // @ts-expect-error
    { onClose: ({ reason }) => reason === 'close' },
    // @ts-expect-error
    { onHookFailure: 'open' },
  ]
  assert.equal(hooks.length, 20)
})
// biome-ignore-end lint/suspicious/noThenProperty: as above

test('an app that is none does not compile, and a transform needs no types of its own', () => {
  const apps: ConfigInput['apps'][] = [
    { mine: { serve: async (client, flow) => void client.end(`${flow.host} ${(await flow.dial()).remotePort}`) } },
    {
      mine: transformApp({
        clientToUpstream: ({ clientAddr }) => (clientAddr.port > 9 ? new PassThrough() : undefined),
      }),
    },
    // @ts-expect-error
    { mine: { serve: (client) => client.end() } },
    // @ts-expect-error
    { mine: { serves: async () => {} } },
    // @ts-expect-error
    { mine: transformApp({ clientToServer: () => new PassThrough() }) },
    // @ts-expect-error
    { mine: transformApp({ upstreamToClient: () => 'stream' }) },
  ]
  assert.equal(apps.length, 6)
})

test('hooks are checked as the rest is, and have their defaults', () => {
  class Counting {
    seen = 0
    onFlow(): undefined {
      this.seen++
    }
  }
  const counting = new Counting()
  const { hooks } = defineConfig({ listeners: [...LISTENERS], hooks: counting })
  assert.deepEqual([hooks?.deadlineMs, hooks?.onFailure, hooks?.onClose], [1000, 'reject', undefined])
  const computing = (hookComputing?: string) =>
    defineConfig({ listeners: [...LISTENERS], hooks: hookComputing === undefined ? {} : { hookComputing } }).hooks
      ?.computingMs
  assert.deepEqual([computing(), computing('5s'), computing('off')], [2000, 5000, 0])
  for (const wrong of ['0s', '1ms', '2h'])
    assert.throws(() => computing(wrong), /hooks\.hookComputing: expected a duration from 500ms to 1m, or off/)
  hooks?.onFlow?.(undefined as never)
  assert.equal(counting.seen, 1, 'its own `this`')
  const wrong = { onFlow: 3, onRequest() {}, hookDeadline: 'off', onHookFailure: 'x', mostWaiting: 0 }
  assert.throws(() => defineConfig({ listeners: [...LISTENERS], hooks: wrong as never }), {
    code: 'LIMPID_CONFIG',
    message:
      /^hooks\.onRequest: expected one of onFlow, .*; hooks\.hookDeadline: .*1ms to 1m, found "off"; hooks\.onHookFailure: .*; hooks\.mostWaiting: .*; hooks\.onFlow: expected a function, found 3$/,
  })
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ConfigInput, defineConfig } from './define.ts'
import { parseConfig } from './parse.ts'

test('an object gives the same configuration as the file that says the same', () => {
  const text = 'listeners: [{ name: web, ports: [80, 8000-8100], source: client, timeouts: { idle: 5m } }]'
  const input = { listeners: [{ name: 'web', ports: [80, '8000-8100'], source: 'client', timeouts: { idle: '5m' } }] }
  assert.deepEqual(defineConfig(input), parseConfig(text, 'limpid.yaml'))
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

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defineConfig } from './define.ts'
import { parseConfig } from './parse.ts'

test('an object gives the same configuration as the file that says the same', () => {
  const text = 'listeners: [{ name: web, ports: [80, 8000-8100], source: client, timeouts: { idle: 5m } }]'
  const input = { listeners: [{ name: 'web', ports: [80, '8000-8100'], source: 'client', timeouts: { idle: '5m' } }] }
  assert.deepEqual(defineConfig(input), parseConfig(text, 'limpid.yaml'))
})

test('what is wrong is named by its path', () => {
  assert.throws(() => defineConfig({ listeners: [{ ports: 70_000 }] }), {
    code: 'LIMPID_CONFIG',
    message: /^listeners\[0\]\.ports(\[0\])?: expected .*70000/,
  })
})

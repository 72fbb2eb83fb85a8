import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../config/parse.ts'
import { targetsOf } from './target-probe.ts'

test('the servers of forwards and listeners are dialled where their address and port are known', () => {
  const text = `
listeners:
  - { name: web, ports: [80], to: 10.0.4.7 }
  - { name: range, ports: [2000-2099], to: 10.0.4.7 }
  - { name: named, ports: [81], to: example.org:81 }
forwards:
  - { name: dns, protocols: [udp], ports: [53], to: 10.0.4.2 }
  - { name: mail, ports: [25], to: 10.0.4.2:2525 }
`
  const found = targetsOf(parseConfig(text, 'f', { hostFamilies: [4] }))
  assert.deepEqual(
    found.map(({ id, name, server }) => [id, name, `${server.address}:${server.port}`]),
    [
      ['forward', 'forward mail', '10.0.4.2:2525'],
      ['server', 'listener web', '10.0.4.7:80'],
    ],
  )
})

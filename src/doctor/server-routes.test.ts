import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Link } from './links.ts'
import { serverRouteFindings } from './server-routes.ts'

const SWITCHES = { callIptables: false, callIp6tables: false }
const BRIDGE: Link = { name: 'br0', mtu: 1500, up: true, bridge: SWITCHES, master: undefined }
const PORTS = ['b-y', 'b-z'].map((name): Link => ({ name, mtu: 1500, up: true, bridge: undefined, master: 'br0' }))
const LINKS = [...PORTS, BRIDGE]
const ROUTE = { family: 4, destination: '10.0.9.0/24', dev: 'br0' } as const

test('a connected route of the bridge is the way to servers that are across it', () => {
  const [found] = serverRouteFindings({
    family: 4,
    routes: [ROUTE],
    links: LINKS,
    clientLinks: LINKS,
    bridges: ['br0'],
    named: [],
  })
  assert.equal(found?.status, 'ok')
  assert.equal(found?.what, 'IPv4 leads to 10.0.9.0/24 by the bridge br0')
})

test('no route is ever proposed by the port of a bridge', () => {
  for (const routes of [[], [ROUTE]]) {
    const [found] = serverRouteFindings({
      family: 4,
      routes,
      links: LINKS,
      clientLinks: LINKS,
      bridges: [],
      named: [],
    })
    assert.match(found?.cure ?? '', / dev br0 /)
  }
})

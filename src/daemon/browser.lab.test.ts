import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { enterNamespaces } from '../lab/namespace.ts'
import { until } from '../lab/traffic.fixture.ts'
import { Browser, type Page } from './browser.fixture.ts'
import { ClientsLab, HOSTS, without } from './clients.fixture.ts'
import { PORTS } from './clients-servers.fixture.ts'

await enterNamespaces()

const skip = without('chromium', 'openssl', 'gtlsserver')
let lab: ClientsLab
let browser: Browser

before(async () => {
  if (skip !== false) return
  lab = await ClientsLab.raise()
  const ports = [PORTS.quic, PORTS.tlsAlone, PORTS.closedQuic]
  browser = await Browser.open(lab.topology.y, lab.folder, [
    ...ports.map((port) => `${HOSTS.quicAllowed}:${port}`),
    ...[HOSTS.quicBlocked, HOSTS.quicByGuest].map((host) => `${host}:${PORTS.quic}`),
  ])
})

after(async () => {
  await browser?.close()
  await lab?.close()
})

describe('Chromium, TLS', { skip }, () => {
  test('is served where no rule says otherwise', async () => {
    const visit = () => browser.visit(`https://${HOSTS.allowed}/`)
    const { result, record } = await lab.observe(HOSTS.allowed, PORTS.tls, visit)
    assert.deepEqual(result, { text: 'HTTP/2.0 over TLSv1.3', protocol: 'h2' })
    assert.deepEqual([record.detected, record.host, record.rule], ['tls', HOSTS.allowed, undefined])
  })

  const refused = [
    ['host', HOSTS.blocked, PORTS.tls, 'blocked'],
    ['client', HOSTS.byGuest, PORTS.tls, 'no-guests'],
    ['port', HOSTS.allowed, PORTS.closed, 'closed-port'],
    ['protocol', HOSTS.allowed, PORTS.http, 'http-alone'],
  ] as const
  for (const [what, host, port, wanted] of refused) {
    test(`is refused by ${what}`, async () => {
      const { result, record } = await lab.observe(host, port, () => browser.visit(`https://${host}:${port}/`))
      assert.match(failureOf(result), /^net::ERR_(CONNECTION_(RESET|CLOSED)|SSL_PROTOCOL_ERROR)$/)
      const { rule, reason, upstream } = record
      assert.deepEqual({ rule, reason, upstream }, { rule: wanted, reason: 'policy', upstream: undefined })
    })
  }
})

describe('Chromium, QUIC', { skip }, () => {
  test('is served where no rule says otherwise', async () => {
    const page = await browser.visit(`https://${HOSTS.quicAllowed}/page.txt`)
    assert.deepEqual(page, { text: 'HTTP/3', protocol: 'h3' })
    const find = () => lab.limpid.records.find(({ protocol, detected }) => protocol === 'udp' && detected === 'quic')
    await until(() => find() !== undefined, 'record of the session')
    const { host, rule, reason } = find()!
    assert.deepEqual({ host, rule, reason }, { host: HOSTS.quicAllowed, rule: undefined, reason: 'session-idle' })
  })

  const refused = [
    ['host', HOSTS.quicBlocked, PORTS.quic],
    ['client', HOSTS.quicByGuest, PORTS.quic],
    ['port', HOSTS.quicAllowed, PORTS.closedQuic],
    ['protocol', HOSTS.quicAllowed, PORTS.tlsAlone],
  ] as const
  for (const [what, host, port] of refused) {
    test(`is refused by ${what}`, async () => {
      const before = await lab.limpid.stats()
      const result = await browser.visit(`https://${host}:${port}/page.txt`)
      assert.match(failureOf(result), /^net::ERR_/)
      const { datagramsDropped, sessionsOpen } = await lab.limpid.stats()
      assert.ok((datagramsDropped.policy ?? 0) > (before.datagramsDropped.policy ?? 0), 'no datagram was refused')
      assert.equal(sessionsOpen, 0)
    })
  }
})

function failureOf(page: Page): string {
  return 'failure' in page ? page.failure : `served: ${page.text}`
}

import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { test } from 'node:test'
import { hostFacts, parseInterfaceNames, readSysctl, sysctlPath } from './host.ts'

test('the facts of this host hold its loopback interface, its sysctls and its namespace', () => {
  const facts = hostFacts()
  assert.ok(facts.interfaces.some(({ name }) => name === 'lo'))
  assert.match(facts.sysctls.get('net.ipv4.conf.all.rp_filter') ?? '', /^[012]$/)
  assert.equal(facts.namespace, statSync('/proc/self/ns/net').ino)
})

test('interface names are read as the kernel lists them, also those without an address', () => {
  const text = 'Inter-| Receive\n face |bytes\n    lo: 12 0\neth0.100:   0 0\n'
  assert.deepEqual(parseInterfaceNames(text), ['lo', 'eth0.100'])
})

test('a slash in a sysctl key stands for a dot in a name', () => {
  assert.equal(sysctlPath('net.ipv4.conf.eth0/100.rp_filter'), '/proc/sys/net/ipv4/conf/eth0.100/rp_filter')
  assert.equal(readSysctl('net.ipv4.no_such_key'), undefined)
})

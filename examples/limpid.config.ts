// A configuration that decides flows by a function: limpid run -c limpid.config.ts
// Node.js 22.18 or later reads TypeScript by itself, earlier ones with jiti beside Limpid; as .mjs without types it needs neither.
import { defineConfig } from 'limpid'

const MOST_HOSTS = 2
const hostsOf = new Map<string, Set<string>>() // what a hook keeps, it keeps for its process

export default defineConfig({
  listeners: [
    { name: 'web', ports: [80, 443], source: 'client' },
    { name: 'dns', ports: 53, protocols: ['udp', 'tcp'], source: 'client', dns: {} },
  ],
  policy: { rules: [{ name: 'no-ads', hosts: ['.ads.example'], then: 'reject' }] }, // asked first
  hooks: {
    hookDeadline: '500ms',
    onHookFailure: 'reject',
    async onFlow({ client, host, protocol }) {
      if (host === undefined) return protocol === 'unknown' ? undefined : { then: 'reject' }
      const hosts = hostsOf.get(client.address) ?? new Set()
      hostsOf.set(client.address, hosts.add(host))
      return hosts.size > MOST_HOSTS ? { then: 'reject', by: 'forbidden' } : undefined
    },
    onDns({ name, type }) {
      if (type === 'A' && name === 'printer.example') return { then: 'answer', addresses: ['10.0.3.9'], ttl: '5m' }
      return name.endsWith('.tracker.example') ? { then: 'reject', by: 'nxdomain' } : undefined
    },
    onClose({ client, host, reason, bytesUpstreamToClient }) {
      console.error(`${client.address} had ${bytesUpstreamToClient} bytes of ${host ?? 'somebody'}: ${reason}`)
    },
  },
})

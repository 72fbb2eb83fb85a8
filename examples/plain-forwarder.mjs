// Forwards TCP from port 8080 to a server; no kernel help, no privilege: node plain-forwarder.mjs 10.0.4.2:80
import { createProxy, defineConfig } from 'limpid'

const [to] = process.argv.slice(2)
const proxy = createProxy(defineConfig({ listeners: [{ intercept: 'none', listen: '0.0.0.0:8080', to }] }))
proxy.on('flow', ({ client, reason, bytesUpstreamToClient }) => {
  console.log(`${client.address}: ${bytesUpstreamToClient} bytes, ${reason}`)
})
await proxy.listen()

// Decides each HTTP request, and gives other flows to code of your own: limpid run -c apps.config.ts
import { Transform } from 'node:stream'
import { defineConfig, type StreamApp, transformApp } from 'limpid'

/** Bytes of the server, some of them changed on their way to the client. */
const censor = () =>
  new Transform({ transform: (chunk, _encoding, done) => done(null, String(chunk).replaceAll('secret', '******')) })

/** Answers in the server's place. It could flow.dial() that as well. */
const time: StreamApp = {
  async serve(client, { clientAddr }) {
    client.end(`${clientAddr.address}: it is ${new Date().toISOString()}\n`)
  },
}

export default defineConfig({
  listeners: [{ name: 'all', ports: [37, 80, 8000], source: 'client' }],
  policy: {
    rules: [
      { name: 'no-ads', hosts: ['.ads.example'], then: 'reject', by: 'forbidden' },
      { name: 'time', ports: 37, then: 'handle', app: 'time' },
      { name: 'censored', ports: 8000, then: 'handle', app: 'censor' },
      { name: 'web', detected: 'http1', then: 'handle', app: 'http' },
    ],
  },
  apps: { time, censor: transformApp({ upstreamToClient: censor }) },
  hooks: {
    async onHttpRequest({ method, url }) {
      if (method !== 'GET' && method !== 'HEAD') return { then: 'reject', status: 405, body: 'for readers alone\n' }
      if (url.startsWith('/old/')) return { then: 'forward', url: url.replace('/old/', '/new/'), remove: ['Cookie'] }
      return undefined
    },
  },
})
